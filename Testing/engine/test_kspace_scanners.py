"""K-space as scanners write it, ISMRMRD and Siemens twix: each readout lands where it belongs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from DiffusionMBIRLib.describe import describe_scan
from DiffusionMBIRLib.io.scans import read_scan
from Testing.engine.kspace_files import (
    COILS,
    COLUMNS,
    IMAGES,
    KSPACE,
    LINES,
    ROWS,
    assert_same,
    coil_images,
    header,
    kspace_of,
    oversampled,
    protocol,
    readout,
    readouts,
    refusal,
    twix_lines,
    write_ismrmrd,
    write_twix,
)

NOISE, CALIBRATION, REVERSE = (1 << (n - 1) for n in (19, 20, 22))


# --- ISMRMRD: columns are the readout


def test_ismrmrd_removes_oversampling_and_sorts_slices(tmp_path):
    data = oversampled(IMAGES)
    interleaved = [r for s in (1, 0, 2) for r in readouts(data[s : s + 1])]
    for n, (head, _, _) in enumerate(interleaved):
        at = (1, 0, 2)[n // ROWS]
        head["idx"]["slice"], head["position"] = n // ROWS, (10, 20, 30 + 5 * at)
    read = read_scan(write_ismrmrd(tmp_path / "scan.h5", interleaved))
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
    read = read_scan(write_ismrmrd(tmp_path / "scan.h5", lines + twice + mirrored + later))
    mask = np.isin(np.arange(ROWS), LINES)
    np.testing.assert_array_equal(read.geometry.mask, np.broadcast_to(mask[:, None], (ROWS, COLUMNS)))
    assert read.geometry.phase_axis == 0
    assert_same(read.data, KSPACE[:1] * mask[:, None] * 5 / 3)
    assert describe_scan(read)["remarks"] == ["the first of 2 repetitions is read"]


def test_ismrmrd_noise_scan_whitens(tmp_path):
    generator = np.random.default_rng(3)
    mixing = np.eye(COILS) * [1, 2, 3, 4] + 0.5

    def noise(*shape):
        return mixing @ (generator.normal(size=(COILS, *shape)) + 1j * generator.normal(size=(COILS, *shape)))

    scan = [readout(noise(64), flags=NOISE, line=r) for r in range(60)]
    data = 2000 * KSPACE[0] + noise(ROWS * COLUMNS).reshape(COILS, ROWS, COLUMNS)
    xml = header(x=COLUMNS)
    read = read_scan(write_ismrmrd(tmp_path / "scan.h5", scan + readouts(data[None]), xml=xml))
    clean = read_scan(write_ismrmrd(tmp_path / "scan.h5", scan + readouts(2000 * KSPACE[:1]), xml=xml))
    error = (read.data - clean.data)[0].reshape(COILS, -1)
    covariance = error @ error.conj().T / error.shape[1]
    assert np.abs(covariance - np.eye(COILS)).max() < 0.1
    assert read.noise_std == pytest.approx(np.sqrt(0.5))
    assert describe_scan(read)["whitened"]


def test_ismrmrd_calibration_lines(tmp_path):
    middle = range(ROWS // 2 - 6, ROWS // 2 + 6)
    every = list(range(0, ROWS, 2))
    lines = readouts(KSPACE[:1], every) + readouts(KSPACE[:1], [r for r in middle if r % 2], flags=CALIBRATION)
    path = tmp_path / "scan.h5"
    embedded = read_scan(write_ismrmrd(path, lines, xml=header(x=COLUMNS, calibration="embedded")))
    assert embedded.geometry.acs[0] >= 12
    separate = read_scan(write_ismrmrd(path, lines, xml=header(x=COLUMNS, calibration="separate")))
    assert separate.geometry.acceleration == 2
    # Between the image's own lines they are no block without gaps.
    assert any(
        "separate calibration lines are not used (0 x 0" in remark for remark in describe_scan(separate)["remarks"]
    )
    assert "cannot be estimated" in describe_scan(separate)["maps"]


def test_ismrmrd_asymmetric_echo_and_partial_fourier(tmp_path):
    data = oversampled(IMAGES[:1])
    cut = 12
    lines = [readout(data[0, :, r, cut:], line=r - 5, center_sample=COLUMNS - cut) for r in range(5, ROWS)]
    path = write_ismrmrd(tmp_path / "scan.h5", lines, xml=header(cy=ROWS // 2 - 5))
    read = read_scan(path)
    assert not read.geometry.mask[:5].any()
    assert not read.geometry.mask[:, :cut].any()
    assert_same(read.data[:, :, 5:, cut:], data[:, :, 5:, cut:])
    assert "oversampling of the readout is kept" in describe_scan(read)["remarks"][0]


def test_ismrmrd_3d_becomes_slices(tmp_path):
    parts = 6
    volume = np.moveaxis(coil_images(parts), 0, 1)  # (coils, partitions, rows, columns)
    data = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(kspace_of(volume), 1), axis=1, norm="ortho"), 1)
    path, xml = tmp_path / "scan.h5", header(x=COLUMNS, z=parts)
    full = [readout(data[:, p, r], line=r, part=p) for p in range(parts) for r in LINES]
    read = read_scan(write_ismrmrd(path, full, xml=xml))
    mask = np.isin(np.arange(ROWS), LINES)[:, None]
    assert_same(read.data, np.moveaxis(kspace_of(volume), 1, 0) * mask)
    assert read.grid.shape == (parts, ROWS, COLUMNS)
    assert read.grid.spacing_mm == pytest.approx((1.5, 2.0, 4.0))
    # Left out in both directions of phase encoding: slices along the readout.
    kept = [(p, r) for p in range(parts) for r in range(ROWS) if (p + r) % 2 == 0 or abs(r - ROWS // 2) < 4]
    read = read_scan(write_ismrmrd(path, [readout(data[:, p, r], line=r, part=p) for p, r in kept], xml=xml))
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
    assert_same(read_scan(path).data, KSPACE[:1] * np.isin(np.arange(ROWS), LINES)[:, None])


def test_bad_ismrmrd(tmp_path):
    path = tmp_path / "scan.h5"
    lines = readouts(KSPACE[:1])
    for trajectory in ("radial", "spiral", "epi", "other"):
        said = refusal(write_ismrmrd(path, lines, xml=header(trajectory=trajectory)))
        assert ("only Cartesian" if trajectory == "epi" else "readouts have no trajectory") in said
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
    read = read_scan(write_twix(tmp_path / "meas.dat", twix_lines(data, LINES)))
    mask = np.isin(np.arange(ROWS), LINES)
    assert_same(read.data, KSPACE * mask[:, None])
    assert read.grid.spacing_mm == pytest.approx((1.5, 2.0, 5.0))
    middle = np.array(read.grid.origin_mm) + read.grid.matrix @ (
        np.array([COLUMNS // 2, ROWS // 2, 1]) * read.grid.spacing_mm
    )
    np.testing.assert_allclose(middle, (1, 2, 8), atol=1e-5)
    about = describe_scan(read)
    assert (about["format"], about["coils"], about["readout_oversampling"]) == ("Siemens twix", COILS, 2.0)
    assert "nobody" not in json.dumps(about).lower()


def test_twix_noise_scan_and_calibration(tmp_path):
    pytest.importorskip("twixtools")
    generator = np.random.default_rng(1)
    noise = generator.normal(size=(1, COILS, 40, COLUMNS)) + 1j * generator.normal(size=(1, COILS, 40, COLUMNS))
    blocks = twix_lines(noise, flags=["NOISEADJSCAN"]) + twix_lines(oversampled(IMAGES[:1]), range(0, ROWS, 2))
    blocks += twix_lines(oversampled(IMAGES[:1]), [ROWS // 2 + 1], flags=["PATREFSCAN"])
    read = read_scan(write_twix(tmp_path / "meas.dat", blocks))
    assert read.noise_std == pytest.approx(np.sqrt(0.5))
    assert read.geometry.acceleration == 2
    assert any("separate calibration lines are not used (0 x 0" in remark for remark in describe_scan(read)["remarks"])


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
