"""The engine that the panel keeps warm: when it is started, whom it serves, and that it goes."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest_plugins = ("Testing.slicer.host.fixtures",)

import Testing.slicer.host  # noqa: E402, F401 - makes qt importable

# isort: split
from DiffusionMBIRGui import setup  # noqa: E402
from DiffusionMBIRGui.panel_warm import LEAST_FREE, WarmEngine  # noqa: E402
from DiffusionMBIRGui.plans import plan_from  # noqa: E402
from DiffusionMBIRGui.runner import Runner  # noqa: E402
from DiffusionMBIRLib.jobs.messages import Finished  # noqa: E402
from Testing.slicer.host.played import CPU  # noqa: E402
from Testing.slicer.jobs_helpers import Heard, chest, engine, environment, gone, poll_until  # noqa: E402

READY = setup.Report("3.12", "2.9", (CPU,), machine="this one")


@pytest.fixture
def warm():
    made = WarmEngine()
    yield made
    made.close()


def test_one_process_for_the_engine_that_is_set_up(warm, tmp_path):
    here, other = setup.Engine(engine(), environment(tmp_path)), setup.Engine((*engine(), "-B"), environment(tmp_path))
    warm.look(here, replace(READY, problem="torch is missing"), "cpu")
    assert warm.standby is None
    warm.look(here, replace(READY, devices=(replace(CPU, free=LEAST_FREE - 1),)), "cpu")
    assert warm.standby is None
    warm.look(here, READY, "cpu")
    first = warm.standby
    warm.look(here, READY, "cpu")
    assert warm.standby is first
    warm.look(other, READY, "cpu")
    assert gone(first.pid)
    second = warm.standby
    assert second.alive
    assert warm.take() is second  # it is the job's now
    assert warm.take() is None
    second.close()
    warm.look(other, READY, "cpu")
    third = warm.standby
    warm.look(None, None, "cpu")
    assert gone(third.pid)
    warm.look(setup.Engine((str(tmp_path / "none"),)), READY, "cpu")  # which looking at the engine tells of
    assert warm.standby is None


def test_none_is_started_while_a_job_runs_and_the_next_one_after_it(ready, runner):
    ready.warm.enabled = True
    ready.refresh()
    waits = ready.warm.standby
    assert waits.alive
    assert runner.standby() is waits
    ready.form.runButton.click()
    ready.refresh()
    assert ready.warm.standby is None
    runner.finish(Finished(1.0, None, 0, 0.0, None, "", True), None)
    after = ready.warm.standby
    assert after.alive
    waits.close()
    ready.close()
    assert gone(waits.pid)
    assert gone(after.pid)


@pytest.mark.slow
def test_a_run_is_served_by_it_from_the_first_preview_to_the_result(desk, warm, tmp_path):
    made = setup.Engine(engine(), environment(tmp_path))
    warm.look(made, READY, "cpu")
    pid = warm.standby.pid
    runner, heard = Runner(desk.scene, root=tmp_path / "jobs"), Heard()
    runner.listener, runner.standby = heard, warm.take
    runner.python, runner.environment = made.command, made.variables()
    volume = desk.volume(*chest(), name="chest")
    runner.begin(plan_from(volume, choices={"method": "sirt", "sirt_iterations": 400, "views": 8, "device": "cpu"}))
    poll_until(runner, lambda: runner._job is not None)
    assert runner._job.pid == pid
    poll_until(runner, lambda: not runner.running)
    assert isinstance(heard.last, Finished), heard.last
    assert heard.previews[0].step == 0  # the direct reconstruction
    assert gone(pid)
