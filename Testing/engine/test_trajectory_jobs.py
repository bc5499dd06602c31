"""Jobs of k-space along trajectories: what the user told of the file goes with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from DiffusionMBIRLib.cli import main
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.io.scans import read_scan
from DiffusionMBIRLib.io.volumes import read_volume
from DiffusionMBIRLib.jobs.asking import ask, read_input
from DiffusionMBIRLib.jobs.redact import redactor
from DiffusionMBIRLib.jobs.request import Request
from DiffusionMBIRLib.reconstruction import reconstruct
from DiffusionMBIRLib.scans import TrajectoryKSpace, same_scan
from Testing.engine.mri import head
from Testing.engine.test_trajectory_files import SIZE, SPOKES, sampled

TOLD = {"trajectory_unit": "cycles/fov", "matrix": SIZE, "fov_mm": 64.0, "delays": "off", "trajectory_axes": "yx"}


def written(folder: Path, elsewhere: Path) -> tuple[Path, Path]:
    """A scan and, in another folder, its trajectory with the coordinates swapped."""
    elsewhere.mkdir()
    np.save(folder / "scan.npy", sampled()[0])
    np.save(elsewhere / "traj.npy", SPOKES[..., ::-1])
    return folder / "scan.npy", elsewhere / "traj.npy"


def test_what_was_told_goes_with_the_request(tmp_path, monkeypatch):
    scan, trajectory = written(tmp_path, tmp_path / "other")
    monkeypatch.chdir(trajectory.parent)
    request, inside = ask(scan, choices={**TOLD, "trajectory": f"./{trajectory.name}", "method": "zero-filled"})
    assert inside is None
    assert request.input["trajectory"] == str(trajectory)  # wherever the job runs
    assert request.scan == {}
    back = Request.from_json(request.to_json())
    monkeypatch.chdir(tmp_path)
    found = read_input(back.input)
    assert isinstance(found, TrajectoryKSpace)
    assert same_scan(found, read_scan(scan, **TOLD, trajectory=str(trajectory)))
    assert "traj" not in redactor(request)(f"{trajectory}: is damaged")


def test_the_trajectory_of_a_volume_is_that_of_its_simulated_scan():
    choices = {"trajectory": "radial", "spokes": 12, "method": "zero-filled"}
    request, _ = ask(head(), task="compressed-sensing-mri", choices=choices)
    assert request.scan["trajectory"] == "radial"
    assert "trajectory" not in request.input
    with pytest.raises(InputError, match="'fov_mm' is for files of measurements only"):
        ask(head(), task="compressed-sensing-mri", choices={"fov_mm": 64.0, "method": "zero-filled"})


@pytest.mark.slow
def test_a_job_of_the_command_line_gives_what_reconstruct_gives(tmp_path):
    scan, trajectory = written(tmp_path, tmp_path / "other")
    told = [f"--{name.replace('_', '-')}={value}" for name, value in TOLD.items()]
    output = tmp_path / "out.nrrd"
    run = ["job", "run", str(scan), f"--trajectory={trajectory}", *told, "--method=zero-filled"]
    assert main([*run, f"--folder={tmp_path / 'jobs'}", "-o", str(output)]) == 0
    direct = reconstruct(read_scan(scan, **TOLD, trajectory=str(trajectory)), settings=ask_settings(scan, trajectory))
    np.testing.assert_array_equal(read_volume(output).array, direct.volume.array)


def ask_settings(scan: Path, trajectory: Path):
    request, _ = ask(scan, choices={**TOLD, "trajectory": str(trajectory), "method": "zero-filled"})
    return request.recon_settings()
