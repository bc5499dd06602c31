"""Projections as TIFF: names, number types, layouts, folders, sinograms, half acquisition; each against the truth."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib import cli
from DiffusionMBIRLib.io.tiff import read_tiff
from Testing.engine.scans import correlation, counted, image_of, lines_of, told, write_folder, write_images

ANGLES = np.arange(60) * 3.0
LINES = lines_of(ANGLES)
COUNTERS = [f"raw_{k}.tif" for k in range(60)]


def attenuation(scan, method="fbp") -> np.ndarray:
    """The middle slice as attenuation a pixel; pixels are of 1 mm where their size is told."""
    settings = mbir.ReconSettings.preset("sparse-view", method=method)
    volume = mbir.reconstruct(scan, settings=settings).volume
    told_size = not any("pixels of" in line for line in scan.provenance["guessed"])
    assert volume.unit == ("1/mm" if told_size else "HU")
    array = volume.array if told_size else (volume.array / 1000 + 1) * scan.mu_water_per_mm
    return array[len(array) // 2]


def refusal(path, **known) -> str:
    with pytest.raises(mbir.InputError) as caught:
        mbir.read(path, **known)
    text = str(caught.value)
    assert "\n" not in text
    return text


NAMES = {
    "angles": [f"proj_{a + 0.5:.1f}.tif" for a in ANGLES],
    "negative angles": [f"tilt_{a - 90:g}_60kV.tif" for a in ANGLES],
    "unlike decimals": [f"t{a / 7:g}.tif" for a in ANGLES],
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_give_the_order(tmp_path, kind):
    scan = mbir.read(write_folder(tmp_path / "s", NAMES[kind], ANGLES, LINES))
    np.testing.assert_allclose(scan.data, LINES.swapaxes(0, 1), atol=2e-3)
    assert correlation(attenuation(scan), image_of(64)) > 0.98


def test_angles_in_names_beside_a_list_in_the_order_of_the_scan(tmp_path):
    order = np.random.default_rng(0).permutation(60)
    scan = mbir.read(write_folder(tmp_path / "s", NAMES["angles"], ANGLES, LINES, listed=ANGLES[order] + 0.5))
    assert scan.geometry.angles_deg == pytest.approx(tuple(ANGLES + 0.5))
    assert "angle that its name holds" in told(scan)


def test_data_decide_where_names_leave_the_order_open(tmp_path):
    order = np.random.default_rng(0).permutation(60)
    names = [f"set{order[k]}_{k:03}.tif" for k in range(60)]
    scan = mbir.read(write_folder(tmp_path / "s", names, ANGLES, LINES))
    by_angle = np.argsort(scan.geometry.angles_deg)
    np.testing.assert_allclose(scan.data[:, by_angle], LINES.swapaxes(0, 1), atol=2e-3)
    assert "number 2 of their names" in told(scan)


def test_radians_in_a_list(tmp_path):
    scan = mbir.read(write_folder(tmp_path / "s", COUNTERS, ANGLES, LINES, listed=np.radians(ANGLES)))
    assert scan.geometry.angles_deg == pytest.approx(tuple(ANGLES))
    assert "radians" in " ".join(scan.provenance["guessed"])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_number_types_and_layouts(tmp_path, dtype, tile):
    image = (np.arange(20 * 37).reshape(20, 37) % 251 / (8 if "float" in dtype else 1)).astype(dtype)
    tifffile.imwrite(tmp_path / "i.tif", image, tile=tile)
    back = read_tiff(tmp_path / "i.tif")
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, image)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_counts_of_unusual_types(tmp_path, dtype):
    scan = mbir.read(write_folder(tmp_path / "s", COUNTERS, ANGLES, LINES, dtype=dtype))
    np.testing.assert_allclose(scan.data, LINES.swapaxes(0, 1), atol=2e-3)


def test_compressed_images(tmp_path):
    image = np.random.default_rng(0).integers(0, 60000, (9, 13)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "deflate.tif", image, compression="zlib")
    itk = sitk.ImageFileWriter()
    itk.SetFileName(str(tmp_path / "lzw.tif"))
    itk.SetCompressor("LZW")
    itk.UseCompressionOn()
    itk.Execute(sitk.GetImageFromArray(image))
    for name in ("deflate", "lzw"):
        np.testing.assert_array_equal(read_tiff(tmp_path / f"{name}.tif"), image)


def test_images_that_cannot_be_used(tmp_path):
    rng = np.random.default_rng(0)
    tifffile.imwrite(tmp_path / "colour.tif", rng.integers(0, 255, (8, 9, 3)).astype(np.uint8), photometric="rgb")
    tifffile.imwrite(tmp_path / "complex.tif", np.ones((8, 9), np.complex64))
    tifffile.imwrite(tmp_path / "cut.tif", rng.normal(size=(80, 90)).astype(np.float32))
    (tmp_path / "cut.tif").write_bytes((tmp_path / "cut.tif").read_bytes()[:20000])
    tifffile.imwrite(tmp_path / "huge.tif", np.ones((8, 9), np.uint16))
    whole = bytearray((tmp_path / "huge.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "huge.tif") as file:
        for tag in ("ImageWidth", "ImageLength"):
            place = file.pages[0].tags[tag].valueoffset
            whole[place : place + 2] = b"\xff\xff"
    (tmp_path / "huge.tif").write_bytes(whole)
    (tmp_path / "text.tif").write_text("a letter")
    words = {"colour": "grey", "complex": "complex64", "cut": "truncated", "huge": "truncated", "text": "truncated"}
    for name, said in words.items():
        with pytest.raises(mbir.InputError, match=said) as caught:
            read_tiff(tmp_path / f"{name}.tif")
        assert f"{name}.tif" in str(caught.value)


@pytest.mark.parametrize(
    ("flat", "dark"),
    [("Flat_Before/IMAT_Flat_000.tif", "Dark_Before/IMAT_Dark_000.tif"), ("flats/a.tif", "darks/b.tif")]
    + [("OpenBeam/x_0.tif", "dark/x_0.tif"), ("scan_white_1.tif", "scan_dark_1.tif")],
)
def test_flat_and_dark_images_in_places_of_their_own(tmp_path, flat, dark):
    scan = mbir.read(write_folder(tmp_path / "s", COUNTERS, ANGLES, LINES, flat=flat, dark=dark))
    np.testing.assert_allclose(scan.data, LINES.swapaxes(0, 1), atol=2e-3)


def test_what_a_folder_lacks_is_said(tmp_path):
    folder = write_folder(tmp_path / "s", COUNTERS, ANGLES, LINES, flat="other/f.tif")
    assert "flat" in refusal(folder)
    assert "other (1)" in refusal(folder)
    (folder / "angles.txt").unlink()
    assert "angles.txt" in refusal(folder)
    assert cli.main(["info", str(folder), "--quiet"]) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_no_images(tmp_path):
    folder = write_folder(tmp_path / "s", COUNTERS, ANGLES, LINES)
    os.mkfifo(folder / "flat_2.tif")
    os.mkfifo(folder / "views" / "raw_60.tif")
    assert mbir.read(folder).geometry.views == 60
    (folder / "angles.txt").unlink()
    os.mkfifo(folder / "angles.txt")
    assert "angles.txt" in refusal(folder)


def test_a_sinogram(tmp_path):
    sinogram = LINES[:, 1].astype(np.float32)
    (tmp_path / "angles.txt").write_text("\n".join(map(str, ANGLES)))
    for name, stored in (("s.tif", sinogram), ("t.tif", sinogram.T)):
        tifffile.imwrite(tmp_path / name, stored)
        scan = mbir.read(tmp_path / name)
        np.testing.assert_allclose(scan.data, sinogram[None], atol=1e-6)
        assert scan.grid.shape == (1, 64, 64)
    assert "columns x views" in told(scan)
    tifffile.imwrite(tmp_path / "counts.tif", np.rint(counted(LINES)[0][:, 1]).astype(np.uint16))
    assert "no line integrals" in refusal(tmp_path / "counts.tif")
    tifffile.imwrite(tmp_path / "flat.tif", np.rint(counted(LINES)[1][1:2]).astype(np.uint16))
    tifffile.imwrite(tmp_path / "dark.tif", np.rint(counted(LINES)[2][1:2]).astype(np.uint16))
    np.testing.assert_allclose(mbir.read(tmp_path / "counts.tif").data, sinogram[None], atol=2e-3)
    (tmp_path / "angles.txt").unlink()
    assert "angles.txt" in refusal(tmp_path / "s.tif")


def test_sinograms_of_several_slices(tmp_path):
    (tmp_path / "angles.txt").write_text("\n".join(map(str, ANGLES)))
    scaled = [k * LINES[:, 0] for k in (1, 2, 3)]
    write_images(tmp_path, [f"sino_{k}.tif" for k in range(3)], scaled, dtype=np.float32)
    np.testing.assert_allclose(mbir.read(tmp_path).data, np.stack(scaled), atol=1e-6)


def test_a_stack_of_views(tmp_path):
    counts, flat, dark = counted(LINES)
    tifffile.imwrite(tmp_path / "views.tif", np.rint(counts).astype(np.uint16), photometric="minisblack")
    tifffile.imwrite(tmp_path / "flat.tif", np.rint([flat, flat]).astype(np.uint16), photometric="minisblack")
    tifffile.imwrite(tmp_path / "dark.tif", np.rint(dark).astype(np.uint16))
    (tmp_path / "angles.txt").write_text("\n".join(map(str, ANGLES)))
    for path in (tmp_path, tmp_path / "views.tif"):
        np.testing.assert_allclose(mbir.read(path).data, LINES.swapaxes(0, 1), atol=2e-3)


WIDE = ((0.0, 0.0, 46.0, 0.008), (20.0, 10.0, 8.0, 0.008), (-25.0, -12.0, 6.0, -0.006), (5.0, -30.0, 5.0, 0.01))


def half_acquisition(path, axis, views=120):
    angles = np.arange(views) * 360 / views
    counts, flat, dark = counted(lines_of(angles, axis=axis, discs=WIDE))
    with h5py.File(path, "w") as file:
        fields = {"data": counts, "data_white": flat[None], "data_dark": dark[None], "theta": angles}
        for key, values in fields.items():
            file[f"exchange/{key}"] = values
    return path


@pytest.mark.parametrize("axis", [4.6, 10.3, 15.0, 53.2])
def test_half_acquisition(tmp_path, axis):
    """The detector sees half of the object at a time; the whole comes out, at its values."""
    scan = mbir.read(half_acquisition(tmp_path / "half.h5", axis))
    found = 31.5 - scan.geometry.offset_mm
    assert found == pytest.approx(axis, abs=0.2)
    size = scan.grid.shape[1]
    assert size == 2 * int(np.ceil(max(found + 0.5, 63.5 - found)))
    assert "half acquisition" in told(scan)
    assert "cut off" not in told(scan)
    assert scan.mu_water_per_mm == pytest.approx(0.008, rel=0.15)
    right = image_of(size, WIDE)
    x = np.arange(size) - (size - 1) / 2
    inside = np.hypot(x, x[:, None]) < 40
    for method, least in (("fbp", 0.95), ("sirt", 0.98)):
        image = attenuation(scan, method)
        assert correlation(image, right) > least
        assert image[inside].mean() == pytest.approx(right[inside].mean(), rel=0.03)


def test_a_shifted_detector_that_sees_all_is_no_half_acquisition(tmp_path):
    small = ((2.0, -3.0, 7.0, 0.02),)
    angles = np.arange(0, 360, 3.0)
    scan = mbir.read(
        write_folder(
            tmp_path / "s", [f"v{k}.tif" for k in range(120)], angles, lines_of(angles, axis=20.2, discs=small)
        )
    )
    assert scan.grid.shape[1:] == (64, 64)
    assert 31.5 - scan.geometry.offset_mm == pytest.approx(20.2, abs=0.15)
    image = attenuation(scan)
    assert image[29, 34] == pytest.approx(0.02, abs=2e-3)
    assert correlation(image, image_of(64, small)) > 0.97


def test_what_the_user_tells(tmp_path, capsys):
    folder = write_folder(tmp_path / "s", COUNTERS, ANGLES, LINES)
    scan = mbir.read(folder, pixel_mm=0.1, axis=31.0)
    assert scan.geometry.pitch_mm == 0.1
    assert scan.geometry.offset_mm == pytest.approx(0.05)
    assert cli.main(["info", str(folder), "--pixel-mm", "0.1", "--axis", "31"]) == 0
    text = capsys.readouterr().out
    assert "pitch_mm 0.1" in text
    assert "rotation axis" not in text
    output = tmp_path / "r.nrrd"
    options = ["--method", "fbp", "--pixel-mm", "0.1", "--axis", "31", "--quiet"]
    assert cli.main(["reconstruct", str(folder), "-o", str(output), *options]) == 0
    assert mbir.read_volume(output).grid.spacing_mm == pytest.approx((0.1, 0.1, 0.1))
    mbir.write(scan, tmp_path / "own.h5")
    assert "pixel_mm" in refusal(tmp_path / "own.h5", pixel_mm=0.1)
    assert "axis" in refusal(tmp_path / "own.h5", axis=3.0)


def test_a_job_uses_what_the_user_tells(tmp_path):
    from DiffusionMBIRLib.jobs.asking import ask

    folder = write_folder(tmp_path / "s", COUNTERS, ANGLES, LINES)
    options = ["--method", "fbp", "--pixel-mm", "0.1", "--axis", "31", "--quiet"]
    assert (
        cli.main(
            ["job", "run", str(folder), "--folder", str(tmp_path / "jobs"), "-o", str(tmp_path / "r.nrrd"), *options]
        )
        == 0
    )
    assert mbir.read_volume(tmp_path / "r.nrrd").grid.spacing_mm == pytest.approx((0.1, 0.1, 0.1))
    with pytest.raises(mbir.InputError, match="axis"):
        ask(mbir.read(folder), choices={"axis": 31.0})
