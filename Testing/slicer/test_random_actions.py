"""What users do that no test thinks of: seeded random actions on panel and scene while real jobs run.

DIFFUSIONMBIR_ACTIONS sets how many, DIFFUSIONMBIR_SEED which ones; a failure names both and lists what was done.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest_plugins = ("Testing.slicer.host.fixtures",)

import Testing.slicer.host  # noqa: E402, F401 - makes qt importable

# isort: split
import qt  # noqa: E402
from PySide6.QtTest import QTest  # noqa: E402

from DiffusionMBIRGui import setup  # noqa: E402
from DiffusionMBIRGui.panel import Panel  # noqa: E402
from DiffusionMBIRGui.runner import Runner  # noqa: E402
from DiffusionMBIRLib.jobs.client import Job  # noqa: E402
from DiffusionMBIRLib.jobs.standby import Standby  # noqa: E402
from DiffusionMBIRLib.tasks import TASKS  # noqa: E402
from Testing.slicer.helpers import nodes_of  # noqa: E402
from Testing.slicer.host import widgets  # noqa: E402
from Testing.slicer.host.played import CPU, UI, PlayedDesktop, wait_for  # noqa: E402
from Testing.slicer.jobs_helpers import chest, engine, environment, gone, small_prior  # noqa: E402

ACTIONS = int(os.environ.get("DIFFUSIONMBIR_ACTIONS", "30"))
SEED = int(os.environ.get("DIFFUSIONMBIR_SEED", "1"))
MOST_MS = 250  # that a user waits between two actions
DELETED = ("ScalarVolume", "VectorVolume", "Table", "PlotChart", "PlotSeries", "Sequence", "SequenceBrowser")
BUTTONS = (
    "compareButton", "flickerButton", "differenceButton", "uncertaintyButton", "plotButton", "resumeButton",
    "pauseButton", "inputFileClear", "batchRun", "batchRemove", "batchShow", "uncertaintyOutlines",
)  # fmt: skip
SECTIONS = (
    "dataSection",
    "reconstructionSection",
    "advancedSection",
    "resultsSection",
    "batchSection",
    "logSection",
    "setupSection",
)
KEYS = (qt.Qt.Key_Escape, qt.Qt.Key_X, qt.Qt.Key_F, qt.Qt.Key_Return, qt.Qt.Key_Tab, qt.Qt.Key_Space)


class Desktop(PlayedDesktop):
    """Answers as a user does who says yes to everything."""

    def __init__(self, folder: Path, desk: Any) -> None:
        super().__init__(folder)
        self.desk, self.scene = desk, desk.scene
        self.file = str(folder)

    def application_logic(self) -> Any:
        return self.desk.application

    def slice_logics(self) -> list[Any]:
        return self.desk.slice_logics()


class User:
    """Does one thing after the other; ``done`` lists them."""

    def __init__(self, panel: Any, desk: Any, application: Any, prior: Path) -> None:
        self.panel, self.desk, self.application, self.prior = panel, desk, application, prior
        self.chance = random.Random(SEED)
        self.done: list[str] = []
        self.ways: list[tuple[int, Callable[[], str]]] = [
            (8, self.run),
            (4, self.cancel),
            (8, self.button),
            (4, self.key),
            (4, self.delete),
            (1, self.close_scene),
            (4, self.sample),
            (6, self.setting),
            (2, self.section),
            (3, self.menu),
            (2, self.row),
            (2, self.prepare),
            (2, self.uncertain),
        ]

    def act(self) -> None:
        """One action, and then a while in which nothing is done."""
        weights, ways = zip(*self.ways, strict=True)
        (way,) = self.chance.choices(ways, weights)
        self.done.append(way())
        until = time.monotonic() + self.chance.random() * MOST_MS / 1000
        while time.monotonic() < until:
            self.application.processEvents()
            time.sleep(0.005)

    def prepare(self) -> str:
        """A small volume and settings that take a moment, or much longer than the test."""
        self.panel.parameters.set_node("input", self.desk.volume(*chest(), name="chest"))
        steps = self.chance.choice((3, 3, 2000))
        small = {"source": "volume", "input_file": "", "device": "cpu", "start_sweeps": 3, "steps": steps}
        self.panel.parameters.choose_task(TASKS[0])
        self.panel.parameters.update({**small, "prior": str(self.prior), "record_sequence": self.chance.random() < 0.5})
        return f"a small volume, {steps} steps"

    def run(self) -> str:
        if not self.panel.run.runner.running:
            self.prepare()
        self.panel.form.runButton.click()
        return "Run" if self.panel.run.runner.running else "Run, in vain"

    def cancel(self) -> str:
        if self.panel.run.runner.running:
            self.panel.form.runButton.click()
        return "Cancel"

    def button(self) -> str:
        name = self.chance.choice(BUTTONS)
        getattr(self.panel.form, name).click()
        return name

    def key(self) -> str:
        key = self.chance.choice(KEYS)
        modifier = qt.Qt.ControlModifier if key == qt.Qt.Key_Return else qt.Qt.NoModifier
        target = self.chance.choice((self.panel.form.runButton, self.panel.form.resultsTable, self.panel.form.views))
        target.setFocus()
        QTest.keyClick(target, key, modifier)
        return f"key {key}"

    def delete(self) -> str:
        kind = self.chance.choice(DELETED)
        found = nodes_of(self.desk.scene, f"vtkMRML{kind}Node")
        if found:
            self.desk.scene.RemoveNode(self.chance.choice(found))
        return f"a {kind} of {len(found)} deleted"

    def close_scene(self) -> str:
        self.desk.scene.Clear(False)
        return "scene closed"

    def sample(self) -> str:
        button = self.chance.choice(self.panel.data.sample_buttons)
        button.click()
        return f"sample {button.text()}"

    def setting(self) -> str:
        editor = self.panel.fields.editors[self.chance.choice(("task", "source", "preset", "method", "views", "steps"))]
        if editor.widget.isEnabled():
            if editor.widget.inherits("QComboBox"):
                editor.widget.setCurrentIndex(self.chance.randrange(max(1, editor.widget.count())))
            else:
                editor.widget.setValue(self.chance.randrange(2, 60))
        return f"{editor.name} {editor._read()}"

    def section(self) -> str:
        section = getattr(self.panel.form, self.chance.choice(SECTIONS))
        section.setProperty("collapsed", not section.property("collapsed"))
        return f"{section.objectName()} folded or unfolded"

    def menu(self) -> str:
        menu = self.chance.choice((self.panel.results.export, self.panel.presets, self.panel.batch))
        if menu is not self.panel.batch:
            menu.show()
        name = self.chance.choice(list(menu.actions))
        menu.actions[name].trigger()
        return f"menu: {name}"

    def uncertain(self) -> str:
        """Some volume of the scene as half-widths, and another threshold."""
        nodes = [None, *nodes_of(self.desk.scene, "vtkMRMLScalarVolumeNode")]
        self.panel.form.uncertaintyNode.setCurrentNode(self.chance.choice(nodes))
        self.panel.form.uncertaintyLeast.setValue(self.chance.random() * 100)
        return "another volume of half-widths"

    def row(self) -> str:
        table = self.chance.choice((self.panel.form.resultsTable, self.panel.form.batchTable))
        table.selectRow(self.chance.randrange(-1, table.rowCount()))
        return "a row selected"


@pytest.fixture
def played(application, desk, tmp_path, monkeypatch):
    """The panel on a scene with views, its runner and the process numbers of all its jobs."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    root = widgets.load(str(UI))
    runner = Runner(desk.scene, root=tmp_path / "jobs")
    panel = Panel(root, scene=desk.scene, desktop=Desktop(tmp_path, desk), runner=runner)
    panel.setup._desktop.set_setting("jobs_folder", str(tmp_path / "jobs"))
    panel.setup.engine = setup.Engine(engine(), environment(tmp_path))
    panel.setup.report = setup.Report("3.12", "2.9", (CPU,), machine="this one")
    panel.setup.priors = setup.priors()
    pids: list[int] = []
    start = Job.start

    def noted(*arguments: Any, **choices: Any) -> Job:
        job = start(*arguments, **choices)
        pids.append(job.pid)
        return job

    waits = Standby.__init__

    def waiting(self: Standby, *arguments: Any, **choices: Any) -> None:
        waits(self, *arguments, **choices)
        pids.append(self.pid)

    monkeypatch.setattr(Job, "start", noted)
    monkeypatch.setattr(Standby, "__init__", waiting)
    scene = desk.scene
    tags = [
        scene.AddObserver(scene.StartCloseEvent, lambda *_state: panel.on_scene_closing()),
        scene.AddObserver(scene.EndCloseEvent, lambda *_state: panel.attach(scene)),
    ]
    root.resize(437, 540)
    root.show()
    panel.enter(root)
    yield panel, pids
    for tag in tags:
        scene.RemoveObserver(tag)
    panel.close()
    root.deleteLater()


def lived(user: User) -> str:
    """Act, end what runs, and see that nothing went wrong; what was done, for those who ask further."""
    panel = user.panel
    user.prepare()
    for _turn in range(ACTIONS):
        user.act()
    story = f"seed {SEED}, {ACTIONS} actions: {'; '.join(user.done)}"
    panel.run.cancel()
    panel.batch.batch.stop()
    busy = (panel.results, panel.data, panel.batch, panel.pace)
    wait_for(lambda: not (panel.run.runner.running or any(part.busy for part in busy)), user.application)
    wait_for(lambda: not panel._timer.isActive(), user.application)
    log = panel.run.log_text()
    assert panel.form.runButton.text() != "Cancelling ...", story
    assert not [line for line in log.splitlines() if "Traceback" in line or "Error:" in line], f"{story}\n{log}"
    return story


@pytest.mark.slow
def test_nothing_that_a_user_does_breaks_panel_or_job(played, desk, application, tmp_path):
    panel, pids = played
    story = lived(User(panel, desk, application, small_prior(tmp_path)))
    assert pids, story
    panel.close()
    assert [pid for pid in pids if not gone(pid)] == [], story


def test_nothing_that_a_user_does_breaks_a_panel_without_an_engine(played, desk, application, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.MOST_MS", 20)
    panel, pids = played
    panel.setup.engine, panel.setup.report = None, setup.Report(problem="There is no Python.")
    panel.refresh()
    assert panel.warm.standby is None
    pids.clear()  # of the engine that was there
    lived(User(panel, desk, application, tmp_path / "none"))
    assert pids == []
