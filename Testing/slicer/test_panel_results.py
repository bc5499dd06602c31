"""The panel's results: table, comparison, difference, export, on a scene with slice views."""

from __future__ import annotations

import pytest

pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest_plugins = ("Testing.slicer.host.fixtures",)

import Testing.slicer.host  # noqa: E402, F401 - makes qt importable

# isort: split

import slicer  # noqa: E402

from DiffusionMBIRGui.volumes import voxels  # noqa: E402
from Testing.slicer.host.played import UI, ct_volume, shown, text, wait_for  # noqa: E402


def hierarchy_of(scene):
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)


@pytest.fixture
def done(application, desk, desktop, runner):
    """A panel on a scene with slice views, after a run: its output beside the input."""
    from DiffusionMBIRGui.panel import Panel
    from DiffusionMBIRGui.results import ConvergencePlot, ResultsTable
    from Testing.slicer.host import widgets

    scene = desktop.scene = desk.scene
    root = widgets.load(str(UI))
    panel = Panel(root, scene=scene, desktop=desktop, runner=runner)
    truth, output = ct_volume(scene, "Chest"), ct_volume(scene, "Chest, 20 steps")
    panel.parameters.set_node("input", truth)
    panel.parameters.set_node("output", output)
    ResultsTable(scene).add("Chest, 20 steps", "dds", 72.04, 0.00337, {"axial": {"psnr": 29.07, "ssim": 0.778}})
    runner.plot = ConvergencePlot(scene, "Chest, 20 steps")
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
    assert cells(table) == [["Chest, 20 steps", "dds", "72.0 s", "3.37e-03", "-", "-"]]
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


def test_difference_is_a_toggle_with_a_scale(done, desk, application):
    composite = desk.view("Red").GetSliceCompositeNode()
    composite.SetBackgroundVolumeID(done.parameters.output_node.GetID())
    voxels(done.parameters.output_node)[:2] += 300
    for _turn in range(2):
        done.form.differenceButton.click()
        assert not done.form.differenceButton.isEnabled()  # it is computed beside
        wait_for(lambda: not done.results.busy, application)
        assert done.form.differenceButton.isEnabled()
        assert done.form.differenceButton.isChecked()
        assert text(done.form.runMessage) == ""
        found = done.scene.GetNodeByID(composite.GetBackgroundVolumeID())
        assert found.GetName() == "Chest, 20 steps - Chest"
        assert shown(done.form.differenceBar)
        assert (text(done.form.differenceLow), text(done.form.differenceHigh)) == ("-300 HU", "+300 HU")
        count = done.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
        done.form.differenceButton.click()
        assert composite.GetBackgroundVolumeID() == done.parameters.output_node.GetID()
        assert not done.form.differenceButton.isChecked()
        assert not shown(done.form.differenceBar)
    assert done.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == count


def test_compare_and_flicker_end_a_difference(done, desk, application):
    for button in ("flickerButton", "compareButton"):
        done.form.differenceButton.click()
        wait_for(lambda: not done.results.busy, application)
        assert done.results.shows_difference
        getattr(done.form, button).click()
        assert not done.results.shows_difference


def test_a_reference_on_another_grid_is_compared_on_that_of_the_result(done, desk, application):
    """As PSNR is; otherwise a coarse result would stand beside detail that nobody asked of it."""
    fine = ct_volume(done.scene, "Fine", (4, 32, 48))
    fine.SetSpacing(0.35, 0.35, 3.0)
    fine.SetOrigin(0.175, 0.175, 0.0)  # voxels of half the size fill those of the result
    done.parameters.set_node("input", fine)
    done.form.compareButton.click()
    wait_for(lambda: not done.results.busy, application)
    shown_one = done.results._regridded
    assert voxels(shown_one).shape == voxels(done.parameters.output_node).shape
    assert shown_one.GetName() == "Fine on the result's grid, 24 x 16 x 4"
    assert "on which PSNR and SSIM are taken" in text(done.form.runMessage)
    done.form.compareButton.click()
    assert shown_one.GetScene() is None  # it goes with the comparison


def test_a_row_is_compared_with_what_its_run_knew_of(done):
    from DiffusionMBIRGui.scene import REFERENCE

    done.parameters.output_node.SetNodeReferenceID(REFERENCE, done.parameters.input_node.GetID())
    truth = done.parameters.input_node
    done.parameters.set_node("input", ct_volume(done.scene, "Another"))
    assert done.results.reference() is truth


def test_what_cannot_be_pressed_says_why(done, runner):
    form = done.form
    assert not shown(form.resultsWhy)
    done.parameters.set("source", "sinogram")
    assert text(form.resultsWhy).endswith("choose a known volume as Compare with, under Data.")
    assert not form.compareButton.isEnabled()
    done.parameters.set("source", "volume")
    runner.running = True
    done.refresh()
    assert "wait for the end" in text(form.resultsWhy)
    runner.running = False
    table = form.resultsTable
    assert table.item(0, 4).toolTip().startswith("Not known: this run had no volume to be judged by")
    done.parameters.set_node("output", None)
    done.scene.RemoveNode(done.scene.GetFirstNode("Chest, 20 steps", "vtkMRMLScalarVolumeNode"))
    done.refresh()
    assert text(form.resultsWhy) == "Results appear here after a run."


def test_a_difference_that_comes_after_the_scene_was_closed_is_dropped(done, application):
    done.form.differenceButton.click()
    done.results.set_scene(done.scene)
    done.scene.Clear(0)
    wait_for(lambda: not done.results.busy, application)
    assert done.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0


def test_result_and_reference_must_differ(done):
    done.parameters.set_node("output", done.parameters.input_node)
    done.scene.RemoveNode(done.scene.GetFirstNode("Chest, 20 steps", "vtkMRMLScalarVolumeNode"))
    done.refresh()
    assert not done.form.compareButton.isEnabled()
    assert "same volume" in text(done.form.resultsWhy)


def test_the_selected_row_is_what_the_buttons_work_on(done):
    other = ct_volume(done.scene, "Chest FBP")
    from DiffusionMBIRGui.results import ResultsTable

    ResultsTable(done.scene).add("Chest FBP", "fbp", 0.4)
    assert done.results.result() is done.parameters.output_node
    done.form.resultsTable.selectRow(1)
    assert done.results.result() is other


def exported(done, kind, application) -> str:
    """What is said once an entry of the menu was chosen and is done."""
    done.results.export.actions[kind].trigger()
    wait_for(lambda: not done.results.busy, application)
    return text(done.form.runMessage)


def test_a_row_means_its_volume_whatever_that_is_called_and_no_other_once_it_is_deleted(done):
    from DiffusionMBIRGui.results import ResultsTable

    first, second = (ct_volume(done.scene, f"Run {letter}") for letter in "AB")
    table, rows = done.form.resultsTable, ResultsTable(done.scene)
    for node in (first, second):
        rows.add(node.GetName(), "dual", 1.0, volume=node)
    table.selectRow(1)
    first.SetName("My best")
    ct_volume(done.scene, "Run A")  # another one takes its name
    done.refresh()
    assert done.results.result() is first
    assert table.item(1, 0).text() == "My best"
    done.scene.RemoveNode(first)
    done.refresh()
    assert done.results.result() is None
    assert "no longer in the scene" in done.results.why_not()
    assert not done.form.exportButton.isEnabled()
    assert not done.form.compareButton.isEnabled()
    table.selectRow(2)
    assert done.results.result() is second
    rows.clear()
    rows.add("Run A", "dual", 1.0)  # of a scene from before rows had references
    assert rows.volume(0).GetName() == "Run A"


def test_another_row_ends_the_comparison_of_the_one_before(done, desk):
    from DiffusionMBIRGui.results import ResultsTable

    ResultsTable(done.scene).add("FBP", "fbp", 0.4, volume=ct_volume(done.scene, "FBP"))
    done.form.resultsTable.selectRow(0)
    done.form.compareButton.click()
    assert done.form.compareButton.isChecked()
    done.form.resultsTable.selectRow(1)
    assert not done.form.compareButton.isChecked()


def test_a_scene_that_closes_while_comparing_gives_the_layout_back(done, desk, application):
    from DiffusionMBIRGui.compare import LAYOUT

    fine = ct_volume(done.scene, "Fine", (4, 32, 48))
    fine.SetSpacing(0.35, 0.35, 3.0)
    fine.SetOrigin(0.175, 0.175, 0.0)
    done.parameters.set_node("input", fine)
    conventional = slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView
    desk.layout.SetViewArrangement(conventional)
    done.form.compareButton.click()
    wait_for(lambda: not done.results.busy, application)
    assert desk.layout.GetViewArrangement() == LAYOUT
    done.on_scene_closing()
    assert desk.layout.GetViewArrangement() == conventional
    done.scene.Clear(False)
    done.attach(done.scene)
    assert not done.form.compareButton.isChecked()
    assert not done.form.compareButton.isEnabled()


def test_a_scene_that_is_added_while_comparing_loses_neither_layout_nor_helpers(done, desk, application):
    from DiffusionMBIRGui.compare import LAYOUT

    conventional = slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView
    desk.layout.SetViewArrangement(conventional)
    done.form.compareButton.click()
    assert desk.layout.GetViewArrangement() == LAYOUT
    done.attach(done.scene)  # as after an import
    assert desk.layout.GetViewArrangement() == conventional
    assert not done.form.compareButton.isChecked()


@pytest.mark.parametrize("chosen", ["x.nrrd", "no ending", "x.dcm"])
def test_export_as_nrrd_is_nrrd_whatever_the_name(done, desktop, application, tmp_path, chosen):
    desktop.saved = str(tmp_path / chosen)
    said = exported(done, "nrrd", application)
    path = tmp_path / (chosen if chosen.endswith(".nrrd") else f"{chosen}.nrrd")
    assert path.read_bytes().startswith(b"NRRD")
    assert said == f"Exported as {path}."
    desktop.saved = str(tmp_path / "none" / "x.nrrd")
    assert "does not exist" in exported(done, "nrrd", application)


def test_export_as_dicom_is_a_series_in_a_new_folder_and_in_the_database(done, desktop, application, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    desktop.file = str(tmp_path)
    for folder in (tmp_path / "Chest, 20 steps", tmp_path / "Chest, 20 steps 2"):
        said = exported(done, "anonymous", application)
        files = sorted(folder.iterdir())
        assert len(files) == 4
        assert str(pydicom.dcmread(files[0]).PatientName) == "Anonymous"
        assert said.startswith("Exported 4 images as an anonymous series, a study of its own: ")
        assert said.endswith("They are in Slicer's DICOM database.")
        assert desktop.indexed[-1] == str(folder)


def test_export_into_the_patients_study_is_offered_where_there_is_one(done, desktop, application, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    export, hierarchy = done.results.export, hierarchy_of(done.scene)
    export.show()
    assert not export.actions["study"].isEnabled()
    study = hierarchy.CreateStudyItem(hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Doe"), "study")
    hierarchy.SetItemAttribute(study, "DICOM.PatientName", "Doe^Jane")
    hierarchy.SetItemAttribute(study, "DICOM.StudyInstanceUID", "1.2.3.4")
    hierarchy.CreateItem(study, done.parameters.output_node)
    export.show()
    assert export.actions["study"].isEnabled()
    desktop.file = str(tmp_path)
    said = exported(done, "study", application)
    header = pydicom.dcmread(tmp_path / "Chest, 20 steps" / "slice0001.dcm")
    assert (header.PatientName, header.StudyInstanceUID) == ("Doe^Jane", "1.2.3.4")
    assert "the patient's study" in said


def test_a_result_of_a_dicom_folder_goes_into_the_folders_study(done, desktop, application, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    desktop.file = str(tmp_path)
    exported(done, "anonymous", application)
    series = tmp_path / "Chest, 20 steps"
    for path in series.iterdir():
        header = pydicom.dcmread(path)
        header.PatientName = "Doe^Jane"
        header.save_as(path)
    done.parameters.update({"input_file": str(series)})
    done._on_job()  # a run has ended
    exported(done, "study", application)
    made = pydicom.dcmread(tmp_path / "Chest, 20 steps 2" / "slice0001.dcm")
    assert made.PatientName == "Doe^Jane"
    assert made.StudyInstanceUID == header.StudyInstanceUID
    assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == header.SeriesInstanceUID


def test_convergence_is_plotted(done):
    done.form.plotButton.click()
    assert done.scene.GetNumberOfNodesByClass("vtkMRMLPlotChartNode") == 1


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
