"""Previews of a run on many devices: those of one device, at full detail in the middle planes, within a bound."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib import slab_previews
from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.cli.previewing import PreviewFile
from DiffusionMBIRLib.coarsening import between, factors_within, voxels_left
from DiffusionMBIRLib.errors import EngineError
from DiffusionMBIRLib.monitor import Silent
from Testing.engine import many, many_previews
from Testing.engine.helpers import ROOT, body
from Testing.engine.jobs_helpers import small_prior

CASES = ("parallel, dual", "cone, tv", "coils, few")


@pytest.mark.slow
def test_two_processes_show_what_one_shows(tmp_path):
    priors = [str(small_prior(tmp_path, modality=modality, name=modality)) for modality in ("CT", "MR")]
    cases = {name: case for name, case in many.cases(*priors).items() if name in CASES}
    (tmp_path / "cases").write_bytes(pickle.dumps(cases))
    for process in many.started(2, tmp_path, module="Testing.engine.many_previews"):
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    first, second = (pickle.loads((tmp_path / f"previews-{rank}").read_bytes()) for rank in (0, 1))
    for name, (scan, settings) in cases.items():
        alone = many_previews.Looks()
        mbir.reconstruct(scan, settings=settings, monitor=alone)
        whole, few = (first[name, room][0] for room in (slab_previews.COARSE_BYTES, many_previews.FEW))
        steps = [step for step, _ in alone.seen]
        assert len(steps) > 1 or name == "coils, few"
        assert [step for step, _ in whole] == [step for step, _ in few] == steps
        shape, sent = scan.grid.shape, second[name, many_previews.FEW][1]
        slices, rows, columns = shape
        planes = 4 * (rows * columns + slices * (rows + columns))
        assert len(steps) * 4 <= sent <= len(steps) * (many_previews.FEW + planes)
        assert first[name, many_previews.FEW][1] == 0  # the first process hands nothing over
        for (_, one), (_, two), (_, coarse) in zip(alone.seen, whole, few, strict=True):
            close = {"rtol": 0, "atol": 1e-5 * np.ptp(one.array)}
            assert (one.grid, one.unit) == (two.grid, two.unit) == (coarse.grid, coarse.unit)
            np.testing.assert_allclose(two.array, one.array, **close)
            factors = factors_within(shape, many_previews.FEW / 4)
            expected = between(one.array[tuple(slice(None, None, f) for f in factors)], shape, factors)
            for plane in (np.s_[slices // 2], np.s_[:, rows // 2], np.s_[:, :, columns // 2]):
                expected[plane] = one.array[plane]
            np.testing.assert_allclose(coarse.array, expected, **close)
            assert np.abs(coarse.array - one.array).max() > 1e-3 * np.ptp(one.array)  # it is coarse
        for found in (first, second):
            assert found[name, 0] == ([], 0)  # nobody looks, nothing is exchanged


@pytest.mark.slow
def test_the_command_keeps_the_newest_preview(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    mbir.simulate(body((6, 24, 24)), views=8).save(tmp_path / "scan.h5")
    command = ["reconstruct", str(tmp_path / "scan.h5"), "--method", "admm-tv", "--device", "cpu", "--tv-sweeps", "3"]
    for count in ("1", "2"):
        shown = tmp_path / f"shown-{count}.nrrd"
        told = ["-o", str(tmp_path / "out.nrrd"), "--preview", str(shown), "--devices", count, "--json"]
        with suppress(SystemExit):  # many processes end the command with their exit code
            assert main([*command, *told]) == 0
        assert json.loads(capfd.readouterr().out)["method"] == "admm-tv"
        assert mbir.read_volume(shown).array.shape == (6, 24, 24)
    one, two = (mbir.read_volume(tmp_path / f"shown-{count}.nrrd").array for count in "12")
    assert main([*command, "-o", str(tmp_path / "out.nrrd"), "--preview", "x.nrrd", "--engine", "ssh:there"]) == 2
    assert "leave them out with --engine" in capfd.readouterr().err
    assert np.ptp(one) > 0
    assert np.ptp(two) > 0


def test_a_preview_that_cannot_be_written_is_told_once_and_the_run_goes_on(tmp_path):
    told: list[str] = []

    class Unwritable:
        def save(self, path: Path) -> None:
            raise EngineError(f"{path}: no room")

    monitor = PreviewFile(Silent(), tmp_path / "shown.nrrd", told.append)
    for step in range(3):
        monitor.preview(Unwritable, step)
    assert told == [f"previews are off: {tmp_path / 'shown.nrrd'}: no room"]


def test_coarse_volumes_keep_within_what_is_asked():
    shape = (40, 512, 384)
    factors = factors_within(shape, 1e5)
    assert (
        voxels_left(shape, factors)
        <= 1e5
        < voxels_left(shape, (max(1, factors[0] - 1), factors[1] - 1, factors[2] - 1))
    )
    ramp = np.add.outer(np.add.outer(np.arange(9.0), np.arange(12.0)), np.arange(10.0)).astype(np.float32)
    found = between(ramp[::4, ::3, ::3], ramp.shape, (4, 3, 3))
    np.testing.assert_allclose(found[:, :10], ramp[:, :10], atol=1e-5)  # linear between known voxels
