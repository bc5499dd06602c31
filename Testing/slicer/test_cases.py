"""Reconstruction from the console: one volume, cases in a table, with and without a scene."""

from __future__ import annotations

import subprocess

import pytest

from DiffusionMBIRGui.cases import Case, reconstruct, reconstruct_cases
from DiffusionMBIRGui.volumes import grid_of, voxels
from DiffusionMBIRLib.errors import Cancelled, EngineError, InputError
from DiffusionMBIRLib.jobs.cases import CaseTable
from DiffusionMBIRLib.volume import Volume
from Testing.slicer.helpers import nodes_of
from Testing.slicer.jobs_helpers import ROOT, Heard, chest, engine, environment, poll_until

FAST = {"method": "sirt", "sirt_iterations": 10, "views": 8, "device": "cpu"}
LONG = {**FAST, "sirt_iterations": 100_000}


@pytest.fixture
def options(tmp_path):
    """Where to compute and to keep jobs."""
    return {"python": engine(), "environment": environment(tmp_path)}


def test_five_lines_in_the_console(desk, options, tmp_path):
    volume = desk.volume(*chest(), name="chest")
    output = desk.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "mine")
    turns = []
    heard = Heard()
    node = reconstruct(
        desk.scene,
        volume,
        output,
        task="sparse-view-ct",
        idle=lambda: turns.append(len(heard.progress)),
        listener=heard,
        jobs_folder=tmp_path / "jobs",
        **FAST,
        **options,
    )
    assert node is output
    assert grid_of(node) == grid_of(volume)
    assert voxels(node).max() > 0
    assert heard.last.metrics["axial"]["psnr"] > 10
    assert turns[0] == 0 < turns[-1]  # the event loop lives from before the first sweep to the end


@pytest.mark.slow
def test_without_waiting(desk, options, tmp_path):
    heard = Heard()
    runner = reconstruct(
        desk.scene,
        desk.volume(*chest(), name="chest"),
        wait=False,
        listener=heard,
        jobs_folder=tmp_path / "jobs",
        **FAST,
        **options,
    )
    assert runner.running
    poll_until(runner, lambda: not runner.running)
    assert heard.node.GetName() == "chest, SIRT"


def test_stopping_it_ends_the_job(desk, options, tmp_path):
    class Stopped(Exception):
        pass

    def stop():
        raise Stopped

    with pytest.raises(Stopped):
        reconstruct(desk.scene, desk.volume(*chest()), idle=stop, jobs_folder=tmp_path / "jobs", **LONG, **options)


@pytest.mark.slow
def test_what_goes_wrong_is_raised(desk, options, tmp_path):
    volume = desk.volume(*chest(), name="chest")
    options["jobs_folder"] = tmp_path / "jobs"
    with pytest.raises(InputError, match="setting 'vews' is not one"):
        reconstruct(desk.scene, volume, vews=8, **options)
    with pytest.raises(InputError, match="Name a volume node or a file"):
        reconstruct(desk.scene, "", **options)
    with pytest.raises(InputError, match="prior 'gone' is neither"):
        reconstruct(desk.scene, volume, prior="gone", device="cpu", **options)
    with pytest.raises(EngineError, match="the package numpy is missing"):
        reconstruct(desk.scene, volume, **{**options, "python": (*engine(), "-S")}, **FAST)

    class Impatient(Heard):
        def on_progress(self, event):
            runner[0].cancel()

    runner = []
    heard = Impatient()
    runner.append(reconstruct(desk.scene, volume, wait=False, listener=heard, **LONG, **options))
    poll_until(runner[0], lambda: not runner[0].running)
    assert heard.last.partial
    assert issubclass(Cancelled, RuntimeError)


@pytest.mark.slow
def test_cases_appear_in_the_scene_and_are_gone_on_with(desk, options, tmp_path):
    volume = desk.volume(*chest(), name="chest")
    cases = [
        Case("eight", volume, choices=FAST),
        Case("nowhere", tmp_path / "nowhere.nrrd", choices=FAST),
        Case("twelve", volume, choices={**FAST, "views": 12}),
    ]
    rows = reconstruct_cases(desk.scene, cases, tmp_path / "study", **options)
    assert [row["status"] for row in rows] == ["finished", "failed", "finished"]
    names = {node.GetName() for node in nodes_of(desk.scene, "vtkMRMLScalarVolumeNode")}
    assert {"eight", "twelve"} <= names
    no_worker = {**options, "python": (str(tmp_path / "nowhere"),)}
    again = reconstruct_cases(desk.scene, [cases[0], cases[2]], tmp_path / "study", **no_worker)
    assert [row["status"] for row in again] == ["finished", "finished"]
    assert CaseTable(tmp_path / "study").row("nowhere")["reason"].endswith("no such file or folder")
    hidden = [Case("nine", volume, choices={**FAST, "views": 9})]
    reconstruct_cases(desk.scene, hidden, tmp_path / "study", show=False, **options)
    assert "nine" not in {node.GetName() for node in nodes_of(desk.scene, "vtkMRMLScalarVolumeNode")}


@pytest.mark.slow
def test_the_same_lines_without_a_scene(options, tmp_path):
    array, grid = chest()
    volume = Volume(array, grid, name="chest")
    result = reconstruct(None, volume, task="sparse-view-ct", jobs_folder=tmp_path / "jobs", **FAST, **options)
    assert result.array.shape == array.shape
    assert result.grid == grid
    rows = reconstruct_cases(None, [Case("a", volume, choices=FAST)], tmp_path / "study", **options)
    assert rows[0]["status"] == "finished"


@pytest.mark.slow
def test_a_notebook_needs_no_slicer(tmp_path):
    """In the engine's own Python, where slicer cannot be imported."""
    code = (
        "import sys\n"
        "sys.modules['slicer'] = sys.modules['vtk'] = None\n"
        "import numpy as np\n"
        "from DiffusionMBIRGui.cases import reconstruct\n"
        "found = reconstruct(None, np.linspace(-1000, 500, 2 * 16 * 16).reshape(2, 16, 16), method='fbp', views=8,\n"
        "                    device='cpu', jobs_folder=sys.argv[1])\n"
        "print(found.array.shape)\n"
    )
    path = f"{ROOT}:{ROOT / 'DiffusionMBIR'}"
    done = subprocess.run(
        [*engine(), "-c", code, str(tmp_path / "jobs")],
        capture_output=True,
        text=True,
        env=dict(environment(tmp_path), PYTHONPATH=path),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(2, 16, 16)"
