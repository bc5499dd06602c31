"""Settings in the scene: typed, checked, saved with it, and never what a scene must not decide."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
import slicer

from DiffusionMBIRGui.parameters import (
    MODULE,
    PanelSettings,
    Parameters,
    default_of,
    presets_of,
)
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.simulation.settings import scan_settings
from DiffusionMBIRLib.tasks import LIMITED_ANGLE, MR_TASK, SPARSE_VIEW, TASKS, task_info
from DiffusionMBIRLib.usual import ALL_VIEWS, BOUNDED, DISCS, METAL, OBJECT

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def scene():
    return slicer.vtkMRMLScene()


@pytest.fixture
def parameters(scene):
    return Parameters.of(scene)


def events(node) -> Counter:
    count: Counter = Counter()
    node.AddObserver("ModifiedEvent", lambda *_: count.update(["modified"]))
    return count


def test_every_setting_has_words_for_it():
    assert all(item.metadata["label"] and item.metadata["help"] for item in Parameters.TABLE.values())


def test_a_scene_does_not_decide_what_is_started_or_where_it_writes():
    assert not [name for name in Parameters.TABLE if "python" in name or "folder" in name or "command" in name]


def test_fresh_parameters_are_the_defaults(parameters):
    assert parameters.settings() == ReconSettings()
    assert {name: parameters.get(name) for name in asdict(PanelSettings())} == asdict(PanelSettings())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("views", 360),
        ("lam", 1.5e-7),
        ("published", True),
        ("seed", 2**62),
        ("prior", "a b/ä.safetensors"),
        ("input_file", ""),
    ],
)
def test_values_come_back_exactly_with_their_type(parameters, name, value):
    parameters.set(name, value)
    assert parameters.get(name) == value
    assert type(parameters.get(name)) is type(value)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("views", 0, "setting views: 0 lies outside"),
        ("coils", 65, "lies outside"),
        ("views", 3.5, "whole number"),
        ("lam", float("nan"), "setting lam"),
        ("lam", "0.1", "not a number"),
        ("method", "magic", "not one of"),
        ("published", 1, "neither true nor false"),
        ("prior", 5, "setting prior"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(parameters, name, value, says):
    before = parameters.get(name)
    with pytest.raises(InputError, match=says):
        parameters.set(name, value)
    assert parameters.get(name) == before


def test_unknown_names_are_a_programmers_error(parameters):
    with pytest.raises(KeyError):
        parameters.get("veiws")
    with pytest.raises(KeyError):
        parameters.set("veiws", 3)
    with pytest.raises(KeyError):
        parameters.node_of("inptu")


@pytest.mark.parametrize(
    ("name", "text"), [("views", "many"), ("views", "1000000"), ("lam", "nan"), ("published", "yes"), ("task", "magic")]
)
def test_a_damaged_scene_reads_as_the_default(parameters, name, text):
    parameters.node.SetParameter(name, text)
    assert parameters.get(name) == default_of(Parameters.TABLE[name])
    assert parameters.settings() == ReconSettings()


def test_one_event_for_a_change_none_without_one(parameters):
    count = events(parameters.node)
    parameters.set("views", 60)
    assert count["modified"] == 1
    parameters.set("views", 60)
    assert count["modified"] == 1
    parameters.update({"views": 61, "lam": 0.5, "method": "mbir"})
    assert count["modified"] == 2
    with pytest.raises(InputError):
        parameters.update({"views": 62, "lam": -1.0})
    assert (count["modified"], parameters.get("views")) == (2, 61)


def test_presets_keep_prior_seed_and_device(parameters):
    parameters.update({"prior": "mine", "seed": 9, "device": "cpu", "lam": 3.0})
    parameters.apply_preset("limited-angle")
    expected = ReconSettings.preset("limited-angle", prior="mine", seed=9, device="cpu")
    assert parameters.settings() == expected
    assert parameters.follows_preset()
    parameters.set("lam", 0.5)
    assert not parameters.follows_preset()
    parameters.set("lam", expected.lam)
    parameters.set("seed", 10)
    assert parameters.follows_preset()


def test_another_method_brings_its_own_settings_of_the_preset(parameters):
    parameters.choose_task(LIMITED_ANGLE)
    parameters.choose_method("dds")
    assert parameters.settings() == ReconSettings.preset("limited-angle", method="dds")
    parameters.set("cg_steps", 9)  # the user's own choice stays
    parameters.choose_method("dual")
    assert parameters.settings() == ReconSettings.preset("limited-angle", cg_steps=9)
    with pytest.raises(InputError, match="not one of"):
        parameters.choose_method("magic")


def test_what_a_panel_begins_with_is_its_preset(parameters):
    assert parameters.follows_preset()
    assert parameters.settings() == ReconSettings.preset("sparse-view")


def test_a_task_brings_its_scan_and_preset(parameters):
    parameters.choose_task(LIMITED_ANGLE)
    assert (parameters.get("views"), parameters.get("angle_range_deg")) == (90, 90.0)
    assert parameters.get("preset") == "limited-angle"
    assert parameters.settings() == ReconSettings.preset("limited-angle")


def test_a_prior_of_ones_own_stays_among_ct_tasks_only(parameters):
    parameters.set("prior", "mine")
    parameters.choose_task(LIMITED_ANGLE)
    assert parameters.get("prior") == "mine"
    parameters.choose_task(MR_TASK)
    assert parameters.settings() == ReconSettings.preset("mri")
    parameters.choose_task(SPARSE_VIEW)
    assert parameters.settings() == ReconSettings.preset("sparse-view")


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_its_presets(task):
    assert presets_of(task) == task_info(task).presets
    assert len(presets_of(task)) == (3 if task_info(task).of_slices else 4)


def test_every_preset_file_belongs_to_a_task():
    files = {path.stem for path in (ROOT / "Resources" / "Presets").glob("*.toml")}
    of_measured_scans = {OBJECT, ALL_VIEWS, DISCS, BOUNDED, METAL}
    assert files == {name for task in TASKS for name in presets_of(task)} | of_measured_scans


def test_scan_of_a_volume_and_none_of_a_measurement(parameters):
    parameters.update({"views": 12, "photons": 1e5, "electronic_noise": 3.0, "seed": 4})
    scan = parameters.request_scan()
    assert scan.pop("seed") == 4
    assert asdict(scan_settings(SPARSE_VIEW, scan)) == scan
    assert (scan["views"], scan["photons"], scan["electronic_noise"]) == (12, 1e5, 3.0)
    parameters.set("source", "sinogram")
    assert parameters.request_scan() == {}


def test_nodes_are_references_that_follow_the_scene(scene, parameters):
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    parameters.set_node("input", volume)
    assert parameters.input_node is volume
    assert parameters.reference_node is None
    scene.RemoveNode(volume)
    assert parameters.input_node is None
    parameters.set_node("input", None)


@pytest.mark.parametrize("suffix", ["mrml", "mrb"])
def test_a_saved_scene_opens_with_the_same_settings(scene, parameters, desk, tmp_path, suffix):
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    parameters.choose_task(LIMITED_ANGLE)
    parameters.update({"views": 33, "lam": 1e-5, "prior": 'quoted "id" <&>', "input_file": "/a b/ü;|.h5"})
    parameters.set_node("reference", volume)
    kept = {name: parameters.get(name) for name in Parameters.TABLE}
    path = tmp_path / f"scene.{suffix}"
    opened = desk.scene
    if suffix == "mrb":
        scene.SetDataIOManager(desk.scene.GetDataIOManager())
        assert scene.WriteToMRB(str(path))
        assert opened.ReadFromMRB(str(path))
    else:
        scene.SetURL(str(path))
        assert scene.Commit()
        opened.SetURL(str(path))
        opened.Connect()
    found = Parameters.of(opened)
    assert {name: found.get(name) for name in Parameters.TABLE} == kept
    assert found.reference_node.GetName() == "CT"


def test_there_is_one_node_even_after_the_scene_was_emptied(scene, parameters):
    assert Parameters.of(scene).node is parameters.node
    parameters.set("views", 77)
    scene.Clear(0)
    again = Parameters.of(scene)
    assert again.node.GetAttribute("ModuleName") == MODULE
    assert again.get("views") == 8
    assert scene.GetNumberOfNodesByClass("vtkMRMLScriptedModuleNode") == 1


@pytest.mark.parametrize("task", TASKS)
def test_a_task_begins_with_its_usual_scan(parameters, task):
    parameters.choose_task(LIMITED_ANGLE)
    parameters.choose_task(task)
    scan = parameters.request_scan()
    scan.pop("seed")
    assert scan_settings(task, scan) == scan_settings(task)
