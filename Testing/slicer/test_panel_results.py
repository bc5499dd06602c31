"""The panel's results: table, comparison, difference, export, on a scene with slice views."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest_plugins = ("Testing.slicer.host.fixtures",)

import Testing.slicer.host  # noqa: E402, F401 - makes qt importable

# isort: split

from DiffusionMBIRGui import setup  # noqa: E402
from Testing.slicer.host.played import CPU, UI, ct_volume, text, wait_for  # noqa: E402


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


def test_difference_is_shown_and_updated_in_place(done, desk, application):
    done.form.differenceButton.click()
    assert not done.form.differenceButton.isEnabled()  # it is computed beside
    wait_for(lambda: not done.results.busy, application)
    assert done.form.differenceButton.isEnabled()
    assert text(done.form.runMessage) == ""
    name = desk.view("Red").GetSliceCompositeNode().GetBackgroundVolumeID()
    assert done.scene.GetNodeByID(name).GetName() == "Chest DDS - Chest"
    count = done.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    done.form.differenceButton.click()
    wait_for(lambda: not done.results.busy, application)
    assert done.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == count


def test_a_difference_that_comes_after_the_scene_was_closed_is_dropped(done, application):
    done.form.differenceButton.click()
    done.results.set_scene(done.scene)
    done.scene.Clear(0)
    wait_for(lambda: not done.results.busy, application)
    assert done.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0


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


def test_a_finished_run_keeps_its_volume_when_the_next_one_begins(done, runner):
    done.setup.engine = setup.Engine((sys.executable,), in_slicer=True)
    done.setup.report, done.setup.priors = setup.Report("3.12", "2.9", (CPU,)), setup.priors()
    done.refresh()
    former = done.parameters.output_node
    done.form.runButton.click()
    assert runner.running
    assert done.parameters.output_node is None
    assert former.GetScene() is done.scene


def test_long_names_never_push_figures_out_of_sight(done, application):
    from DiffusionMBIRGui.results import ResultsTable

    name = "A chest of a rather long name " * 3
    planes = {plane: {"psnr": 29.88, "ssim": 0.775} for plane in ("axial", "coronal", "sagittal")}
    ResultsTable(done.scene).add(name, "score-ct", 1094.0, 3.38e-3, planes)
    table = done.form.resultsTable
    done.form.root.resize(420, 1400)
    done.form.root.show()
    application.processEvents()
    assert table.horizontalScrollBar().maximum() == 0
    assert table.item(1, 0).toolTip() == name.strip()
