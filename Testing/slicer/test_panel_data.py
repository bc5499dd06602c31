"""What the panel says of data, engine and priors before a run, and its set-up."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest_plugins = ("Testing.slicer.host.fixtures",)

import Testing.slicer.host  # noqa: E402, F401 - makes qt importable

# isort: split
from DiffusionMBIRGui import setup, texts  # noqa: E402
from DiffusionMBIRGui.panel_data import BUILT, SAMPLES  # noqa: E402
from DiffusionMBIRGui.plans import plan_of  # noqa: E402
from DiffusionMBIRGui.told import options_of, told_of_file  # noqa: E402
from DiffusionMBIRLib.rates import note  # noqa: E402
from DiffusionMBIRLib.tasks import MR_TASK  # noqa: E402
from Testing.slicer.host.played import CPU, GPU, ct_volume, shown, text, wait_for  # noqa: E402

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
    assert "is not installed" in text(panel.form.estimate)  # above the button, not only in its tool tip
    panel.setup.priors = setup.priors()
    panel.refresh()
    assert text(button) == "Run"
    assert button.isEnabled()
    panel.parameters.set("device", "cuda:3")
    assert text(button) == "Run: choose a device first"
    assert "cuda:3 is not there" in text(panel.form.estimate)


def test_a_neighbour_does_not_take_the_place_of_a_deleted_input(ready, new_scene, application):
    chosen, neighbour = ready.parameters.input_node, ct_volume(new_scene, "Neighbour")
    another = ct_volume(new_scene, "Another")
    ready.form.inputNode.setCurrentNode(neighbour)
    application.processEvents()
    assert ready.parameters.input_node is neighbour  # the user's choice stays
    new_scene.RemoveNode(neighbour)
    ready.form.inputNode.setCurrentNode(another)  # what Slicer's box does meanwhile
    ready.data._drop_neighbour("vtkMRMLScalarVolumeNode77", another)
    assert ready.parameters.input_node is None
    ready.parameters.set_node("input", chosen)
    ready.data._drop_neighbour("vtkMRMLScalarVolumeNode77", another)
    assert ready.parameters.input_node is chosen


def test_the_dialogs_offer_what_the_engine_reads(ready, desktop):
    from DiffusionMBIRLib import formats

    asked = []
    desktop.open_file = lambda title, kinds: asked.append(kinds) or ""
    kinds = {"volume": formats.VOLUME, "sinogram": formats.CT, "k-space": formats.MR}
    for source, holds in kinds.items():
        ready.parameters.update({"task": MR_TASK if source == "k-space" else "sparse-view-ct", "source": source})
        ready.form.inputFileOpen.click()
        assert f"({' '.join(f'*{suffix}' for suffix in formats.suffixes(holds))})" in asked[-1]


def test_k_space_asks_for_a_file_or_a_complex_volume(ready):
    ready.parameters.choose_task(MR_TASK)
    ready.parameters.set("source", "k-space")
    assert text(ready.form.dataSummary).startswith("k-space needs a real and an imaginary component")
    ready.parameters.set_node("input", None)
    assert text(ready.form.runButton) == "Run: choose k-space first"
    assert text(ready.form.dataSummary) == texts.no_input("k-space")


def test_jobs_lie_where_the_machine_says(ready, desktop, runner, tmp_path):
    assert runner.root is None
    desktop.file = str(tmp_path / "elsewhere")
    ready.form.jobsFolderBrowse.click()
    assert text(ready.form.jobsFolder) == desktop.file == desktop.settings["jobs_folder"]
    assert runner.root == tmp_path / "elsewhere"
    ready.form.jobsFolder.setText("")
    ready.form.jobsFolder.editingFinished.emit()
    assert runner.root is None


def test_an_engine_that_is_not_there_opens_the_set_up(ready, desktop):
    ready.form.setupSection.setProperty("collapsed", True)
    desktop.python = ()
    ready.setup.look()
    assert not ready.form.setupSection.property("collapsed")
    assert text(ready.form.runButton) == "Run: set up the engine first"
    assert text(ready.form.estimate) == text(ready.form.engineStatus) != ""


def test_a_grid_that_cannot_be_made_coarser_is_told_in_axial_order(ready, new_scene):
    sagittal = ct_volume(new_scene, "Sagittal", (9, 16, 32))  # 9 slices from left to right
    sagittal.SetIJKToRASDirections(0, 0, 1, 1, 0, 0, 0, 1, 0)
    ready.parameters.set_node("input", sagittal)
    ready.parameters.set("coarsen", 2)
    assert text(ready.form.runButton) == "Run: choose another coarser grid first"
    assert "cannot be divided by 2" in ready.form.runButton.toolTip()
    ready.parameters.set("coarsen", 1)
    assert text(ready.form.runButton) == "Run"


def test_mri_is_not_simulated_from_negative_values(ready):
    ready.parameters.choose_task(MR_TASK)
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


def test_estimate_before_the_run(ready, new_scene, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))  # no pace of earlier runs
    ready.parameters.set_node("input", ct_volume(new_scene, "Large", (180, 256, 256)))
    line = text(ready.form.estimate)
    assert line.startswith("256 x 256 x 180, needs ")
    assert line.endswith(" of 8.0 GB, time not known yet")
    ready.parameters.set("device", "cpu")
    assert text(ready.form.estimate).endswith(" of 16.0 GB, time not known yet")
    for device in (GPU, CPU):  # as a worker notes it
        place, settings = ready.setup.report.place(device), ready.parameters.settings()
        note(place.network_key(settings), 1e-8 if device is GPU else 1e-6)
        note(place.solver_key("sparse-view-ct"), 1e-10)
    ready.refresh()
    low, high = text(ready.form.estimate).rpartition(", ")[2].split(" to ")
    assert low.endswith(" min")  # nothing of this size was run yet: a range
    minutes = 180 * 256 * 256 * ready.parameters.settings().steps * 1e-6 / 60
    assert int(low.split()[0]) <= minutes <= int(high.split()[0])
    ready.parameters.set("coarsen", 2)
    assert text(ready.form.estimate).startswith("128 x 128 x 180, needs ")
    ready.parameters.set("device", "auto")
    small = setup.Device("cuda:0", "small", 500_000_000, 400_000_000)
    ready.setup.report = setup.Report("3.12", "2.9", (small, CPU))
    ready.refresh()
    assert "Only 400.0 MB are free" in text(ready.form.estimate)
    assert ready.form.runButton.isEnabled()  # an estimate may be wrong


# Data.


def press(panel, application, number):
    """A sample's button, until it is loaded."""
    panel.data.sample_buttons[number].click()
    wait_for(lambda: not panel.data.busy, application)


@pytest.mark.parametrize("number", range(len(SAMPLES) + len(BUILT)))
def test_a_sample_is_loaded_beside_and_chosen_with_a_task_that_fits(panel, application, number):
    sample = (*SAMPLES, *BUILT)[number]
    panel.data.sample_buttons[number].click()
    assert text(panel.form.dataSummary) == f"Loading {sample.title()} ..."
    assert panel.parameters.input_node is None  # it is read in a thread
    wait_for(lambda: not panel.data.busy, application)
    node = panel.parameters.input_node
    assert node.GetName() == sample.title()
    assert panel.parameters.get("source") == sample.source
    assert (panel.parameters.get("task") == MR_TASK) == (sample.task == MR_TASK)
    assert text(panel.form.runButton) == "Run: the engine is being looked at"
    assert (panel.parameters.reference_node is not None) == (sample.source != "volume")


def test_a_sample_that_is_there_is_chosen_again_and_not_loaded_twice(panel, new_scene, application):
    press(panel, application, 0)
    first = panel.parameters.input_node
    assert panel.form.inputNode.currentNode() is first
    assert text(panel.form.dataSummary).startswith("CT, 256 x 256 x 40")
    panel.parameters.set_node("input", None)
    panel.data.sample_buttons[0].click()
    assert panel.parameters.input_node is first
    assert not panel.data.busy
    assert new_scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1
    new_scene.RemoveNode(first)
    press(panel, application, 0)
    assert panel.parameters.input_node is not first


def test_a_sample_on_its_way_is_dropped_with_its_scene(panel, new_scene, application):
    panel.data.sample_buttons[0].click()
    panel.on_scene_closing()
    new_scene.Clear(0)
    panel.attach(new_scene)
    assert not panel.data.busy
    assert new_scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0


def test_a_damaged_sample_says_so(panel, application, monkeypatch):
    monkeypatch.setattr("DiffusionMBIRGui.samples.Sample.is_intact", lambda self: False)
    press(panel, application, 0)
    assert "is damaged" in text(panel.form.dataSummary)
    assert panel.data.sample_buttons[0].isEnabled()


def test_a_folder_is_chosen_as_a_file_is(ready, desktop, tmp_path):
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1.dcm").write_bytes(b"x")
    desktop.file = str(tmp_path / "series")
    ready.form.inputFolderOpen.click()
    assert desktop.asked[-1] == "Choose the folder of a DICOM series"
    assert ready.parameters.input_file == desktop.file
    assert shown(ready.form.inputFileName)
    assert not shown(ready.form.inputFolderOpen)
    ready.parameters.update({"task": MR_TASK, "source": "k-space", "input_file": ""})
    assert not shown(ready.form.inputFolderOpen)  # k-space is one file


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
    "kind": "measurement", "task": "limited-angle-ct", "geometry": "parallel-beam", "views": 90, "grid": [40, 128, 130],
    "spacing_mm": [1.5, 1.5, 3], "remarks": ["angles run backwards"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("source", "found", "line", "usable"),
    [
        (
            "sinogram",
            json.dumps(MEASURED),
            "Limited-angle CT, Parallel beam, 130 x 128 x 40, 1.5 x 1.5 x 3 mm, 90 views; angles run backwards",
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


@pytest.mark.skipif(sys.platform == "win32", reason="shell scripts")
def test_what_is_told_of_a_trajectory_goes_to_the_engine(ready, application, tmp_path):
    file = tmp_path / "x.npy"
    file.write_bytes(b"x")
    found = {"kind": "k-space", "task": MR_TASK, "slices": 2, "matrix": [32, 32], "spacing_mm": [2, 2, 5], "coils": 3}
    ready.setup.engine = fake_engine(tmp_path, json.dumps(found | {"geometry": "trajectory-mri"}))
    ready.parameters.choose_task(MR_TASK)
    ready.parameters.update({"source": "k-space", "input_file": str(file), "trajectory_file": "k.npy", "fov_mm": 64.0})
    wait_for(lambda: not ready.data.busy, application)
    told = {"trajectory": "k.npy", "fov_mm": 64.0}
    assert told_of_file(ready.parameters) == told
    assert options_of(told) == ["--trajectory=k.npy", "--fov-mm=64.0"]
    assert ready.fields.editors["trajectory_unit"].widget.isVisibleTo(ready.form.root)
    assert ready.data.geometry == "trajectory-mri"
    request, _ = plan_of(ready.parameters).ask()
    assert {name: request.input[name] for name in told} == told
    ready.parameters.set("source", "volume")
    assert told_of_file(ready.parameters) == {}
    assert not ready.fields.editors["trajectory_unit"].widget.isVisibleTo(ready.form.root)


# Set-up.


def test_setup_looks_at_a_real_python_and_folds_away_when_ready(panel, desktop, application):
    desktop.python = (sys.executable,)
    panel.enter(panel.form.root)
    assert text(panel.form.engineStatus) == texts.engine_unchecked()
    wait_for(lambda: panel.setup.report is not None, application)
    assert text(panel.form.engineStatus) == panel.setup.report.line()
    assert bool(panel.form.setupSection.property("collapsed")) == panel.setup.report.ready
    assert panel.form.priorList.count() >= 1


@pytest.mark.slow
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
    command, asked = [sys.executable, "-c", waits], []
    monkeypatch.setattr(setup, "install", lambda *_what, **how: asked.append(how) or setup.Process(command, {}))
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
    assert asked == [{"build": "", "wheels": ""}]
