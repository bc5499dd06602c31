"""A runner with real jobs on real MRML: what it tells, and what happens to nodes that come and go."""

from __future__ import annotations

import re
import subprocess
import threading
import time

import numpy as np
import pytest
import slicer

from DiffusionMBIRGui.pages import job_of
from DiffusionMBIRGui.parameters import Parameters
from DiffusionMBIRGui.results import ResultsTable
from DiffusionMBIRGui.runner import Runner
from DiffusionMBIRGui.runner_work import RunClock, read
from DiffusionMBIRGui.scene import CANDIDATES, FILLED, STATE, UNCERTAINTY
from DiffusionMBIRGui.volumes import grid_of, image_like, voxels
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.io.volumes import read_volume
from DiffusionMBIRLib.jobs.messages import Failed, Finished
from Testing.slicer.helpers import events, nodes_of
from Testing.slicer.jobs_helpers import ROOT, Heard, chest, engine, environment, gone, poll_until, small_prior

LONG = 5000


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return small_prior(tmp_path_factory.mktemp("prior"))


@pytest.fixture
def parameters(desk, prior):
    found = Parameters.of(desk.scene)
    found.set_node("input", desk.volume(*chest(), name="chest"))
    found.update({"prior": str(prior), "steps": 5, "start_sweeps": 3, "device": "cpu", "views": 8})
    return found


@pytest.fixture
def runner(desk, tmp_path):
    made = Runner(desk.scene, root=tmp_path / "jobs")
    made.python, made.environment = engine(), environment(tmp_path)
    made.listener = Heard()
    made.set_preview(True, 0.0)
    yield made
    pid = made._job.pid if made._job is not None else None
    made.close()
    assert pid is None or gone(pid)


def running(runner):
    """Until the first preview is in the scene."""
    poll_until(runner, lambda: bool(runner.listener.previews))


def to_the_end(runner):
    poll_until(runner, lambda: not runner.running)
    return runner.listener.last


def test_a_job_fills_a_new_volume_beside_its_input(desk, parameters, runner):
    parameters.set("record_sequence", True)
    runner.start(parameters)
    assert runner.running
    last = to_the_end(runner)
    assert isinstance(last, Finished), last
    assert not last.partial
    output = parameters.output_node
    assert output is runner.node is runner.listener.node
    assert output.GetName() == "chest, 5 steps"
    assert output.GetAttribute(STATE) == "finished"
    assert grid_of(output) == grid_of(parameters.input_node)
    assert np.array_equal(voxels(output), read_volume(runner.job_path / "result.nrrd").array)
    assert "Research use only" in output.GetAttribute("DiffusionMBIR.Provenance")
    (row,) = ResultsTable(desk.scene).rows()
    assert (row["name"], row["method"]) == ("chest, 5 steps", "Diffusion")
    assert row["PSNR"] == pytest.approx(np.mean([m["psnr"] for m in last.metrics.values()]), abs=0.01)
    assert runner.plot.flush()
    assert runner.plot.table.GetNumberOfRows() == 5
    assert runner.sequence.frames == len(runner.listener.previews) + 1
    assert not runner.resumable
    fractions = [event.fraction for event in runner.listener.progress]
    assert fractions == sorted(fractions)
    names = [node.GetName() for node in nodes_of(desk.scene, "vtkMRMLPlotSeriesNode")]
    assert "noise level" in names
    assert "sigma" not in names


@pytest.mark.slow
def test_samples_bring_their_standard_deviation_as_a_volume_of_its_own(desk, parameters, runner):
    parameters.set("samples", 2)
    runner.start(parameters)
    last = to_the_end(runner)
    assert isinstance(last, Finished), last
    result = runner.node
    (spread,) = [node for node in nodes_of(desk.scene, "vtkMRMLScalarVolumeNode") if "deviation" in node.GetName()]
    assert spread.GetName() == "chest, 5 steps standard deviation"
    assert grid_of(spread) == grid_of(result)
    assert np.array_equal(voxels(spread), read_volume(runner.job_path / "deviation.nrrd").array)
    assert voxels(spread).min() >= 0 < voxels(spread).max()
    assert any("68 % are expected" in text for text in runner.listener.logs)
    assert runner.listener.node is result


@pytest.mark.slow
def test_intervals_are_the_half_widths_of_the_result(desk, parameters, runner):
    for name, value in (
        ("uncertainty", True),
        ("prior", "ct-compact-v1"),
        ("method", "dual"),
        ("steps", 2),
        ("views", 8),
    ):
        parameters.set(name, value)
    runner.start(parameters)
    last = to_the_end(runner)
    assert isinstance(last, Finished), last
    (width,) = [node for node in nodes_of(desk.scene, "vtkMRMLScalarVolumeNode") if "interval" in node.GetName()]
    assert width.GetName().endswith("95 % interval")
    assert runner.node.GetNodeReference(UNCERTAINTY) is width
    assert np.array_equal(voxels(width), read_volume(runner.job_path / "result-interval-95.nrrd").array)
    assert voxels(width).min() > 0
    filled, labels = (runner.node.GetNodeReference(role) for role in (FILLED, CANDIDATES))
    assert np.array_equal(voxels(filled), read_volume(runner.job_path / "result-filled.nrrd").array)
    assert labels.GetClassName() == "vtkMRMLLabelMapVolumeNode"
    assert np.array_equal(voxels(labels), read_volume(runner.job_path / "result-candidates.nrrd").array)
    assert job_of(runner.node, runner.job_path.parent).path == runner.job_path
    assert (runner.job_path / "measured.npz").is_file()
    assert any("20 noise levels" in text for text in runner.listener.logs)


@pytest.mark.slow
def test_previews_are_read_in_threads_and_each_is_one_event(desk, parameters, runner, monkeypatch):
    readers = set()

    def noted(*arguments):
        readers.add(threading.current_thread())
        return read(*arguments)

    monkeypatch.setattr("DiffusionMBIRGui.runner.read", noted)
    parameters.set("steps", 60)
    runner.start(parameters)
    running(runner)
    output, before = runner.node, len(runner.listener.previews)
    counts = events(output)
    while runner.running and len(runner.listener.previews) < before + 5:
        runner.poll()
        time.sleep(0.005)
    assert counts["ModifiedEvent"] == len(runner.listener.previews) - before
    assert readers
    assert threading.main_thread() not in readers
    runner.cancel()
    to_the_end(runner)


@pytest.mark.slow
def test_cancel_keeps_what_there_is(desk, parameters, runner):
    parameters.set("steps", LONG)
    runner.start(parameters)
    running(runner)
    pid = runner._job.pid
    runner.cancel()
    last = to_the_end(runner)
    assert last.partial
    assert runner.node.GetName() == "chest, 5000 steps (partial)"
    assert np.isfinite(voxels(runner.node)).all()
    assert ResultsTable(desk.scene).find() is None
    assert gone(pid)


def test_cancel_before_there_is_anything_leaves_no_node(desk, parameters, runner):
    before = desk.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    runner.start(parameters)
    runner.cancel()
    last = to_the_end(runner)
    assert (last.partial, runner.listener.node) == (True, None)
    assert desk.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == before


def test_no_run_overwrites_a_volume_that_holds_something(desk, parameters, runner):
    """Neither a result nor what a cancelled run left."""
    parameters.update({"method": "fbp", "output_name": "mine"})
    runner.start(parameters)
    to_the_end(runner)
    first = parameters.output_node
    held = voxels(first).copy()
    first.SetName("a name of the user's")
    parameters.set("views", 5)
    runner.start(parameters)
    to_the_end(runner)
    second = parameters.output_node
    assert (first.GetName(), second.GetName()) == ("a name of the user's", "mine_1")
    assert np.array_equal(voxels(first), held)
    empty = desk.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "prepared")
    parameters.set_node("output", empty)
    runner.start(parameters)
    to_the_end(runner)
    assert parameters.output_node is empty
    assert [row["name"] for row in ResultsTable(desk.scene).rows()] == ["mine", "mine_1", "prepared"]


@pytest.mark.slow
def test_a_partial_volume_outlives_the_next_run(parameters, runner):
    parameters.set("steps", LONG)
    runner.start(parameters)
    running(runner)
    runner.cancel()
    last = to_the_end(runner)
    assert last.seconds > 1  # the engine alone takes longer to start
    partial, held = runner.node, voxels(runner.node).copy()
    parameters.set("steps", 5)
    runner.start(parameters)
    to_the_end(runner)
    assert runner.node is not partial
    assert np.array_equal(voxels(partial), held)


def test_previews_are_not_recorded_where_nothing_replays_them(prior, runner):
    """A scene without the module Sequences."""
    scene = slicer.vtkMRMLScene()
    runner.scene = scene
    found = Parameters.of(scene)
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "chest")
    node.SetAndObserveImageData(image_like(chest()[0]))
    found.set_node("input", node)
    found.update({"method": "fbp", "device": "cpu", "record_sequence": True})
    runner.start(found)
    assert isinstance(to_the_end(runner), Finished)
    assert runner.node.GetImageData() is not None
    assert [line for line in runner.listener.logs if "Sequences" in line] == [
        "Previews are not recorded: Slicer's module Sequences is not there."
    ]
    assert runner.poll() is False


@pytest.mark.parametrize("broken", ["ResultsTable.add", "OutputVolume.describe"])
def test_an_error_at_the_end_is_told_once_and_the_result_is_kept(parameters, runner, monkeypatch, broken):
    def raises(*_arguments):
        raise RuntimeError("an observer of another module\nis broken")

    monkeypatch.setattr(f"DiffusionMBIRGui.runner.{broken}", raises)
    runner.start(parameters)
    last = to_the_end(runner)
    assert not runner.running
    assert sum("RuntimeError: an observer of another module is broken" in line for line in runner.listener.logs) == 1
    if broken == "OutputVolume.describe":  # the volume itself is shown before
        assert isinstance(last, Failed)
        assert (runner.job_path / "result.nrrd").is_file()
        assert str(runner.job_path / "result.nrrd") in last.reason
    else:
        assert isinstance(last, Finished)
        assert runner.listener.node is parameters.output_node
    assert runner.poll() is False


def test_a_clock_counts_work_over_all_attempts_and_pauses_apart():
    now = [0.0]
    clock = RunClock(lambda: now[0])
    clock.start()
    for until, paused in ((10, True), (70, False), (75, True)):
        now[0] = until
        clock.pause(paused)
    now[0] = 90
    assert (clock.seconds(), clock.paused_s) == (15, 75)
    clock.start()
    now[0] = 100
    assert (clock.seconds(), clock.paused_s) == (25, 0)


@pytest.mark.slow
def test_pause_and_go_on(parameters, runner):
    parameters.set("steps", LONG)
    runner.start(parameters)
    running(runner)
    runner.pause()
    poll_until(runner, lambda: runner.paused)
    runner.go_on()
    poll_until(runner, lambda: not runner.paused)
    assert runner.listener.paused == [True, False]


@pytest.mark.slow
def test_the_output_is_deleted_while_the_job_runs(desk, parameters, runner):
    parameters.set("steps", 150)
    runner.start(parameters)
    running(runner)
    deleted = runner.node
    desk.scene.RemoveNode(deleted)
    last = to_the_end(runner)
    assert isinstance(last, Finished)
    assert runner.node is not deleted
    assert runner.node.GetScene() is desk.scene
    assert np.array_equal(voxels(runner.node), read_volume(runner.job_path / "result.nrrd").array)
    assert sum("was deleted" in text for text in runner.listener.logs) == 1


@pytest.mark.slow
def test_the_input_is_deleted_while_the_job_runs(desk, parameters, runner):
    runner.start(parameters)
    desk.scene.RemoveNode(parameters.input_node)
    assert isinstance(to_the_end(runner), Finished)
    assert runner.node.GetImageData() is not None


@pytest.mark.slow
def test_the_scene_is_closed_while_the_job_runs(desk, parameters, runner):
    parameters.set("steps", LONG)
    runner.start(parameters)
    running(runner)
    pid = runner._job.pid
    desk.scene.Clear(False)
    assert not runner.running
    assert gone(pid)
    assert not nodes_of(desk.scene, "vtkMRMLScalarVolumeNode")
    assert runner.poll() is False
    again = Parameters.of(desk.scene)
    again.set_node("input", desk.volume(*chest(), name="later"))
    again.update({"method": "sirt", "sirt_iterations": 3})
    runner.start(again)
    assert isinstance(to_the_end(runner), Finished)


def test_what_cannot_be_run_is_refused_at_once(desk, parameters, runner, tmp_path):
    chosen = parameters.input_node
    parameters.set_node("input", None)
    with pytest.raises(InputError, match="Choose a volume"):
        runner.start(parameters)
    parameters.set_node("input", chosen)
    parameters.set_node("output", desk.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode"))
    with pytest.raises(InputError, match="must be a scalar volume"):
        runner.start(parameters)
    parameters.set_node("output", None)
    with pytest.raises(InputError, match="no job to resume"):
        runner.resume()
    parameters.set("steps", LONG)
    runner.start(parameters)
    with pytest.raises(InputError, match="A job is running"):
        runner.start(parameters)
    assert not runner.listener.last


@pytest.mark.slow
@pytest.mark.parametrize("case", ["no folder", "no Python", "no torch", "no prior", "no file"])
def test_what_goes_wrong_later_is_one_line(parameters, runner, tmp_path, case):
    if case == "no folder":
        (tmp_path / "file").write_text("")
        runner.root, message = tmp_path / "file", "cannot be written .* choose another jobs folder"
    elif case == "no Python":
        runner.python, message = (str(tmp_path / "nowhere"),), "cannot be started as Python"
    elif case == "no torch":
        runner.python, message = (*engine(), "-S"), "the package numpy is missing"
    elif case == "no prior":
        parameters.set("prior", "gone")
        message = "prior 'gone' is neither a file nor an installed id"
    else:
        path = tmp_path / "scan.h5"
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
        parameters.update({"source": "sinogram", "input_file": str(path)})
        message = "cannot be read as HDF5"
    runner.start(parameters)
    last = to_the_end(runner)
    assert isinstance(last, Failed)
    assert re.search(message, last.reason), last
    assert "\n" not in last.reason


@pytest.mark.slow
def test_a_sinogram_node_is_reconstructed_and_judged_by_the_reference(desk, parameters, runner, tmp_path):
    """The scan of the chest, made by the engine, as a node of line integrals."""
    array, _ = chest((4, 36, 36))
    code = (
        "import sys, numpy as np\n"
        "import DiffusionMBIRLib as mbir\n"
        "from DiffusionMBIRLib.volume import Volume\n"
        "array = np.load(sys.argv[1])\n"
        "scan = mbir.simulate(Volume(array, mbir.Grid(array.shape)), views=12)\n"
        "np.save(sys.argv[2], scan.data)\n"
    )
    np.save(tmp_path / "a.npy", array)
    variables = dict(environment(tmp_path), PYTHONPATH=str(ROOT))
    files = [str(tmp_path / "a.npy"), str(tmp_path / "b.npy")]
    subprocess.run([*engine(), "-c", code, *files], check=True, env=variables)
    sinogram = np.load(files[1])
    node = desk.volume(sinogram, name="scan")
    columns = sinogram.shape[2]
    padded = np.full((4, columns, columns), -1024, array.dtype)
    first = (columns - 36) // 2
    padded[:, first : first + 36, first : first + 36] = array
    parameters.update({"source": "sinogram", "method": "sirt", "sirt_iterations": 60})
    parameters.set_node("input", node)
    runner.start(parameters)
    assert isinstance(to_the_end(runner), Finished), runner.listener.last
    assert voxels(runner.node).shape == (4, columns, columns)
    (row,) = ResultsTable(desk.scene).rows()
    assert np.isnan(row["PSNR"])
    reference = desk.volume(padded, grid_of(runner.node), name="truth")
    parameters.set_node("reference", reference)
    runner.start(parameters)
    to_the_end(runner)
    assert ResultsTable(desk.scene).rows()[1]["PSNR"] > 15


@pytest.mark.slow
def test_k_space_of_a_node_is_reconstructed(desk, parameters, runner):
    rows, columns = np.mgrid[-1:1:32j, -1:1:28j]
    image = np.stack([(rows**2 + columns**2 < size) * 100.0 for size in (0.5, 0.7)])
    coils = np.stack([np.exp(rows + 1j * columns), np.exp(-rows + 0.5j)])
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image[:, None] * coils, (-2, -1)), norm="ortho"), (-2, -1))
    spectrum[..., ::2] *= abs(np.arange(28)[::2] - 14) < 5  # every second line but those in the middle
    parts = np.stack([spectrum.real, spectrum.imag], axis=-1)  # (slices, coils, rows, columns, 2)
    components = np.moveaxis(parts, 1, 3).reshape(2, 32, 28, 4).astype(np.float32)
    parameters.choose_task("compressed-sensing-mri")
    parameters.update({"source": "k-space", "method": "sense-cg"})
    parameters.set_node("input", desk.vectors(components))
    runner.start(parameters)
    assert isinstance(to_the_end(runner), Finished), runner.listener.last
    found = voxels(runner.node)
    combined = image * np.sqrt((abs(coils) ** 2).sum(0))
    assert np.corrcoef(found.ravel(), combined.ravel())[0, 1] > 0.95


def test_a_closed_runner_hears_nothing_more(desk, parameters, runner):
    runner.start(parameters)
    runner.close()
    runner.close()
    assert runner.poll() is False
    assert runner.listener.last is None
