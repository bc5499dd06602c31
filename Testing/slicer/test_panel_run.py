"""The panel while a job runs, ends, fails or its scene closes: a runner that the test plays."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest_plugins = ("Testing.slicer.host.fixtures",)

import Testing.slicer.host  # noqa: E402, F401 - makes qt importable

# isort: split
import qt  # noqa: E402

from DiffusionMBIRGui.parameters import Parameters  # noqa: E402
from DiffusionMBIRLib.errors import EngineError, InputError  # noqa: E402
from DiffusionMBIRLib.jobs.messages import Failed, Finished, Log, Prepared, Progress  # noqa: E402
from Testing.slicer.host.played import ct_volume, shown, text, wait_for  # noqa: E402


def progress(fraction=0.42, left=125.0):
    return Progress("diffusion", 21, 50, fraction, 60.0, left, {"sigma": 0.1})


def finished(partial=False, residual=0.003):
    return Finished(72.0, residual, 50, 60.0, None, "result.nrrd", partial)


def test_run_cancel_and_the_partial_result(ready, runner):
    form = ready.form
    form.runButton.click()
    assert runner.calls[0][:2] == ("start", "sparse-view-ct")
    assert runner.calls[0][2]["views"] == 8
    assert tuple(runner.python) == (sys.executable,)
    assert text(form.runButton) == "Cancel"
    assert shown(form.pauseButton)
    assert not form.task.isEnabled()
    assert not form.inputNode.isEnabled()
    assert form.preview_on.isEnabled()
    runner.listener.on_prepared(Prepared([4, 16, 16], {}, "HU", "cuda:0", 8, 7, 8, True))
    runner.listener.on_progress(progress())
    assert text(form.progressText) == "Diffusion: 42 %, 2 min left"
    assert form.progressBar.property("value") == 420
    form.runButton.click()
    assert runner.calls[-1] == "cancel"
    assert text(form.runButton) == "Cancelling ..."
    assert not form.runButton.isEnabled()
    runner.finish(finished(partial=True), ready.parameters.input_node)
    assert text(form.progressText) == "Cancelled after 72 s; what there was of the volume is kept."
    assert text(form.runButton) == "Run"
    assert form.task.isEnabled()
    assert not shown(form.resumeButton)


def test_the_end_is_told(ready, runner):
    ready.form.runButton.click()
    runner.finish(finished(), ready.parameters.input_node)
    assert text(ready.form.progressText) == "Done in 72 s."
    assert ready.form.progressBar.property("value") == 1000


def test_a_killed_worker_is_reported_with_a_resume_button_that_works(ready, runner):
    form = ready.form
    form.runButton.click()
    runner.fail(Failed("The engine's process was killed (signal 9).", "crash", True))
    assert text(form.runMessage) == "The engine's process was killed (signal 9)."
    assert shown(form.runMessage)
    assert shown(form.resumeButton)
    assert "killed" in form.log.toPlainText()
    form.resumeButton.click()
    assert runner.calls[-2:] == ["resume", ("preview", True, 1.0)]
    assert text(form.runButton) == "Cancel"
    assert not shown(form.resumeButton)
    assert not shown(form.runMessage)


@pytest.mark.parametrize("error", [InputError("jobs: the disk is full; free 2 GB"), EngineError("no memory")])
def test_a_job_that_cannot_begin_says_why_in_one_line(ready, runner, error):
    runner.refuse = error
    ready.form.runButton.click()
    assert text(ready.form.runMessage) == str(error)
    assert text(ready.form.runButton) == "Run"


def test_pause_and_go_on(ready, runner):
    ready.form.runButton.click()
    ready.form.pauseButton.click()
    assert text(ready.form.pauseButton) == "Pausing ..."  # until the step is over
    assert not ready.form.pauseButton.isEnabled()
    runner.listener.on_progress(progress())
    assert text(ready.form.pauseButton) == "Pausing ..."
    runner.hold()
    assert runner.paused
    assert text(ready.form.pauseButton) == "Go on"
    assert text(ready.form.progressText) == "Paused"
    ready.form.pauseButton.click()
    assert text(ready.form.pauseButton) == "Going on ..."
    runner.hold()
    assert not runner.paused
    assert text(ready.form.pauseButton) == "Pause"
    runner.paused_s = 60.0
    runner.finish(finished(partial=True), ready.parameters.input_node)
    assert text(ready.form.progressText).startswith("Cancelled after 72 s of work and 60 s of pause; ")


def test_preview_can_be_changed_while_running(ready, runner):
    ready.form.runButton.click()
    ready.form.preview_on.setChecked(False)
    assert runner.calls[-1] == ("preview", False, 1.0)
    ready.form.preview_interval_s.setValue(5.0)
    assert runner.calls[-1] == ("preview", False, 5.0)


@pytest.fixture
def window(ready, application):
    """The panel beside a view, as in Slicer, in the active window."""
    window = qt.QMainWindow()
    splitter, view = qt.QSplitter(), qt.QLineEdit()
    splitter.addWidget(ready.form.root)
    splitter.addWidget(view)
    window.setCentralWidget(splitter)
    window.view = view
    ready.enter(window)
    window.show()
    window.activateWindow()
    wait_for(lambda: qt.QApplication.activeWindow() is window, application)
    yield window
    ready.exit()
    ready.form.root.setParent(None)
    window.close()


def press(widget, key, modifier=None):
    from PySide6.QtTest import QTest

    widget.setFocus()
    QTest.keyClick(widget, key, modifier or qt.Qt.NoModifier)


def test_keys_act_only_where_the_panel_has_the_focus(ready, runner, window):
    form = ready.form
    press(form.runButton, qt.Qt.Key_Escape)
    assert runner.calls == []
    press(window.view, qt.Qt.Key_Return, qt.Qt.ControlModifier)
    assert runner.calls == []
    press(form.runButton, qt.Qt.Key_Return, qt.Qt.ControlModifier)
    assert runner.calls[0][0] == "start"
    press(form.runButton, qt.Qt.Key_Return, qt.Qt.ControlModifier)
    assert len([c for c in runner.calls if c[0] == "start"]) == 1
    press(window.view, qt.Qt.Key_Escape)
    assert runner.calls[-1] != "cancel"
    press(form.pauseButton, qt.Qt.Key_Escape)
    assert runner.calls[-1] == "cancel"


def test_esc_wants_to_be_pressed_twice_after_the_first_minute(ready, runner, window):
    now = [0.0]
    ready.run.now = lambda: now[0]
    ready.form.runButton.click()
    asked = "Press Esc again within 3 s to cancel."
    runner.listener.on_progress(progress())
    now[0] = 61.0
    press(ready.form.pauseButton, qt.Qt.Key_Escape)
    assert text(ready.form.progressText) == asked
    runner.listener.on_progress(progress(0.5))
    assert text(ready.form.progressText) == asked
    now[0] = 70.0  # that was long ago
    ready.poll()
    assert text(ready.form.progressText).startswith("Diffusion: 50 %")
    press(ready.form.pauseButton, qt.Qt.Key_Escape)
    assert "cancel" not in runner.calls
    now[0] = 71.0
    press(ready.form.pauseButton, qt.Qt.Key_Escape)
    assert runner.calls[-1] == "cancel"
    assert text(ready.form.progressText) == "Keeping what there is of the volume ..."


def test_the_question_of_esc_ends_in_a_pause_too(ready, runner, window):
    """While a run is held nothing comes that would take the question away."""
    now = [0.0]
    ready.run.now = lambda: now[0]
    ready.form.runButton.click()
    ready.form.pauseButton.click()
    runner.hold()
    now[0] = 61.0
    press(ready.form.runButton, qt.Qt.Key_Escape)
    assert text(ready.form.progressText).startswith("Press Esc again")
    now[0] = 65.0
    ready.poll()
    assert text(ready.form.progressText) == "Paused"


def test_esc_and_cancel_while_a_run_is_being_cancelled_and_after_it(ready, runner, window):
    """Asked once however often it is pressed; later events do not take the line away; at rest nothing happens."""
    form = ready.form
    form.runButton.click()
    press(form.runButton, qt.Qt.Key_Escape)
    for _again in range(3):
        press(form.scrollArea, qt.Qt.Key_Escape)
        form.runButton.click()
    runner.listener.on_progress(progress())
    assert runner.calls.count("cancel") == 1
    assert text(form.progressText) == "Keeping what there is of the volume ..."
    runner.finish(finished(partial=True), ready.parameters.input_node)
    done, calls = text(form.progressText), list(runner.calls)
    press(form.runButton, qt.Qt.Key_Escape)
    assert (text(form.progressText), runner.calls) == (done, calls)


@pytest.mark.parametrize("scrolled", [0, 30])
def test_results_come_into_sight_unless_the_user_looks_elsewhere(ready, runner, window, application, scrolled):
    """In a low window they lie below what is seen."""
    form = ready.form
    window.resize(500, 420)
    application.processEvents()
    bar, section = form.scrollArea.verticalScrollBar(), form.resultsSection
    section.setProperty("collapsed", False)
    form.runButton.click()
    bar.setValue(scrolled)
    assert section.visibleRegion().isEmpty()
    ready.parameters.set_node("output", ct_volume(ready.scene, "Chest, 20 steps", (180, 16, 16)))
    runner.finish(finished(), ready.parameters.output_node)
    application.processEvents()
    assert section.visibleRegion().isEmpty() == bool(scrolled)
    assert (bar.value() == scrolled) == bool(scrolled)


def test_the_panel_is_never_narrower_than_what_it_shows(ready, window, application):
    """Rows come and go with what there is; a scroll area alone would let the dock cut them off."""
    area, content = ready.form.scrollArea, ready.form.scrollContent
    ready.form.resultsSection.setProperty("collapsed", False)
    ready.refresh()
    application.processEvents()
    former = area.minimumWidth()
    ready.form.differenceButton.setText("As long as in another language, " * 3)
    ready.refresh()
    application.processEvents()
    assert area.minimumWidth() >= content.minimumSizeHint().width() > former


def test_a_long_name_does_not_widen_the_panel(ready, window, application):
    """CTK's sections are never narrower than their size hint, and Slicer's box of nodes hints at its longest name."""
    box, layout = ready.form.inputNode, ready.form.dataSection.layout()
    box.findChild(qt.QComboBox).setSizeAdjustPolicy(qt.QComboBox.AdjustToContents)
    former = layout.sizeHint().width()
    ct_volume(ready.scene, "As hospitals name them, thorax low dose axial 1.0 B70f " * 2, (180, 16, 16))
    box.updateGeometry()
    application.processEvents()
    assert box.sizeHint().width() > 500
    assert layout.sizeHint().width() == former


def test_slicers_own_keys_are_left_alone(ready, window):
    """F and B step through slices; X, which nothing uses, flickers where results are shown."""
    keys = {shortcut.key().toString(): shortcut for shortcut in ready.keys._shortcuts}
    assert set(keys) == {"Ctrl+Return", "Ctrl+Enter", "Esc", "X"}
    assert not keys["X"].isEnabled()
    ready.parameters.set_node("output", ct_volume(ready.scene, "Chest, 20 steps", (180, 16, 16)))
    ready.form.resultsSection.setProperty("collapsed", False)
    ready.refresh()
    assert keys["X"].isEnabled()
    ready.form.resultsSection.setProperty("collapsed", True)
    assert not keys["X"].isEnabled()


def test_an_error_in_a_timer_is_told_once_and_ends_what_caused_it(ready, runner, application, monkeypatch):
    """Not every 50 ms until Slicer is closed."""
    tried = []

    def raises():
        tried.append(1)
        raise RuntimeError("no such node")

    ready.form.runButton.click()
    monkeypatch.setattr(runner, "poll", raises)
    wait_for(lambda: not ready._timer.isActive(), application)
    assert len(tried) == 1
    assert not runner.running
    assert text(ready.form.runMessage) == "RuntimeError: no such node"
    assert "Traceback" in ready.run.log_text()
    assert text(ready.form.runButton) == "Run"


def test_the_timer_follows_the_runner_and_rests_afterwards(ready, runner, application):
    ready.form.runButton.click()
    assert ready._timer.isActive()
    runner.told.append(lambda: runner.listener.on_progress(progress(0.9, None)))
    wait_for(lambda: text(ready.form.progressText) == "Diffusion: 90 %", application)
    runner.told.append(lambda: runner.finish(finished(), None))
    wait_for(lambda: not ready._timer.isActive(), application)
    assert text(ready.form.progressText) == "Done in 72 s."


def test_log_can_be_copied(ready, runner):
    runner.listener.on_log(Log("info", "first"))
    runner.listener.on_log(Log("warning", "second"))
    ready.form.logCopy.click()
    assert qt.QApplication.clipboard().text() == "first\nsecond"


# The scene.


def test_scene_closes_while_a_job_runs(ready, runner, new_scene):
    ready.form.runButton.click()
    ready.on_scene_closing()
    assert runner.calls[-1] == "close"
    new_scene.Clear(0)
    ready.attach(new_scene)
    assert text(ready.form.runButton) == "Run: choose a volume first"
    assert ready.form.views.property("value") == 8
    ready.form.views.setValue(20)
    assert Parameters.of(new_scene).get("views") == 20


def test_nothing_is_called_once_the_panel_is_closed(ready, runner):
    node = ready.parameters.node
    ready.close()
    node.SetParameter("views", "55")
    assert ready.form.views.property("value") == 8
    assert runner.listener is None


def test_a_panel_that_is_made_later_keeps_what_the_scene_has_chosen(ready, new_scene, desktop):
    from DiffusionMBIRGui.panel import Panel
    from Testing.slicer.host import widgets
    from Testing.slicer.host.played import UI, PlayedRunner

    chosen = ready.parameters.input_node
    ready.close()
    later = Panel(widgets.load(str(UI)), scene=new_scene, desktop=desktop, runner=PlayedRunner())
    assert later.parameters.input_node is chosen
    assert later.form.inputNode.currentNode() is chosen
    later.close()


def test_warnings_are_told_above_the_button_and_go_with_the_scene(ready, runner):
    ready.form.runButton.click()
    runner.listener.on_log(Log("info", "reading"))
    assert not shown(ready.form.runMessage)
    runner.listener.on_log(Log("warning", "The output volume was deleted."))
    assert text(ready.form.runMessage) == "The output volume was deleted."
    assert shown(ready.form.runMessage)
    runner.listener.on_progress(progress())
    ready.on_scene_closing()
    assert not shown(ready.form.runMessage)
    assert not shown(ready.form.progressBar)
    assert text(ready.form.progressText) == ""
