"""The panel, shown and pressed: real MRML, Qt's own widgets, a runner that the test plays."""

from __future__ import annotations

import ast
import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest_plugins = ("Testing.slicer.host.fixtures",)

import Testing.slicer.host  # noqa: E402, F401 - makes qt importable

# isort: split
import qt  # noqa: E402
from DiffusionMBIRGui import setup, texts  # noqa: E402
from DiffusionMBIRGui.panel_data import SAMPLES  # noqa: E402
from DiffusionMBIRGui.panel_fields import decimals_for  # noqa: E402
from DiffusionMBIRGui.parameters import MRI, Parameters  # noqa: E402

from DiffusionMBIRLib.config import ReconSettings  # noqa: E402
from DiffusionMBIRLib.errors import EngineError, InputError  # noqa: E402
from DiffusionMBIRLib.jobs.messages import Failed, Finished, Log, Prepared, Progress  # noqa: E402
from Testing.slicer.host.played import UI, ct_volume, wait_for  # noqa: E402

GPU = setup.Device("cuda:0", "NVIDIA H200", 8_000_000_000, 7_000_000_000)
CPU = setup.Device("cpu", "CPU", 16_000_000_000, 12_000_000_000)
GUI = Path(__file__).resolve().parents[2] / "DiffusionMBIR" / "DiffusionMBIRGui"


@pytest.fixture
def ready(panel, new_scene):
    """A panel with an engine that works and a volume that is chosen."""
    panel.setup.engine = setup.Engine((sys.executable,), in_slicer=True)
    panel.setup.report = setup.Report("3.12.10", "2.9.1", (GPU, CPU))
    panel.setup.priors = setup.priors()
    panel.parameters.set_node("input", ct_volume(new_scene, "Chest", (180, 16, 16)))
    panel.refresh()
    return panel


def text(widget) -> str:
    return str(widget.property("text"))


def shown(widget) -> bool:
    """Whether a widget would be seen if its window were."""
    return not widget.isHidden()


def progress(fraction=0.42, left=125.0):
    return Progress("diffusion", 21, 50, fraction, 60.0, left, {"sigma": 0.1})


def finished(partial=False, residual=0.003):
    return Finished(72.0, residual, 50, 60.0, None, "result.nrrd", partial)


# Settings and their widgets.


def test_every_setting_has_its_widget_with_its_limits_and_help(panel):
    expected = set(Parameters.TABLE) - {"input_file"}
    assert set(panel.fields.editors) == expected
    for name, editor in panel.fields.editors.items():
        item = Parameters.TABLE[name]
        assert editor.widget.property("toolTip") == item.metadata["help"], name
        named = editor.widget if editor.widget.inherits("QCheckBox") else editor.label
        assert named is None or text(named).rstrip(":") == item.metadata["label"]
        assert named is not None or name == "preview_interval_s"  # stands behind its check box
        limits = item.metadata["range"]
        if limits and not editor.widget.inherits("QLineEdit"):
            assert editor.widget.property("minimum") == pytest.approx(limits[0])
            assert editor.widget.property("maximum") == pytest.approx(limits[1])


def test_form_names_settings_as_the_table_does():
    labels = {
        widget.get("name"): widget.find("property[@name='text']/string").text
        for widget in ElementTree.parse(UI).iter("widget")
        if widget.get("class") == "QLabel" and widget.find("property[@name='text']/string") is not None
    }
    for name, item in Parameters.TABLE.items():
        if f"{name}Label" in labels and name not in ("source",):
            assert labels[f"{name}Label"] == item.metadata["label"] + ":"


def test_four_further_settings_are_in_sight_and_the_rest_under_advanced(panel):
    in_advanced = {
        panel.form.advancedForm.itemAt(row, qt.QFormLayout.FieldRole).widget().objectName()
        for row in range(panel.form.advancedForm.rowCount())
    }
    basic = {"method", "prior", "steps", "lam", "seed", "device"}
    engine = set(ReconSettings.__dataclass_fields__)
    assert engine - in_advanced == basic
    assert panel.form.advancedSection.property("collapsed")


@pytest.mark.parametrize("name", sorted(set(Parameters.TABLE) - {"input_file", "task", "preset", "source", "prior"}))
def test_a_widget_writes_its_setting_and_follows_it(ready, name):
    item, editor = Parameters.TABLE[name], ready.fields.editors[name]
    widget, limits, choices = editor.widget, item.metadata["range"], item.metadata["choices"]
    if widget.inherits("QCheckBox"):
        widget.setChecked(not item.default)
        wanted = not item.default
    elif widget.inherits("QComboBox"):
        wanted = editor.values[-1]
        widget.setCurrentIndex(len(editor.values) - 1)
    elif widget.inherits("QLineEdit"):
        wanted = 2**62 if str(item.type) == "int" else "text"
        widget.setText(str(wanted))
        widget.editingFinished.emit()
    else:
        wanted = limits[0] if item.default != limits[0] else limits[1]
        widget.setValue(wanted if widget.inherits("ctkSliderWidget") else type(item.default)(wanted))
    assert ready.parameters.get(name) == pytest.approx(wanted)
    ready.parameters.set(name, item.default)
    assert editor._read() == pytest.approx(item.default)
    assert not choices or item.default in editor.values


@pytest.mark.parametrize("value", [2e-4, 5e-5, 1e-7, 0.0025, 0.16, 10.0, 0.0])
def test_small_numbers_are_shown_in_full_and_not_rounded_away(ready, value):
    ready.parameters.set("lam", value)
    assert ready.form.lam.property("value") == pytest.approx(value, rel=1e-9)
    assert ready.parameters.get("lam") == value
    assert decimals_for(value) <= 10


def test_a_setting_that_is_refused_is_told_and_put_back(ready):
    ready.form.seed.setText("12x")
    ready.form.seed.editingFinished.emit()
    assert text(ready.form.runMessage).startswith("setting seed")
    assert text(ready.form.seed) == "0"
    ready.form.seed.setText("12")
    ready.form.seed.editingFinished.emit()
    assert (text(ready.form.runMessage), ready.parameters.get("seed")) == ("", 12)


def test_rows_follow_task_and_method(ready):
    form, parameters = ready.form, ready.parameters
    assert shown(form.views)
    assert shown(form.steps)
    parameters.set("method", "sirt")
    assert not shown(form.steps)
    assert not shown(form.prior)
    assert shown(ready.fields.editors["sirt_iterations"].widget)
    parameters.set("source", "sinogram")
    assert not shown(form.views)
    assert shown(form.angle_range_deg)
    assert shown(form.referenceNode)


@pytest.mark.skipif(MRI not in Parameters.TABLE["task"].metadata["choices"], reason="no MRI task")
def test_mri_asks_for_acceleration_instead_of_views(ready):
    form = ready.form
    form.task.setCurrentIndex(ready.fields.editors["task"].values.index(MRI))
    assert shown(form.acceleration)
    assert shown(form.acs)
    assert not shown(form.views)
    assert "k-space" in ready.fields.editors["source"].values
    assert "fbp" not in ready.fields.editors["method"].values
    form.task.setCurrentIndex(0)
    assert not shown(form.acceleration)
    assert "k-space" not in ready.fields.editors["source"].values


def test_task_brings_preset_and_scan_and_a_change_is_marked(ready):
    form = ready.form
    form.task.setCurrentIndex(1)
    assert (ready.parameters.get("task"), ready.parameters.get("views")) == ("limited-angle-ct", 90)
    assert form.views.property("value") == 90
    assert form.preset.property("currentText") == "Limited angle"
    ready.parameters.set("lam", 0.5)
    assert form.preset.property("currentText") == "Limited angle (changed)"
    form.preset.activated.emit(0)
    assert form.preset.property("currentText") == "Limited angle"
    assert ready.parameters.settings() == ReconSettings.preset("limited-angle")


def test_tab_order_goes_down_the_panel():
    names = [stop.text for stop in ElementTree.parse(UI).find("tabstops")]
    widgets = {widget.get("name") for widget in ElementTree.parse(UI).iter("widget")}
    assert set(names) <= widgets
    order = [names.index(n) for n in ("source", "task", "views", "preset", "method", "device", "runButton", "log")]
    assert order == sorted(order)


# What is missing, and the estimate.


def test_button_says_what_is_missing_one_after_the_other(panel, new_scene):
    button, line = panel.form.runButton, panel.form.dataSummary
    assert text(button) == "Run: choose a volume first"
    assert not button.isEnabled()
    assert text(line) == texts.no_input("volume")
    labels = new_scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Segment")
    panel.parameters.set_node("input", labels)
    panel.refresh()
    assert text(button) == "Run: this input cannot be used"
    assert "label map" in text(line)
    panel.parameters.set_node("input", ct_volume(new_scene))
    panel.refresh()
    assert text(button) == "Run: the engine is being looked at"
    panel.setup.report = setup.Report("3.12", "", (), ("torch>=2.5",), texts.engine_lacks("torch>=2.5"))
    panel.refresh()
    assert text(button) == "Run: set up the engine first"
    assert "torch>=2.5" in button.toolTip()
    panel.setup.report = setup.Report("3.12", "2.9", (CPU,))
    panel.refresh()
    assert text(button) == "Run: choose a prior first"
    panel.setup.priors = setup.priors()
    panel.refresh()
    assert text(button) == "Run"
    assert button.isEnabled()
    panel.parameters.set("device", "cuda:3")
    assert text(button) == "Run: choose a device first"


def test_a_grid_that_cannot_be_made_coarser_is_told_in_axial_order(ready, new_scene):
    sagittal = ct_volume(new_scene, "Sagittal", (9, 16, 32))  # 9 slices from left to right
    sagittal.SetIJKToRASDirections(0, 0, 1, 1, 0, 0, 0, 1, 0)
    ready.parameters.set_node("input", sagittal)
    ready.parameters.set("coarsen", 2)
    assert text(ready.form.runButton) == "Run: choose another coarser grid first"
    assert "cannot be divided by 2" in ready.form.runButton.toolTip()
    ready.parameters.set("coarsen", 1)
    assert text(ready.form.runButton) == "Run"


@pytest.mark.skipif(MRI not in Parameters.TABLE["task"].metadata["choices"], reason="no MRI task")
def test_mri_is_not_simulated_from_negative_values(ready):
    ready.parameters.choose_task(MRI)
    assert text(ready.form.runButton) == "Run: this input cannot be used"
    assert "down to -1000" in text(ready.form.dataSummary)


def test_a_prior_that_is_not_installed_is_not_replaced_silently(ready):
    ready.parameters.set("prior", "elsewhere")
    assert ready.form.prior.property("currentIndex") == -1
    assert text(ready.form.runButton) == "Run: choose a prior first"
    ready.parameters.set("method", "fbp")
    assert text(ready.form.runButton) == "Run"
    ready.parameters.update({"method": "dds", "prior": "ct-compact-v1"})
    assert text(ready.form.runButton) == "Run"


def test_estimate_before_the_run(ready, new_scene):
    ready.parameters.set_node("input", ct_volume(new_scene, "Large", (180, 256, 256)))
    line = text(ready.form.estimate)
    assert line.startswith("256 x 256 x 180, needs ")
    assert " of 8.0 GB, about " in line
    ready.parameters.set("coarsen", 2)
    assert text(ready.form.estimate).startswith("128 x 128 x 180, needs ")
    small = setup.Device("cuda:0", "small", 500_000_000, 400_000_000)
    ready.setup.report = setup.Report("3.12", "2.9", (small, CPU))
    ready.refresh()
    assert "Only 400.0 MB are free" in text(ready.form.estimate)
    assert ready.form.runButton.isEnabled()  # an estimate may be wrong


# Data.


def test_a_sample_is_loaded_and_chosen(panel, desktop):
    panel.data.sample_buttons[0].click()
    assert desktop.asked == [SAMPLES[0].name]
    assert panel.parameters.input_node.GetName() == SAMPLES[0].name
    assert panel.form.inputNode.currentNode() is panel.parameters.input_node
    assert text(panel.form.dataSummary).startswith("CT volume, 24 x 16 x 4")


def test_samples_are_there_with_the_digest_that_their_notes_tell():
    notes = (SAMPLES[0].path().parent / "README.md").read_text(encoding="utf-8")
    for sample in SAMPLES:
        assert sample.is_intact()
        assert sample.sha256 in notes


def test_a_node_that_is_deleted_is_missed(ready, new_scene):
    new_scene.RemoveNode(ready.parameters.input_node)
    ready.refresh()
    assert text(ready.form.runButton) == "Run: choose a volume first"
    assert ready.form.inputNode.currentNode() is None


def test_a_file_instead_of_a_node_and_back(ready, desktop, tmp_path):
    desktop.file = str(tmp_path / "none.nrrd")
    ready.form.inputFileOpen.click()
    assert shown(ready.form.inputFileName)
    assert not shown(ready.form.inputNode)
    assert text(ready.form.runButton) == "Run: this input cannot be used"
    ready.form.inputFileClear.click()
    assert not shown(ready.form.inputFileName)
    assert text(ready.form.runButton) == "Run"


def fake_engine(folder: Path, answer: str) -> setup.Engine:
    """An engine that says one thing about every file."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
    path.chmod(0o755)
    return setup.Engine((str(path),))


MEASURED = {
    "kind": "measurement", "task": "limited-angle-ct", "views": 90, "grid": [40, 128, 130], "spacing_mm": [1.5, 1.5, 3],
    "remarks": ["angles run backwards"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("source", "found", "line", "usable"),
    [
        (
            "sinogram",
            json.dumps(MEASURED),
            "Limited-angle CT, 130 x 128 x 40, 1.5 x 1.5 x 3 mm, 90 views; angles run backwards",
            True,
        ),
        ("sinogram", json.dumps({**MEASURED, "kind": "k-space"}), texts.other_source("k-space"), False),
        ("sinogram", "error: x.h5: field angles_deg is missing", "error: x.h5: field angles_deg is missing", False),
        ("volume", json.dumps({"kind": "volume", "shape": [4, 5, 6], "spacing_mm": [1, 1, 2]}),
         "Volume file, 6 x 5 x 4, 1 x 1 x 2 mm", True),
    ],
)  # fmt: skip
@pytest.mark.skipif(sys.platform == "win32", reason="shell scripts")
def test_a_file_is_understood_by_the_engine(ready, application, tmp_path, source, found, line, usable):
    file = tmp_path / ("x.h5" if source == "sinogram" else "x.nrrd")
    file.write_bytes(b"\x89HDF\r\n\x1a\n and more")
    ready.setup.engine = fake_engine(tmp_path, found)
    ready.parameters.update({"source": source, "input_file": str(file)})
    wait_for(lambda: not ready.data.busy, application)
    assert text(ready.form.dataSummary) == line
    assert ready.form.runButton.isEnabled() == usable
    if usable and source == "sinogram":
        assert ready.parameters.get("task") == "limited-angle-ct"
        assert text(ready.form.estimate).startswith("130 x 128 x 40")


# A run.


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
    assert runner.paused
    assert text(ready.form.pauseButton) == "Go on"
    assert text(ready.form.progressText) == "Paused"
    ready.form.pauseButton.click()
    assert not runner.paused
    assert text(ready.form.pauseButton) == "Pause"


def test_preview_can_be_changed_while_running(ready, runner):
    ready.form.runButton.click()
    ready.form.preview_on.setChecked(False)
    assert runner.calls[-1] == ("preview", False, 1.0)
    ready.form.preview_interval_s.setValue(5.0)
    assert runner.calls[-1] == ("preview", False, 5.0)


def test_keys_run_and_cancel(ready, runner, application):
    window = qt.QMainWindow()
    window.setCentralWidget(ready.form.root)
    ready.enter(window)
    window.show()
    window.activateWindow()
    wait_for(lambda: qt.QApplication.activeWindow() is window, application)
    from PySide6.QtTest import QTest

    QTest.keyClick(window, qt.Qt.Key_Escape)
    assert runner.calls == []
    QTest.keyClick(window, qt.Qt.Key_Return, qt.Qt.ControlModifier)
    assert runner.calls[0][0] == "start"
    QTest.keyClick(window, qt.Qt.Key_Return, qt.Qt.ControlModifier)
    assert len([c for c in runner.calls if c[0] == "start"]) == 1
    QTest.keyClick(window, qt.Qt.Key_Escape)
    assert runner.calls[-1] == "cancel"
    ready.exit()
    window.takeCentralWidget()


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


# Results.


@pytest.fixture
def done(application, desk, desktop, runner):
    """A panel on a scene with slice views, after a run: its output beside the input."""
    from DiffusionMBIRGui.panel import Panel
    from DiffusionMBIRGui.results import ConvergencePlot, ResultsTable

    from Testing.slicer.host import widgets

    scene = desktop.scene = desk.scene
    root = widgets.load(str(UI))
    panel = Panel(root, scene=scene, desktop=desktop, runner=runner)
    truth, output = ct_volume(scene, "Chest"), ct_volume(scene, "Chest DDS")
    panel.parameters.set_node("input", truth)
    panel.parameters.set_node("output", output)
    ResultsTable(scene).add("Chest DDS", "dds", 72.04, 0.00337, {"axial": {"psnr": 29.07, "ssim": 0.778}})
    runner.plot = ConvergencePlot(scene, "Chest DDS")
    runner.plot.add(1, {"residual": 0.5})
    panel.results.look()
    panel.refresh()
    yield panel
    panel.close()
    root.deleteLater()


def cells(table) -> list[list[str]]:
    return [[table.item(row, c).text() for c in range(table.columnCount())] for row in range(table.rowCount())]


def test_table_shows_each_run_and_follows_the_scene(done):
    from DiffusionMBIRGui.results import ResultsTable

    table = done.form.resultsTable
    assert cells(table) == [["Chest DDS", "dds", "72.0 s", "3.37e-03", "-", "-"]]
    planes = {plane: {"psnr": 30.0, "ssim": 0.9} for plane in ("axial", "coronal", "sagittal")}
    ResultsTable(done.scene).add("Chest FBP", "fbp", 0.4, None, planes)
    assert cells(table)[1] == ["Chest FBP", "fbp", "0.4 s", "-", "30.00", "0.900"]


def test_nothing_can_be_pressed_before_there_is_a_result(ready):
    for name in ("compare", "flicker", "difference", "plot", "export", "report"):
        assert not getattr(ready.form, f"{name}Button").isEnabled(), name


def test_compare_enters_the_own_layout_and_leaves_it(done, desk):
    from DiffusionMBIRGui.compare import LAYOUT

    before = desk.layout.GetViewArrangement()
    done.form.compareButton.click()
    assert desk.layout.GetViewArrangement() == LAYOUT
    assert done.form.compareButton.isChecked()
    done.form.compareButton.click()
    assert desk.layout.GetViewArrangement() == before
    assert not done.form.compareButton.isChecked()


def test_flicker_shows_one_after_the_other(done, desk):
    composite = desk.view("Red").GetSliceCompositeNode()
    shown_ones = []
    for _press in range(3):
        done.form.flickerButton.click()
        shown_ones.append(composite.GetForegroundOpacity())
    assert composite.GetForegroundVolumeID() == done.parameters.output_node.GetID()
    assert composite.GetBackgroundVolumeID() == done.parameters.input_node.GetID()
    assert shown_ones == [0.0, 1.0, 0.0]


def test_difference_is_shown_and_updated_in_place(done, desk):
    done.form.differenceButton.click()
    name = desk.view("Red").GetSliceCompositeNode().GetBackgroundVolumeID()
    assert done.scene.GetNodeByID(name).GetName() == "Chest DDS - Chest"
    count = done.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    done.form.differenceButton.click()
    assert done.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == count


def test_result_and_reference_must_differ(done):
    done.parameters.set_node("output", done.parameters.input_node)
    done.scene.RemoveNode(done.scene.GetFirstNode("Chest DDS", "vtkMRMLScalarVolumeNode"))
    done.refresh()
    done.form.compareButton.click()
    assert "same volume" in text(done.form.runMessage)


def test_the_selected_row_is_what_the_buttons_work_on(done):
    other = ct_volume(done.scene, "Chest FBP")
    from DiffusionMBIRGui.results import ResultsTable

    ResultsTable(done.scene).add("Chest FBP", "fbp", 0.4)
    assert done.results.result() is done.parameters.output_node
    done.form.resultsTable.selectRow(1)
    assert done.results.result() is other


def test_export_happens_beside_and_says_so(done, desktop, application, tmp_path):
    done.form.exportButton.click()
    wait_for(lambda: not done.results.busy, application)
    said, saved = text(done.form.runMessage), Path(desktop.saved)
    pytest.importorskip("SimpleITK")
    assert said == "Exported."
    assert saved.is_file()
    desktop.saved = str(tmp_path / "none" / "x.nrrd")
    done.form.exportButton.click()
    wait_for(lambda: not done.results.busy, application)
    assert text(done.form.runMessage) not in ("", "Exported.")


def test_convergence_is_plotted(done):
    done.form.plotButton.click()
    assert done.scene.GetNumberOfNodesByClass("vtkMRMLPlotChartNode") == 1


# Set-up.


def test_setup_looks_at_a_real_python_and_folds_away_when_ready(panel, desktop, application):
    desktop.python = (sys.executable,)
    panel.enter(panel.form.root)
    assert text(panel.form.engineStatus) == texts.engine_unchecked()
    wait_for(lambda: panel.setup.report is not None, application)
    assert text(panel.form.engineStatus) == panel.setup.report.line()
    assert bool(panel.form.setupSection.property("collapsed")) == panel.setup.report.ready
    assert panel.form.priorList.count() >= 1


def test_another_python_is_remembered_by_the_machine_not_by_the_scene(panel, desktop, application, tmp_path):
    panel.form.engineKind.setCurrentIndex(1)
    panel.form.enginePath.setText(str(tmp_path / "none"))
    panel.form.enginePath.editingFinished.emit()
    assert "is not there" in text(panel.form.engineStatus)
    assert desktop.settings == {"engine_python": str(tmp_path / "none")}
    assert str(tmp_path) not in str(panel.parameters.node)
    panel.form.engineKind.setCurrentIndex(0)
    assert desktop.settings == {"engine_python": ""}
    wait_for(lambda: panel.setup.report is not None, application)


def test_install_asks_first_shows_lines_and_can_be_cancelled(panel, desktop, application, monkeypatch):
    waits = "import sys, time; print('Downloading torch', flush=True); time.sleep(600)"
    monkeypatch.setattr(setup, "install", lambda engine, lacking: setup.Process([sys.executable, "-c", waits], {}))
    panel.setup.engine = setup.Engine((sys.executable,), in_slicer=True)
    panel.setup.report = setup.Report("3.12", "", (), ("torch>=2.5",), texts.engine_lacks("torch>=2.5"))
    panel.setup._show()
    assert shown(panel.form.engineInstall)
    desktop.answer = False
    panel.form.engineInstall.click()
    assert not panel.setup.busy
    desktop.answer = True
    panel.form.engineInstall.click()
    assert "torch>=2.5" in desktop.asked[-1]
    wait_for(lambda: text(panel.form.setupLine) == "Downloading torch", application)
    assert shown(panel.form.setupProgress)
    panel.form.engineCancel.click()
    wait_for(lambda: text(panel.form.setupLine) == "Cancelled.", application)
    assert not shown(panel.form.setupProgress)


# PythonQt: what PySide forgives.

READ_BY_PROPERTY = {
    "text", "value", "checked", "isChecked", "currentIndex", "currentText", "currentData", "toolTip", "enabled",
    "minimum", "maximum", "collapsed", "visible", "objectName", "width", "height", "plainText",
}  # fmt: skip


@pytest.mark.parametrize("path", sorted(GUI.glob("panel*.py")), ids=lambda path: path.name)
def test_no_getter_is_called_that_is_an_attribute_in_pythonqt(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        called = ast.unparse(node.func)
        if called == "item.text":  # of a table's cell, which is no QObject
            continue
        assert node.args or node.func.attr not in READ_BY_PROPERTY, f"{path.name}:{node.lineno}: {called}()"


def test_research_use_only_is_in_sight(panel):
    assert text(panel.form.researchOnly) == "Research use only, not for diagnosis."
    assert shown(panel.form.researchOnly)


@pytest.mark.parametrize("path", sorted(GUI.glob("*.py")), ids=lambda path: path.name)
def test_no_local_name_hides_the_translation(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            names = [a.arg for a in (*node.args.args, node.args.vararg, node.args.kwarg) if a is not None]
            assert "_" not in names, f"{path.name}:{node.lineno}"
