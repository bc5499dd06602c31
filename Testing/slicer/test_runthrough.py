"""What a user does from loading the sample to the compared result, on real MRML, with a real job; and the hard ways."""

from __future__ import annotations

import os
import random
import signal
import time

import numpy as np
import pytest

from DiffusionMBIRGui.compare import Comparison
from DiffusionMBIRGui.difference import difference_volume
from DiffusionMBIRGui.export import write_nrrd
from DiffusionMBIRGui.parameters import Parameters
from DiffusionMBIRGui.results import ResultsTable
from DiffusionMBIRGui.runner import Runner
from DiffusionMBIRGui.volumes import grid_of, voxels
from DiffusionMBIRLib.io.volumes import read_volume
from DiffusionMBIRLib.jobs.messages import Failed, Finished
from Testing.slicer.helpers import ORDINARY, nodes_of, world_of
from Testing.slicer.jobs_helpers import Heard, chest, engine, environment, gone, poll_until, small_prior

LONG = 5000
CANCELS = 8


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return small_prior(tmp_path_factory.mktemp("prior"))


@pytest.fixture
def runner(desk, tmp_path):
    made = Runner(desk.scene, root=tmp_path / "jobs")
    made.python, made.environment = engine(), environment(tmp_path)
    made.slice_logics = desk.slice_logics()
    made.listener = Heard()
    made.set_preview(True, 0.0)
    yield made
    made.close()


def settings(desk, prior=None, shape=(6, 32, 40), **values):
    """The sample in the scene, and the settings of a small run."""
    found = Parameters.of(desk.scene)
    found.set_node("input", desk.volume(*chest(shape), name="CTChest"))
    found.update({"device": "cpu", "views": 8, "start_sweeps": 5, **({"prior": str(prior)} if prior else {}), **values})
    return found


def to_the_end(runner):
    poll_until(runner, lambda: not runner.running, 120)
    return runner.listener.last


def test_from_the_sample_to_the_compared_result_and_the_saved_scene(desk, runner, tmp_path):
    """With the bundled prior."""
    parameters = settings(desk, shape=(10, 48, 48), steps=14)
    source = parameters.input_node
    grid = grid_of(source)
    desk.jump_to(world_of(grid, 5, 24, 24))
    pictures: list[bytes] = []

    def look():
        picture = b"".join(desk.pixels(name).tobytes() for name in ORDINARY)
        if not pictures or pictures[-1] != picture:
            pictures.append(picture)
        assert all(desk.pixels(name).max() > 60 for name in ORDINARY)

    runner.listener.at_preview = look
    runner.start(parameters)
    assert isinstance(to_the_end(runner), Finished), runner.listener.last
    assert len(pictures) >= 5
    output = parameters.output_node
    assert grid_of(output) == grid
    (row,) = ResultsTable(desk.scene).rows()
    assert row["PSNR"] > 22
    comparison = Comparison(desk.scene)
    comparison.enter(output, source, desk.application)
    desk.open_views()
    assert comparison.active
    comparison.leave()
    error = difference_volume(desk.scene, output, source)
    assert np.sqrt(np.mean(voxels(error) ** 2)) < 200
    from DiffusionMBIRGui.export import snapshot

    write_nrrd(snapshot(output), str(tmp_path / "result.nrrd"))
    assert np.array_equal(read_volume(tmp_path / "result.nrrd").array, voxels(output))
    assert runner.plot.flush()
    path = tmp_path / "scene.mrb"
    assert desk.scene.WriteToMRB(str(path))
    other = desk.reopened(path)
    again = Parameters.of(other.scene)
    assert again.settings() == parameters.settings()
    assert again.get("views") == 8
    assert again.output_node.GetName() == output.GetName()
    np.testing.assert_array_equal(voxels(again.output_node), voxels(output))
    assert grid_of(again.output_node).shape == grid.shape
    assert ResultsTable(other.scene).rows() == ResultsTable(desk.scene).rows()
    other.close()


@pytest.mark.slow
def test_cancelled_at_random_moments_nothing_is_left_behind(desk, prior, runner):
    """Several times, most of them while the engine is starting, which is the longest part of so small a run."""
    parameters = settings(desk, prior, steps=LONG)
    moments = random.Random(11)
    kept = []
    for turn in range(CANCELS):
        runner.listener.last = None
        runner.start(parameters)
        poll_until(runner, lambda: runner._job is not None)
        pid = runner._job.pid
        if turn % 4 == 3:
            seen = len(runner.listener.previews)
            poll_until(runner, lambda seen=seen: len(runner.listener.previews) > seen)
        wait_until = time.monotonic() + moments.random() * 0.8
        poll_until(runner, lambda end=wait_until: time.monotonic() > end or not runner.running)
        runner.cancel()
        last = to_the_end(runner)
        assert isinstance(last, Finished)
        assert last.partial
        assert gone(pid)
        if runner.listener.node is not None:
            kept.append(runner.listener.node)
        for node in kept:
            assert node.GetScene() is desk.scene
            assert voxels(node).shape == voxels(parameters.input_node).shape
            assert np.isfinite(voxels(node)).all()
    assert kept
    assert len({node.GetID() for node in kept}) == len(kept)  # none was overwritten by a later run
    assert len(nodes_of(desk.scene, "vtkMRMLScalarVolumeNode")) == 1 + len(kept)
    assert ResultsTable(desk.scene).find() is None


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_killed_worker_is_reported_and_resume_gives_the_same_volume(desk, prior, runner):
    parameters = settings(desk, prior, steps=120, method="mbir")
    runner.start(parameters)
    assert isinstance(to_the_end(runner), Finished)
    whole = voxels(parameters.output_node).copy()
    parameters.set_node("output", None)
    runner.listener.progress.clear()
    runner.start(parameters)
    progress = runner.listener.progress
    poll_until(runner, lambda: bool(progress) and progress[-1].stage == "diffusion" and progress[-1].done > 10)
    os.killpg(runner._job.pid, signal.SIGKILL)
    last = to_the_end(runner)
    assert isinstance(last, Failed)
    assert last.kind == "crash"
    assert runner.resumable
    runner.resume()
    assert isinstance(to_the_end(runner), Finished)
    assert np.array_equal(voxels(parameters.output_node), whole)
