"""Measured k-space and projections as scanners and other programs wrote them; skipped where they are not at hand."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib import cli
from DiffusionMBIRLib.describe import describe_scan
from DiffusionMBIRLib.geometry import CartesianMRI
from DiffusionMBIRLib.io.scans import read_scan
from DiffusionMBIRLib.sensitivity import centred_fft, centred_ifft, estimate_maps, noise_std_of, root_sum_of_squares
from Testing.engine.vectors import SHARED

RAW = SHARED / "data" / "raw"
BRAIN = "kspace/sigpy_brain_8ch_cartesian_ksp.npy"


def raw(name: str) -> Path:
    path = RAW / name
    if not path.exists():
        pytest.skip(f"{name} is not at hand")
    return path


def centre_of_mass(image: np.ndarray) -> np.ndarray:
    """Of what is bright, relative to the middle, in shares of the size."""
    bright = np.argwhere(image > 0.3 * image.max())
    return bright.mean(axis=0) / image.shape - 0.5


def test_simulated_brain_of_ismrmrd():
    kspace = read_scan(raw("kspace/mrireco_brainsim100_ismrmrd.h5"))
    assert kspace.data.shape == (1, 1, 256, 256)
    image = np.abs(centred_ifft(kspace.data))[0, 0]
    assert np.abs(centre_of_mass(image)).max() < 0.03  # a head half outside would tell of a shift
    assert image[:4].max() < 0.05 * image.max()
    assert any("field of view" in guess for guess in describe_scan(kspace)["guessed"])


def test_siemens_phantom():
    pytest.importorskip("twixtools")
    kspace = read_scan(raw("kspace/siemens_gre.dat"))
    about = describe_scan(kspace)
    assert (about["matrix"], about["coils"], about["readout_oversampling"]) == ([160, 160], 2, 2.0)
    assert about["spacing_mm"] == [1.25, 1.25, 4.0]
    image = root_sum_of_squares(centred_ifft(kspace.data))[0]
    assert np.abs(centre_of_mass(image)).max() < 0.05
    # A round phantom of 190 mm: as wide as high, cut by the air at its lower end.
    bright = image > 0.3 * np.percentile(image, 99)
    wide, high = (np.ptp(np.flatnonzero(bright.sum(axis=axis) > 8)) for axis in (0, 1))
    assert wide * 1.25 == pytest.approx(190, abs=8)
    assert wide - 20 < high <= wide + 3


def test_measured_brain_without_and_with_sidecar(tmp_path):
    path = shutil.copy(raw(BRAIN), tmp_path / "brain.npy")
    guessed = read_scan(path)
    assert guessed.data.shape == (1, 8, 230, 180)
    assert guessed.geometry.acs == (24, 24)
    assert guessed.geometry.acceleration == pytest.approx(8.04, abs=0.01)
    (tmp_path / "brain.json").write_text(json.dumps({"axes": ["coil", "row", "column"], "spacing_mm": [1, 1, 5]}))
    told = read_scan(path)
    np.testing.assert_array_equal(told.data, guessed.data)
    assert told.grid.spacing_mm == (1, 1, 5)
    assert describe_scan(told)["guessed"] == []


@pytest.mark.parametrize("method", ["espirit", "low-resolution"])
def test_maps_of_the_measured_brain(method):
    kspace = read_scan(raw(BRAIN))
    maps = estimate_maps(kspace, method=method)
    images = centred_ifft(kspace.data)
    rss = root_sum_of_squares(images)
    head = rss > 0.15 * rss.max()
    np.testing.assert_allclose((np.abs(maps) ** 2).sum(axis=1)[head], 1, atol=1e-5)
    # The calibration itself, which is fully sampled: what the maps cannot explain of it.
    low = np.zeros_like(kspace.data)
    block = kspace.geometry.acs_block
    low[(..., *block)] = kspace.data[(..., *block)] * np.outer(np.hanning(24), np.hanning(24))
    low = centred_ifft(low)
    left = low - maps * (maps.conj() * low).sum(axis=1, keepdims=True)
    assert np.linalg.norm(left * head) < (0.03 if method == "espirit" else 0.01) * np.linalg.norm(low)
    assert 0.005 < noise_std_of(kspace) < 0.02


@pytest.mark.parametrize("name", ["kspace/mrireco_brainsim100_ismrmrd.h5", "kspace/siemens_gre.dat", BRAIN])
def test_info_and_reconstruction(name, tmp_path, capsys):
    if name.endswith(".dat"):
        pytest.importorskip("twixtools")
    path = raw(name)
    assert cli.main(["info", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "k-space"
    result = mbir.reconstruct(mbir.read(path), settings=mbir.ReconSettings(method="sense-cg"), device="cpu")
    assert result.residual < 0.2
    assert np.isfinite(result.volume.array).all()
    assert result.volume.array.max() > 0


@pytest.mark.slow
def test_x4_with_the_brains_coils_is_unfolded():
    """The measured coils see a sharp brain completely, then at every fourth line and 24 of ACS."""
    pytest.importorskip("sigpy")
    kspace = read_scan(raw(BRAIN))
    sharp = mbir.reconstruct(kspace, settings=mbir.ReconSettings(method="sense-cg"), device="cpu").volume.array
    images = estimate_maps(kspace) * sharp[:, None]
    full = root_sum_of_squares(images)[0]
    lines = np.arange(230)
    mask = np.repeat(((lines % 4 == 0) | (np.abs(lines - 114.5) < 12))[:, None], 180, axis=1)
    part = replace(kspace, data=centred_fft(images) * mask, geometry=CartesianMRI(mask, 8))
    folded = root_sum_of_squares(centred_ifft(part.data))[0]
    result = mbir.reconstruct(part, settings=mbir.ReconSettings(method="sense-cg"), device="cpu")

    def error(image):
        return np.linalg.norm(image - full) / np.linalg.norm(full)

    assert error(result.volume.array[0]) < 0.03
    assert error(folded) > 0.15


# --- projections


@pytest.mark.parametrize(
    ("name", "views", "recorded", "columns", "centre"),
    [
        ("ct/tomopy_tooth_parallel.h5", 181, 640, 640, 296),
        # Its rows end within the object, so that as many columns are made up on both sides.
        ("ct/savu_image_test_parallel3d", 91, 160, 320, 86.5),
    ],
)
def test_parallel_beam_projections(name, views, recorded, columns, centre):
    scan = mbir.read(raw(name))
    assert (scan.geometry.views, scan.geometry.columns) == (views, columns)
    axis = (recorded - 1) / 2 - scan.geometry.offset_mm / scan.geometry.pitch_mm
    assert axis == pytest.approx(centre, abs=1)
    assert 1 < scan.data.max() < 4
    # What goes in comes out of each view, in the same amount.
    total = scan.data.sum(axis=(0, 2))
    assert np.std(total) < 0.06 * np.mean(total)
