"""K-space from files: what is read equals what was measured, and bad files end in one clear line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import ROOT
from kspace_files import (
    COILS,
    COLUMNS,
    OVERSAMPLING,
    ROWS,
    SLICES,
    coil_images,
    header,
    kspace_of,
    oversampled,
    protocol,
    readout,
    readouts,
    twix_lines,
    write_fastmri,
    write_ismrmrd,
    write_twix,
)

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib import cli
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.geometry_mr import CartesianMRI
from DiffusionMBIRLib.io.kspace import describe, read_kspace, write_kspace
from DiffusionMBIRLib.kspace import KSpace

IMAGES = coil_images()
KSPACE = kspace_of(IMAGES)
LINES = [r for r in range(ROWS) if r % 3 == 0 or abs(r - ROWS // 2) < 5]
NOISE, CALIBRATION, REVERSE = (1 << (n - 1) for n in (19, 20, 22))


def refusal(path) -> str:
    """The one line that reading the file ends in; it names the file."""
    with pytest.raises(mbir.InputError) as caught:
        read_kspace(path)
    text = str(caught.value)
    assert "\n" not in text
    assert Path(path).stem in text
    return text.replace(str(path), "")


def assert_same(found: np.ndarray, wanted: np.ndarray, tolerance: float = 1e-5) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


# --- our own file


def small_kspace(**others) -> KSpace:
    mask = np.zeros((ROWS, COLUMNS), bool)
    mask[LINES] = True
    grid = Grid((SLICES, ROWS, COLUMNS), (1.5, 2.0, 4.0), (1.0, 2.0, 3.0))
    return KSpace(KSPACE * mask, CartesianMRI(mask, COILS), grid, provenance={"source": "a test"}, **others)


def test_own_file_keeps_everything(tmp_path):
    maps = np.full((1, COILS, ROWS, COLUMNS), 0.5 + 0.5j, np.complex64)
    made = small_kspace(maps=maps, noise_std=0.25, stored_grid=Grid((SLICES, ROWS, COLUMNS)))
    mbir.write(made, tmp_path / "scan.h5")
    read = mbir.read(tmp_path / "scan.h5")
    np.testing.assert_array_equal(read.data, made.data)
    np.testing.assert_array_equal(read.maps, maps)
    assert read.geometry == made.geometry
    assert (read.grid, read.stored_grid, read.noise_std) == (made.grid, made.stored_grid, 0.25)
    assert read.provenance == {"source": "a test"}


def test_own_file_is_checked(tmp_path):
    path = tmp_path / "scan.h5"

    def damaged(change) -> str:
        write_kspace(small_kspace(), path)
        with h5py.File(path, "r+") as file:
            change(file)
        return refusal(path)

    def replaced(name, values):
        def change(file):
            del file[name]
            if values is not None:
                file[name] = values

        return change

    assert "lacks the dataset mask" in damaged(replaced("mask", None))
    assert "mask" in damaged(replaced("mask", np.ones((ROWS, COLUMNS + 1))))
    assert "complex" in damaged(replaced("data", np.ones((SLICES, COILS, ROWS, COLUMNS))))
    assert "(slices, coils, rows, columns)" in damaged(replaced("data", KSPACE[0]))
    assert "NaN" in damaged(replaced("data", np.where(small_kspace().data != 0, np.nan, 0).astype(np.complex64)))
    assert "nothing was sampled" in damaged(replaced("data", KSPACE))
    assert "newer" in damaged(lambda file: file.attrs.update(version=9))
    assert "lacks the group grid" in damaged(replaced("grid", None))
    path.write_bytes(path.read_bytes()[:2000])
    assert "truncated" in refusal(path)
    with pytest.raises(mbir.InputError, match="named"):
        write_kspace(small_kspace(), tmp_path / "scan.npy")


def test_wider_numbers_become_complex64(tmp_path):
    path = tmp_path / "wide.h5"
    write_kspace(small_kspace(), path)
    with h5py.File(path, "r+") as file:
        del file["data"]
        file["data"] = small_kspace().data.astype(np.complex128)
    assert read_kspace(path).data.dtype == np.complex64


# --- fastMRI: rows are the readout


def test_fastmri_multi_coil_with_header(tmp_path):
    data = oversampled(IMAGES, axis=-2)
    xml = header(x=ROWS * OVERSAMPLING, y=COLUMNS, rx=ROWS, spacing=(2.0, 1.5, 4.0))
    read = read_kspace(write_fastmri(tmp_path / "f.h5", data, xml=xml))
    assert_same(read.data, KSPACE)
    assert read.geometry.acceleration == 1
    assert read.grid.spacing_mm == pytest.approx((1.5, 2.0, 4.0))
    about = describe(read)
    assert (about["format"], about["readout_oversampling"], about["oversampling_removed"]) == (
        "fastMRI HDF5",
        2.0,
        True,
    )


def test_fastmri_mask_and_single_coil(tmp_path):
    mask = np.zeros(COLUMNS, bool)
    mask[::4] = mask[COLUMNS // 2 - 4 : COLUMNS // 2 + 4] = True
    for shape in ((COLUMNS,), (1, 1, COLUMNS, 1)):
        read = read_kspace(write_fastmri(tmp_path / "f.h5", KSPACE[:, 0] * mask, mask=mask.astype("f4").reshape(shape)))
        assert read.geometry.coils == 1
        assert read.geometry.phase_axis == 1
        assert read.geometry.acs[1] == 9
        np.testing.assert_array_equal(read.geometry.mask, np.broadcast_to(mask, (ROWS, COLUMNS)))
        assert_same(read.data[:, 0], KSPACE[:, 0] * mask)


def test_fastmri_mask_is_seen_in_the_data_and_may_leave_out_more(tmp_path):
    mask = np.arange(COLUMNS) % 2 == 0
    seen = read_kspace(write_fastmri(tmp_path / "f.h5", KSPACE * mask))
    assert seen.geometry.acceleration == 2
    told = read_kspace(write_fastmri(tmp_path / "f.h5", KSPACE, mask=mask))
    np.testing.assert_array_equal(told.data, seen.data)
    assert "left out by the mask" in describe(told)["remarks"][0]


def test_fastmri_padding_is_not_sampled(tmp_path):
    data = KSPACE.copy()
    data[..., :3] = 0
    read = read_kspace(write_fastmri(tmp_path / "f.h5", data, mask=np.ones(COLUMNS)))
    assert not read.geometry.mask[:, :3].any()
    assert read.geometry.mask[:, 3:].all()


def test_bad_fastmri(tmp_path):
    path = tmp_path / "f.h5"
    xml = header(x=ROWS, y=COLUMNS, rx=ROWS)
    assert "exchanged" in refusal(write_fastmri(path, KSPACE.swapaxes(-1, -2), xml=xml))
    assert "header encodes" in refusal(write_fastmri(path, KSPACE.transpose(0, 2, 3, 1), xml=xml))
    assert "(slices, rows, columns)" in refusal(write_fastmri(path, KSPACE[0, 0]))
    assert "complex numbers" in refusal(write_fastmri(path, np.abs(KSPACE)))
    assert "one entry for each of the" in refusal(write_fastmri(path, KSPACE, mask=np.ones(COLUMNS - 1)))
    assert "another file's mask" in refusal(write_fastmri(path, KSPACE, mask=np.zeros(COLUMNS)))
    assert "lowest frequency centred" in refusal(write_fastmri(path, np.fft.ifftshift(KSPACE, axes=(-2, -1))))
    empty = KSPACE.copy()
    empty[1] = 0
    assert "1 of 3 slices are empty (1)" in refusal(write_fastmri(path, empty))
    assert "nothing was measured" in refusal(write_fastmri(path, 0 * KSPACE))
    empty[1] = np.inf
    assert "NaN or infinite" in refusal(write_fastmri(path, empty))
    assert "only Cartesian" in refusal(write_fastmri(path, KSPACE, xml=header(trajectory="radial")))


def test_links_to_other_files_are_not_followed(tmp_path):
    write_fastmri(tmp_path / "other.h5", KSPACE)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["kspace"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "kspace")
    assert "another file" in refusal(tmp_path / "f.h5")


def test_a_header_with_entities_is_refused(tmp_path):
    bomb = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'
    for xml in (bomb, bomb.replace("version", "encoding='utf-16' version").encode("utf-16")):
        with h5py.File(tmp_path / "f.h5", "w") as file:
            file["kspace"] = KSPACE
            file["ismrmrd_header"] = np.void(xml) if isinstance(xml, bytes) else xml
        text = refusal(tmp_path / "f.h5")
        assert "document type" in text or "no text" in text
    assert "damaged" in refusal(write_fastmri(tmp_path / "f.h5", KSPACE, xml="<x><y></x>"))
    assert "nested" in refusal(write_fastmri(tmp_path / "f.h5", KSPACE, xml="<x>" * 100))
    assert "no encoding" in refusal(write_fastmri(tmp_path / "f.h5", KSPACE, xml="<x/>"))


# --- ISMRMRD: columns are the readout


def test_ismrmrd_removes_oversampling_and_sorts_slices(tmp_path):
    data = oversampled(IMAGES)
    interleaved = [r for s in (1, 0, 2) for r in readouts(data[s : s + 1])]
    for n, (head, _, _) in enumerate(interleaved):
        at = (1, 0, 2)[n // ROWS]
        head["idx"]["slice"], head["position"] = n // ROWS, (10, 20, 30 + 5 * at)
    read = read_kspace(write_ismrmrd(tmp_path / "scan.h5", interleaved))
    assert_same(read.data, KSPACE)
    assert read.grid.spacing_mm == pytest.approx((1.5, 2.0, 5.0))
    middle = np.array(read.grid.origin_mm) + np.array([COLUMNS // 2, ROWS // 2, 1]) * read.grid.spacing_mm
    np.testing.assert_allclose(middle, (10, 20, 35))


def test_ismrmrd_undersampled_reversed_averaged_and_repeated(tmp_path):
    data = oversampled(IMAGES[:1])
    lines = readouts(data, LINES)
    twice = [readout(3 * data[0, :, r], line=r, average=1) for r in LINES]
    mirrored = [readout(data[0, :, r, ::-1], line=r, flags=REVERSE, average=2) for r in LINES]
    later = [readout(9 * data[0, :, r], line=r, repetition=1) for r in range(ROWS)]
    read = read_kspace(write_ismrmrd(tmp_path / "scan.h5", lines + twice + mirrored + later))
    mask = np.isin(np.arange(ROWS), LINES)
    np.testing.assert_array_equal(read.geometry.mask, np.broadcast_to(mask[:, None], (ROWS, COLUMNS)))
    assert read.geometry.phase_axis == 0
    assert_same(read.data, KSPACE[:1] * mask[:, None] * 5 / 3)
    assert describe(read)["remarks"] == ["the first of 2 repetitions is read"]


def test_ismrmrd_noise_scan_whitens(tmp_path):
    generator = np.random.default_rng(3)
    mixing = np.eye(COILS) * [1, 2, 3, 4] + 0.5

    def noise(*shape):
        return mixing @ (generator.normal(size=(COILS, *shape)) + 1j * generator.normal(size=(COILS, *shape)))

    scan = [readout(noise(64), flags=NOISE, line=r) for r in range(60)]
    data = 2000 * KSPACE[0] + noise(ROWS * COLUMNS).reshape(COILS, ROWS, COLUMNS)
    xml = header(x=COLUMNS)
    read = read_kspace(write_ismrmrd(tmp_path / "scan.h5", scan + readouts(data[None]), xml=xml))
    clean = read_kspace(write_ismrmrd(tmp_path / "scan.h5", scan + readouts(2000 * KSPACE[:1]), xml=xml))
    error = (read.data - clean.data)[0].reshape(COILS, -1)
    covariance = error @ error.conj().T / error.shape[1]
    assert np.abs(covariance - np.eye(COILS)).max() < 0.1
    assert read.noise_std == pytest.approx(np.sqrt(0.5))
    assert describe(read)["whitened"]


def test_ismrmrd_calibration_lines(tmp_path):
    middle = range(ROWS // 2 - 6, ROWS // 2 + 6)
    every = list(range(0, ROWS, 2))
    lines = readouts(KSPACE[:1], every) + readouts(KSPACE[:1], [r for r in middle if r % 2], flags=CALIBRATION)
    path = tmp_path / "scan.h5"
    embedded = read_kspace(write_ismrmrd(path, lines, xml=header(x=COLUMNS, calibration="embedded")))
    assert embedded.geometry.acs[0] >= 12
    separate = read_kspace(write_ismrmrd(path, lines, xml=header(x=COLUMNS, calibration="separate")))
    assert separate.geometry.acceleration == 2
    assert "separate calibration lines are not used" in describe(separate)["remarks"]
    assert "cannot be estimated" in describe(separate)["maps"]


def test_ismrmrd_asymmetric_echo_and_partial_fourier(tmp_path):
    data = oversampled(IMAGES[:1])
    cut = 12
    lines = [readout(data[0, :, r, cut:], line=r - 5, center_sample=COLUMNS - cut) for r in range(5, ROWS)]
    path = write_ismrmrd(tmp_path / "scan.h5", lines, xml=header(cy=ROWS // 2 - 5))
    read = read_kspace(path)
    assert not read.geometry.mask[:5].any()
    assert not read.geometry.mask[:, :cut].any()
    assert_same(read.data[:, :, 5:, cut:], data[:, :, 5:, cut:])
    assert "oversampling of the readout is kept" in describe(read)["remarks"][0]


def test_ismrmrd_3d_becomes_slices(tmp_path):
    parts = 6
    volume = np.moveaxis(coil_images(parts), 0, 1)  # (coils, partitions, rows, columns)
    data = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(kspace_of(volume), 1), axis=1, norm="ortho"), 1)
    path, xml = tmp_path / "scan.h5", header(x=COLUMNS, z=parts)
    full = [readout(data[:, p, r], line=r, part=p) for p in range(parts) for r in LINES]
    read = read_kspace(write_ismrmrd(path, full, xml=xml))
    mask = np.isin(np.arange(ROWS), LINES)[:, None]
    assert_same(read.data, np.moveaxis(kspace_of(volume), 1, 0) * mask)
    assert read.grid.shape == (parts, ROWS, COLUMNS)
    assert read.grid.spacing_mm == pytest.approx((1.5, 2.0, 4.0))
    # Left out in both directions of phase encoding: slices along the readout.
    kept = [(p, r) for p in range(parts) for r in range(ROWS) if (p + r) % 2 == 0 or abs(r - ROWS // 2) < 4]
    read = read_kspace(write_ismrmrd(path, [readout(data[:, p, r], line=r, part=p) for p, r in kept], xml=xml))
    assert read.grid.shape == (COLUMNS, parts, ROWS)
    assert read.grid.spacing_mm == pytest.approx((2.0, 4.0, 1.5))
    assert read.geometry.phase_axis is None
    sampled = np.zeros((parts, ROWS), bool)
    sampled[tuple(np.transpose(kept))] = True
    wanted = kspace_of(volume.transpose(3, 0, 1, 2))  # (columns, coils, partitions, rows)
    assert_same(read.data, wanted * sampled)
    # The same voxel lies at the same place in the world.
    np.testing.assert_allclose(read.grid.matrix[:, 0], (0, 1, 0))


def test_ismrmrd_files_of_the_ismrmrd_package(tmp_path):
    ismrmrd = pytest.importorskip("ismrmrd")
    path = tmp_path / "scan.h5"
    dataset = ismrmrd.Dataset(str(path), "dataset", create_if_needed=True)
    dataset.write_xml_header(header(x=COLUMNS))
    for r in LINES:
        acquisition = ismrmrd.Acquisition.from_array(KSPACE[0, :, r].copy())
        acquisition.center_sample = COLUMNS // 2
        acquisition.idx.kspace_encode_step_1 = r
        acquisition.read_dir[0] = acquisition.phase_dir[1] = acquisition.slice_dir[2] = 1.0
        dataset.append_acquisition(acquisition)
    dataset.close()
    assert_same(read_kspace(path).data, KSPACE[:1] * np.isin(np.arange(ROWS), LINES)[:, None])


def test_bad_ismrmrd(tmp_path):
    path = tmp_path / "scan.h5"
    lines = readouts(KSPACE[:1])
    for trajectory in ("radial", "spiral", "epi", "other"):
        assert "only Cartesian" in refusal(write_ismrmrd(path, lines, xml=header(trajectory=trajectory)))
    huge = header(x=65535, y=65535, z=65535)
    assert "truncated" in refusal(write_ismrmrd(path, lines, xml=huge)) or "memory" in refusal(path)
    assert "lines of k-space" in refusal(write_ismrmrd(path, lines[:1], xml=header(x=COLUMNS, y=2000)))
    assert "belongs to line" in refusal(write_ismrmrd(path, lines, xml=header(x=COLUMNS, y=ROWS - 8)))
    assert "does not fit the encoded matrix" in refusal(write_ismrmrd(path, lines, xml=header(x=COLUMNS - 2)))
    assert "no readouts of an image" in refusal(write_ismrmrd(path, readouts(KSPACE[:1], flags=NOISE)))
    head, traj, data = lines[0]
    cut = write_ismrmrd(path, [(head, traj, data[:-2]), *lines[1:]], xml=header(x=COLUMNS))
    assert "announces" in refusal(cut)
    mixed = [*lines, readout(KSPACE[0, :2, 0])]
    assert "number of coils" in refusal(write_ismrmrd(path, mixed, xml=header(x=COLUMNS)))
    spokes = [
        readout(
            KSPACE[0, :, r], line=r, traj=np.stack([np.cos(r) * np.arange(COLUMNS), np.sin(r) * np.arange(COLUMNS)], 1)
        )
        for r in range(ROWS)
    ]
    assert "Cartesian grid" in refusal(write_ismrmrd(path, spokes, xml=header(x=COLUMNS)))
    differing = readouts(KSPACE[:1], range(0, ROWS, 2)) + readouts(KSPACE[:2], range(1, ROWS, 2))[ROWS // 2 :]
    assert "different lines" in refusal(write_ismrmrd(path, differing, xml=header(x=COLUMNS)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "truncated" in refusal(path)


# --- Siemens twix


def test_twix(tmp_path):
    pytest.importorskip("twixtools")
    data = oversampled(IMAGES)
    read = read_kspace(write_twix(tmp_path / "meas.dat", twix_lines(data, LINES)))
    mask = np.isin(np.arange(ROWS), LINES)
    assert_same(read.data, KSPACE * mask[:, None])
    assert read.grid.spacing_mm == pytest.approx((1.5, 2.0, 5.0))
    middle = np.array(read.grid.origin_mm) + read.grid.matrix @ (
        np.array([COLUMNS // 2, ROWS // 2, 1]) * read.grid.spacing_mm
    )
    np.testing.assert_allclose(middle, (1, 2, 8), atol=1e-5)
    about = describe(read)
    assert (about["format"], about["coils"], about["readout_oversampling"]) == ("Siemens twix", COILS, 2.0)
    assert "nobody" not in json.dumps(about).lower()


def test_twix_noise_scan_and_calibration(tmp_path):
    pytest.importorskip("twixtools")
    generator = np.random.default_rng(1)
    noise = generator.normal(size=(1, COILS, 40, COLUMNS)) + 1j * generator.normal(size=(1, COILS, 40, COLUMNS))
    blocks = twix_lines(noise, flags=["NOISEADJSCAN"]) + twix_lines(oversampled(IMAGES[:1]), range(0, ROWS, 2))
    blocks += twix_lines(oversampled(IMAGES[:1]), [ROWS // 2 + 1], flags=["PATREFSCAN"])
    read = read_kspace(write_twix(tmp_path / "meas.dat", blocks))
    assert read.noise_std == pytest.approx(np.sqrt(0.5))
    assert read.geometry.acceleration == 2
    assert "separate calibration lines are not used" in describe(read)["remarks"]


def test_bad_twix(tmp_path):
    pytest.importorskip("twixtools")
    path = tmp_path / "meas.dat"
    blocks = twix_lines(oversampled(IMAGES[:1]))
    assert "not Cartesian" in refusal(write_twix(path, blocks, protocol(trajectory=2)))
    whole = write_twix(path, blocks).read_bytes()
    path.write_bytes(whole[:-5000])
    assert "copy the file again" in refusal(path)
    path.write_bytes(whole[:10240] + bytes(len(whole) - 10240))
    assert "header claims" in refusal(path)
    start = 10240 + len(protocol()) + 16
    path.write_bytes(whole[:start] + bytes(len(whole) - start))
    assert "damaged" in refusal(path)
    path.write_bytes(b"\xff" * 4000)
    assert "no Siemens raw data" in refusal(path)
    path.write_bytes(b"")
    assert "no Siemens raw data" in refusal(path)


# --- arrays


def sidecar(path: Path, **entries) -> Path:
    path.with_suffix(".json").write_text(json.dumps(entries))
    return path


def test_npy_with_sidecar(tmp_path):
    path = tmp_path / "scan.npy"
    wide = oversampled(IMAGES)
    np.save(path, np.fft.ifftshift(wide, axes=(-2, -1)).transpose(3, 2, 0, 1))
    axes = ["column", "row", "slice", "coil"]
    read = read_kspace(sidecar(path, axes=axes, centred=False, oversampling=2, spacing_mm=[1.5, 2, 4], noise_std=0.1))
    assert_same(read.data, KSPACE)
    assert read.grid.spacing_mm == (1.5, 2.0, 4.0)
    assert read.noise_std == 0.1
    assert describe(read)["guessed"] == []


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
@pytest.mark.parametrize("centred", [True, False])
def test_npy_axes_are_guessed_and_said(tmp_path, order, centred):
    path = tmp_path / "scan.npy"
    data = KSPACE[0] if centred else np.fft.ifftshift(KSPACE[0], axes=(-2, -1))
    np.save(path, data.transpose(order))
    read = read_kspace(path)
    wanted = KSPACE[0] if list(order).index(1) < list(order).index(2) else KSPACE[0].swapaxes(-1, -2)
    assert_same(read.data[0], wanted)
    guessed = " ".join(describe(read)["guessed"])
    assert "axes" in guessed
    assert ("shifted" in guessed) is not centred


def test_npy_mask_beside_it(tmp_path):
    path = tmp_path / "scan.npy"
    np.save(path, KSPACE)
    mask = np.isin(np.arange(COLUMNS), range(0, COLUMNS, 2))
    np.save(tmp_path / "mask.npy", mask)
    read = read_kspace(sidecar(path, mask="mask.npy"))
    np.testing.assert_array_equal(read.geometry.mask, np.broadcast_to(mask, (ROWS, COLUMNS)))
    np.save(tmp_path / "mask.npy", mask[1:])
    assert "mask has the shape" in refusal(path)
    assert "same folder" in refusal(sidecar(path, mask="../mask.npy"))


def test_bad_npy(tmp_path):
    path = tmp_path / "scan.npy"
    np.save(path, np.abs(KSPACE))
    assert "complex" in refusal(path)
    np.save(path, IMAGES)
    assert "is it an image" in refusal(path)
    np.save(path, KSPACE[None])
    assert "name them in scan.json" in refusal(path)
    np.save(path, np.full((64, 64), np.nan + 0j))
    assert "NaN" in refusal(path)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    assert "pickled" in refusal(path)
    np.save(path, KSPACE)
    path.write_bytes(path.read_bytes()[:-100])
    assert "truncated" in refusal(path)
    begin = path.read_bytes()[:10]
    claim = str({"descr": "<c8", "fortran_order": False, "shape": (10**9, 10**9)}).ljust(117) + "\n"
    path.write_bytes(begin[:8] + len(claim).to_bytes(2, "little") + claim.encode())
    assert "truncated" in refusal(path)


def test_bad_sidecar(tmp_path):
    path = tmp_path / "scan.npy"
    np.save(path, KSPACE)
    for entries, part in (
        ({"axis": 1}, "does not know axis"),
        ({"axes": ["row", "row", "coil", "slice"]}, "once each"),
        ({"axes": ["row", "column"]}, "lists 2 axes"),
        ({"axes": ["row", "column", "coil", "slice"]}, "exchange them"),
        ({"spacing_mm": [1, 2]}, "three numbers"),
        ({"spacing_mm": [1, 2, "x"]}, "positive"),
        ({"oversampling": 0}, "positive"),
        ({"centred": 1}, "true or false"),
    ):
        assert part in refusal(sidecar(path, **entries))
    path.with_suffix(".json").write_text("{")
    assert "is no JSON" in refusal(path)


def test_real_pairs_become_complex(tmp_path):
    np.save(tmp_path / "scan.npy", np.stack([KSPACE[0].real, KSPACE[0].imag], axis=-1))
    read = read_kspace(tmp_path / "scan.npy")
    assert_same(read.data[0], KSPACE[0])
    assert "real and imaginary" in describe(read)["guessed"][0]


def test_matlab_5_and_73(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    ksp = KSPACE[0].transpose(1, 2, 0).astype(np.complex128)  # (rows, columns, coils), as MATLAB's users have it
    scipy_io.savemat(tmp_path / "v5.mat", {"ksp": ksp, "note": "text", "te": 3.0}, do_compression=True)
    with h5py.File(tmp_path / "v73.mat", "w", userblock_size=512) as file:
        pairs = np.empty(ksp.T.shape, [("real", "<f8"), ("imag", "<f8")])
        pairs["real"], pairs["imag"] = ksp.T.real, ksp.T.imag
        file["ksp"] = pairs
        file["te"] = 3.0
    for name in ("v5.mat", "v73.mat"):
        read = read_kspace(tmp_path / name)
        assert_same(read.data[0], KSPACE[0])
        assert "axes (row, column, coil)" in describe(read)["guessed"]


def test_bad_matlab(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    path = tmp_path / "scan.mat"
    ksp = KSPACE[0]
    scipy_io.savemat(path, {"one": ksp, "two": 2 * ksp})
    assert "not clear (one, two)" in refusal(path)
    assert_same(read_kspace(sidecar(path, variable="two")).data[0], 2 * ksp)
    assert "no variable 'three'" in refusal(sidecar(path, variable="three"))
    path.with_suffix(".json").unlink()
    scipy_io.savemat(path, {"x": np.abs(ksp)})
    assert "not clear (x)" in refusal(path)
    scipy_io.savemat(path, {"ksp": KSPACE.transpose(2, 3, 1, 0)})
    assert "name them in scan.json" in refusal(path)
    scipy_io.savemat(path, {"CtDataLimited": {"sinogram": np.ones((2, 2))}})
    assert "fan-beam" in refusal(path)
    scipy_io.savemat(path, {"ksp": ksp})
    path.write_bytes(path.read_bytes()[:-1000])
    assert "truncated" in refusal(path)


# --- dispatch, command line, missing extras


def test_foreign_and_missing_files(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.npy")
    (tmp_path / "text.txt").write_text("x")
    assert "no file of k-space" in refusal(tmp_path / "text.txt")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["y"] = 1
    assert "without k-space" in refusal(tmp_path / "x.h5")
    with pytest.raises(mbir.InputError, match="no measurement of ours"):
        mbir.read(tmp_path / "x.h5")


def test_info_tells_what_was_guessed(tmp_path, capsys):
    np.save(tmp_path / "scan.npy", KSPACE[0])
    assert cli.main(["info", str(tmp_path / "scan.npy")]) == 0
    text = capsys.readouterr().out
    assert f"matrix {ROWS} x {COLUMNS}" in text
    assert "guessed: axes (coil, row, column)" in text
    assert cli.main(["info", "--json", str(tmp_path / "scan.npy")]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["kind"], about["coils"], about["acceleration"]) == ("k-space", COILS, 1.0)


@pytest.mark.parametrize(("hidden", "suffix"), [("twixtools", ".dat"), ("scipy", ".mat")])
def test_a_missing_extra_is_named(tmp_path, hidden, suffix):
    path = tmp_path / f"scan{suffix}"
    if suffix == ".mat":
        pytest.importorskip("scipy.io").savemat(path, {"ksp": KSPACE[0]})
    else:
        path.write_bytes((0).to_bytes(4, "little") + (1).to_bytes(4, "little") + bytes(2000))
    code = (
        f"import sys\nsys.modules[{hidden!r}] = None\nfrom DiffusionMBIRLib import cli\n"
        f"sys.exit(cli.main(['info', {str(path)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "diffusionmbir[mri]" in done.stderr
