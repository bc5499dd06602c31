"""Many devices: processes with slabs of slices give the volume that one process gives."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.many import Group
from Testing.benchmarks import scale
from Testing.engine import many
from Testing.engine.helpers import ROOT
from Testing.engine.jobs_helpers import small_prior

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("many")
    priors = [str(small_prior(path, modality=modality, name=modality)) for modality in ("CT", "MR")]
    (path / "cases").write_bytes(pickle.dumps(many.cases(*priors)))
    return path


@pytest.fixture(scope="module")
def alone(folder) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, (scan, settings) in pickle.loads((folder / "cases").read_bytes()).items():
        made[name] = mbir.reconstruct(scan, settings=settings)
    return made


@pytest.fixture(scope="module")
def found(folder, alone) -> dict[str, Any]:
    """What groups of processes gave."""
    todo = pickle.loads((folder / "cases").read_bytes())
    for name in many.RESUMED:
        many.interrupted(folder / f"1 {name}", Group(), *todo[name])
    group = many.started(4, folder)
    for process in group:
        _, said = process.communicate(timeout=400)
        assert process.returncode == 0, said
    made: dict[str, Any] = {}
    for rank in (0, 2):
        made |= pickle.loads((folder / f"found-{rank}").read_bytes())
    for name in many.RESUMED:
        made[f"4 to 1: {name}"] = many.taken_up(folder / f"4 copied {name}", Group(), *todo[name])
    return made


def test_processes_give_the_volume_that_one_gives(alone, found):
    wanted = {f"{count}: {name}" for count in (2, 4) for name in alone}
    wanted |= {f"{way}: {name}" for way in ("1 to 4", "4 to 2", "4 to 1") for name in many.RESUMED}
    assert {name for name in found if not name.startswith("sent")} == wanted
    off = {}
    for name, result in found.items():
        if name.startswith("sent"):
            continue
        expected = alone[name.partition(": ")[2]]
        volume, one = result.volume, expected.volume
        assert (volume.grid, volume.unit, result.nfe) == (one.grid, one.unit, expected.nfe)
        off[name] = np.abs(volume.array - one.array).max() / np.ptp(one.array)
        assert result.residual == pytest.approx(expected.residual, rel=1e-4)
        if expected.deviation is not None:
            spread = expected.deviation.array
            np.testing.assert_allclose(result.deviation.array, spread, atol=1e-4 * spread.max())
    assert max(off.values()) < 1e-5, off


def test_what_is_exchanged_is_what_the_plan_counts(found):
    """The first process has one neighbour, which it gives a slice in each exchange."""
    settings, (_, rows, columns) = many.DUAL, many.SHAPE
    halos = settings.steps * (settings.cg_steps + scale.HALOS_OF_LEVEL)
    halos += settings.start_sweeps * (scale.TV_STEPS + scale.HALOS_OF_SWEEP)
    assert found["sent: parallel, dual"]["neighbours"] == 4 * rows * columns * halos


def test_the_command_divides_the_work_and_goes_on_from_a_state(folder, tmp_path, monkeypatch, capfd):
    """Two processes of the command; then one that finds their state, and one of another scan that refuses it."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    scan, settings = pickle.loads((folder / "cases").read_bytes())["parallel, dual"]
    scan.save(tmp_path / "scan.h5")
    command = ["reconstruct", str(tmp_path / "scan.h5"), "--prior", settings.prior, "--steps", "2", "--device", "cpu"]
    command += ["--precision", "float32", "--start-sweeps", "2", "--method", "dual", "--state", str(tmp_path / "state")]
    with pytest.raises(SystemExit) as ended:
        main([*command, "-o", str(tmp_path / "two.nrrd"), "--devices", "2", "--json"])
    assert ended.value.code == 0
    told, _ = capfd.readouterr()
    assert {"devices": 2}.items() <= json.loads(told).items()
    assert len(told.splitlines()) == 1
    assert (tmp_path / "state" / "state.json").is_file()
    assert main([*command, "-o", str(tmp_path / "one.nrrd"), "--quiet"]) == 0
    one, two = (mbir.read_volume(tmp_path / f"{name}.nrrd") for name in ("one", "two"))
    assert one.grid == two.grid
    np.testing.assert_allclose(one.array, two.array, atol=1e-5 * np.ptp(one.array))
    replace(scan, data=scan.data + 1).save(tmp_path / "scan.h5")
    assert main([*command, "-o", str(tmp_path / "other.nrrd"), "--quiet"]) == 2
    assert "holds the state of another run" in capfd.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main([*command, "-o", str(tmp_path / "other.nrrd"), "--devices", "9", "--quiet"])
    assert ended.value.code == 2
    assert "the volume has 7 slices only" in capfd.readouterr().err
