"""Measured parallel-beam projections: Data Exchange files and folders of TIFF images, made from a known disc."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib import cli
from DiffusionMBIRLib.io.projections import read_projection_folder
from DiffusionMBIRLib.io.volumes import simple_itk

VIEWS, ROWS, COLUMNS, CENTRE = 60, 3, 64, 28.3
ATTENUATION, RADIUS = 0.02, 12.0


def line_integrals(angles_deg) -> np.ndarray:
    """(views, rows, columns) of a disc that lies off the rotation axis."""
    place = CENTRE + 9 * np.cos(np.radians(angles_deg)) + 5 * np.sin(np.radians(angles_deg))
    away = np.arange(COLUMNS) - place[:, None]
    chord = 2 * np.sqrt(np.maximum(RADIUS**2 - away**2, 0))
    return np.repeat((ATTENUATION * chord)[:, None], ROWS, axis=1)


def counts(angles_deg) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts of the projections, flat and dark."""
    flat = 2000.0 + 100 * np.sin(np.arange(COLUMNS)) * np.ones((ROWS, 1))
    dark = np.full((ROWS, COLUMNS), 100.0)
    return (flat - dark) * np.exp(-line_integrals(angles_deg)) + dark, flat, dark


def write_exchange(path, angles_deg, *, leave_out="", **replaced):
    data, flat, dark = counts(angles_deg)
    fields = {"data": data, "data_white": flat[None], "data_dark": dark[None], "theta": np.asarray(angles_deg)}
    with h5py.File(path, "w") as file:
        for key, values in {**fields, **replaced}.items():
            if key != leave_out:
                file[f"exchange/{key}"] = values
    return path


def write_tiff(path, array) -> None:
    simple_itk().WriteImage(simple_itk().GetImageFromArray(np.rint(array).astype(np.uint16)), str(path))


def write_folder(path, angles_deg, listed=None):
    data, flat, dark = counts(angles_deg)
    (path / "views").mkdir(parents=True)
    for number, image in enumerate(data):
        write_tiff(path / "views" / f"raw_{number}.tif", image)  # 10 comes after 9
    write_tiff(path / "flat_0.tif", flat)
    write_tiff(path / "dark_0.tif", dark)
    (path / "angles.txt").write_text("\n".join(str(a) for a in (angles_deg if listed is None else listed)))
    return path


def axis_of(scan) -> float:
    return (scan.geometry.columns - 1) / 2 - scan.geometry.offset_mm / scan.geometry.pitch_mm


def assert_scan(scan, angles_deg, tolerance) -> None:
    np.testing.assert_allclose(scan.data, line_integrals(angles_deg).swapaxes(0, 1), atol=tolerance)
    assert scan.geometry.angles_deg == pytest.approx(tuple(angles_deg))
    assert axis_of(scan) == pytest.approx(CENTRE, abs=0.15)
    assert scan.grid.shape == (ROWS, COLUMNS, COLUMNS)


@pytest.mark.parametrize("span", [180.0, 120.0])
def test_data_exchange(tmp_path, span):
    """With opposite views, and without."""
    angles = np.linspace(0, span, VIEWS)
    scan = mbir.read(write_exchange(tmp_path / "scan.h5", angles))
    assert_scan(scan, angles, 1e-5)
    how = " ".join(scan.provenance["guessed"])
    assert ("opposite views" in how) is (span == 180)
    # The disc's own attenuation counts as water's, so that a prior for HU fits.
    assert scan.mu_water_per_mm == pytest.approx(ATTENUATION, rel=0.5)


def test_angles_in_radians(tmp_path):
    angles = np.linspace(0, 180, VIEWS)
    path = write_exchange(tmp_path / "scan.h5", angles, theta=np.radians(angles))
    with h5py.File(path, "r+") as file:
        file["exchange/theta"].attrs["units"] = "radians"
    assert mbir.read(path).geometry.angles_deg == pytest.approx(tuple(angles))


def test_folder_of_tiff(tmp_path):
    angles = np.linspace(-90, 90, VIEWS)
    scan = mbir.read(write_folder(tmp_path / "scan", angles))
    assert_scan(scan, angles, 2e-3)


def test_angles_of_flat_and_dark_images_are_left_out(tmp_path):
    angles = np.linspace(-90, 90, VIEWS)
    listed = [angles[0]] * 7 + list(angles) + [angles[-1] + 1e-4] * 4
    scan = mbir.read(write_folder(tmp_path / "scan", angles, listed))
    assert scan.geometry.angles_deg == pytest.approx(tuple(angles))
    assert "11 of 71 angles" in scan.provenance["remarks"][0]


def test_blind_pixels_take_the_neighbours_value(tmp_path):
    angles = np.linspace(0, 180, VIEWS)
    data, flat, dark = counts(angles)
    flat[1, 20] = dark[1, 20]
    data[:, 1, 20] = dark[1, 20]
    path = write_exchange(tmp_path / "scan.h5", angles, data=data, data_white=flat[None])
    scan = mbir.read(path)
    np.testing.assert_allclose(scan.data[1, :, 20], scan.data[1, :, 19], atol=1e-6)
    assert "1 blind pixels" in scan.provenance["remarks"][0]


def test_info(tmp_path, capsys):
    assert cli.main(["info", str(write_folder(tmp_path / "scan", np.linspace(0, 180, VIEWS)))]) == 0
    text = capsys.readouterr().out
    assert f"views {VIEWS}" in text
    assert "guessed: rotation axis" in text


def test_bad_files(tmp_path):
    angles = np.linspace(0, 180, VIEWS)
    path = tmp_path / "scan.h5"

    def refusal(**change) -> str:
        write_exchange(path, angles, **change)
        with pytest.raises(mbir.InputError) as caught:
            mbir.read(path)
        text = str(caught.value)
        assert text.startswith(str(path))
        assert "\n" not in text
        return text

    assert "lacks the dataset exchange/theta" in refusal(leave_out="theta")
    assert "lacks the dataset exchange/data_white" in refusal(leave_out="data_white")
    assert "make them equal" in refusal(theta=angles[1:])
    assert "(views, rows, columns)" in refusal(data=np.ones((VIEWS, COLUMNS)))
    assert "must have the size" in refusal(data_white=np.ones((1, ROWS, COLUMNS - 1)))
    assert "exchanged" in refusal(data_white=np.ones((1, ROWS, COLUMNS)))
    assert "NaN" in refusal(data=np.full((VIEWS, ROWS, COLUMNS), np.nan))
    assert "NaN" in refusal(theta=np.full(VIEWS, np.nan))


def test_bad_folders(tmp_path):
    def refusal(path) -> str:
        with pytest.raises(mbir.InputError) as caught:
            read_projection_folder(path)
        assert str(path) in str(caught.value)
        return str(caught.value)

    angles = np.linspace(0, 180, 12)
    assert "angles.txt" in refusal(tmp_path)
    assert "make them equal" in refusal(write_folder(tmp_path / "a", angles, angles[:-1]))
    assert "one angle in degrees" in refusal(write_folder(tmp_path / "b", angles, ["x"]))
    (write_folder(tmp_path / "c", angles) / "flat_0.tif").unlink()
    assert "no flat images" in refusal(tmp_path / "c")
    cut = write_folder(tmp_path / "d", angles) / "views" / "raw_3.tif"
    cut.write_bytes(cut.read_bytes()[:20])
    assert "truncated" in refusal(tmp_path / "d")
    write_tiff(write_folder(tmp_path / "e", angles) / "views" / "raw_3.tif", np.ones((4, 4)))
    assert "one grey image" in refusal(tmp_path / "e")
