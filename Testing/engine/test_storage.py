"""Scans in half the room: what float16 rounds, what is said of it, and that a mapped part is the part of the whole."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.io import hdf5
from DiffusionMBIRLib.pace import estimate_of
from DiffusionMBIRLib.scans import in_float16, same_scan
from DiffusionMBIRLib.scans.slabs import slab_of_projections
from Testing.engine import mri
from Testing.engine.helpers import body

FAST = ReconSettings(method="admm-tv", tv_sweeps=3, device="cpu")


@pytest.fixture(scope="module")
def scan():
    return mbir.simulate(body(), views=8, photons=1e5)


def remark(scan) -> str:
    (found,) = (line for line in scan.notes if "float16" in line)
    return found


def test_what_is_rounded_is_bounded_and_told(scan, tmp_path):
    stored = in_float16(scan)
    stored.save(tmp_path / "half.h5")
    with hdf5.opened(tmp_path / "half.h5") as fields:
        assert fields.dataset("data").dtype == np.float16
    read = mbir.read(tmp_path / "half.h5")
    assert read.data.dtype == np.float32
    off = np.abs(read.data.astype(np.float64) - scan.data)
    assert off.max() > 0
    assert (off <= np.maximum(np.abs(scan.data) / 2048, 2.0**-25)).all()  # half of the last of eleven bits
    rms = np.sqrt(np.square(off).sum() / np.square(scan.data, dtype=np.float64).sum())
    assert remark(read) == remark(stored)
    assert f"off by {rms:.1e} of their size (rms), by {off.max():.2g} at most" in remark(read)
    assert same_scan(replace(read, data=scan.data, provenance=scan.provenance), scan)  # nothing else has changed
    volumes = [mbir.reconstruct(each, settings=FAST).volume for each in (stored, read, scan)]
    np.testing.assert_array_equal(volumes[0].array, volumes[1].array)
    assert 0 < np.abs(volumes[1].array - volumes[2].array).max() < 5  # HU


def test_a_large_scan_is_mapped_as_it_is_stored_and_taken_by_parts(scan, tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "LARGE_BYTES", 1000)
    in_float16(scan).save(tmp_path / "scan.h5")
    read = mbir.read(tmp_path / "scan.h5")
    assert read.data.dtype == np.float16
    assert isinstance(read.data, np.memmap)
    assert estimate_of(read, FAST, torch.device("cpu")).text.endswith("; data in float16 mapped from the file")
    assert "float16" not in estimate_of(scan, FAST, torch.device("cpu")).text
    part, held = slab_of_projections(read, slice(1, 3)), slice(1, 3)
    assert np.shares_memory(part.data, read.data)
    monkeypatch.setattr(hdf5, "LARGE_BYTES", 2**30)
    whole = mbir.read(tmp_path / "scan.h5")
    assert whole.data.dtype == np.float32
    np.testing.assert_array_equal(part.data.astype(np.float32), whole.data[held])
    volumes = [mbir.reconstruct(each, settings=FAST).volume.array for each in (read, whole)]
    np.testing.assert_array_equal(*volumes)
    parts = [mbir.reconstruct(slab_of_projections(each, held), settings=FAST).volume.array for each in (read, whole)]
    np.testing.assert_array_equal(*parts)


@pytest.mark.parametrize("task", [["sparse-view-ct"], ["thin-slices", "--thickness-mm", "3"]], ids=lambda task: task[0])
def test_the_command_writes_it_and_says_how_far_it_is_off(task, tmp_path, capsys):
    body((8, 24, 24)).save(tmp_path / "volume.nrrd")
    command = ["simulate", str(tmp_path / "volume.nrrd"), "--task", *task, "--storage", "float16", "--json"]
    assert main([*command, "-o", str(tmp_path / "scan.h5"), "--quiet"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert any("stored in float16: off by" in line for line in told["remarks"])
    with hdf5.opened(tmp_path / "scan.h5") as fields:
        assert fields.dataset("data").dtype == np.float16
    assert main(["info", str(tmp_path / "scan.h5")]) == 0
    assert "stored in float16: off by" in capsys.readouterr().out


def test_what_float16_does_not_hold_is_refused(scan, tmp_path, capsys):
    data = scan.data.copy()
    data[0, 0, 0] = 7e4
    with pytest.raises(InputError, match=r"data reaches 7e\+04, float16 ends at 65504; use storage float32"):
        in_float16(replace(scan, data=data))
    with pytest.raises(InputError, match="k-space is complex; use float32"):
        in_float16(mri.scan())
    body((8, 24, 24)).save(tmp_path / "volume.nrrd")
    command = ["simulate", str(tmp_path / "volume.nrrd"), "--task", "thin-slices", "--storage", "float16", "--quiet"]
    assert main([*command, "-o", str(tmp_path / "thick.nrrd")]) == 2
    assert "thick.nrrd: a volume has no storage float16; name a scan file" in capsys.readouterr().err
    assert not (tmp_path / "thick.nrrd").exists()
