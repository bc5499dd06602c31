"""Presets of the user's own: saved, renamed, shared, carried by the scene; and files that are none."""

from __future__ import annotations

import json

import pytest

from DiffusionMBIRGui.own_presets import OwnPresets, preset_of, read_preset, read_preset_file
from DiffusionMBIRGui.parameters import Parameters
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.tasks import LIMITED_ANGLE, SPARSE_VIEW
from Testing.slicer.helpers import Desk

SETTINGS = ReconSettings(steps=33, lam=0.01, seed=5, device="cpu")


@pytest.fixture(autouse=True)
def _data_of_this_test(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "data"))


@pytest.fixture
def parameters(desk: Desk) -> Parameters:
    return Parameters.of(desk.scene)


def test_a_preset_holds_what_does_not_belong_to_the_machine(parameters):
    preset = preset_of("  Lung,  fine ", SPARSE_VIEW, SETTINGS)
    assert preset.name == "Lung, fine"
    assert preset.values["steps"] == 33
    assert not {"seed", "device", "precision", "slices_per_batch"} & set(preset.values)
    assert "prior" not in preset_of("x", SPARSE_VIEW, ReconSettings(prior="/home/me/x.safetensors")).values
    assert read_preset(preset.to_json()) == preset


def test_a_preset_is_applied_and_followed_as_any_other(parameters):
    parameters.update({"seed": 7, "steps": 44})
    preset = preset_of("mine", SPARSE_VIEW, SETTINGS)
    parameters.own_presets.keep(preset)
    parameters.apply_preset(preset.key)
    assert (parameters.get("steps"), parameters.get("lam"), parameters.get("seed")) == (33, 0.01, 7)
    assert parameters.follows_preset()
    assert parameters.preset_settings(preset.key).steps == 33
    parameters.set("steps", 34)
    assert not parameters.follows_preset()


def test_presets_stay_on_the_machine_and_travel_in_the_scene(desk: Desk, parameters, tmp_path, monkeypatch):
    preset = preset_of("Ünterwegs / now", SPARSE_VIEW, SETTINGS)
    parameters.own_presets.keep(preset)
    assert list(parameters.own_presets.of(SPARSE_VIEW)) == ["own/Ünterwegs / now"]
    assert parameters.own_presets.of(LIMITED_ANGLE) == {}
    parameters.apply_preset(preset.key)
    assert desk.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    desk.scene.Clear(False)
    again = Parameters.of(desk.scene)
    assert again.own_presets.find(preset.key) == preset  # of the machine
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "another machine"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "another machine"))
    assert again.own_presets.find(preset.key) is None
    other = desk.reopened(tmp_path / "scene.mrb")
    opened = Parameters.of(other.scene)
    assert opened.own_presets.find(preset.key) == preset
    assert opened.follows_preset()
    other.close()


def test_a_preset_is_renamed_and_dropped_everywhere(parameters):
    own = parameters.own_presets
    for name in ("one", "two"):
        own.keep(preset_of(name, SPARSE_VIEW, SETTINGS))
    with pytest.raises(InputError, match="There is a preset two already"):
        own.rename(own.find("own/one"), "two")
    renamed = own.rename(own.find("own/one"), "three")
    assert list(own.of(SPARSE_VIEW)) == ["own/three", "own/two"]
    own.drop(renamed)
    assert list(OwnPresets(parameters.node).of(SPARSE_VIEW)) == ["own/two"]
    assert len(list(own.folder.iterdir())) == 1


def test_no_two_names_are_one_file_where_case_does_not_count(parameters):
    """As on Windows and macOS; and a name of any 60 letters is short enough for a file."""
    own, names = parameters.own_presets, ("Lung", "lung", "LUNG", "Lung/", "CON", "\u4e2d" * 60, "L" * 60)
    for name in names:
        own.keep(preset_of(name, SPARSE_VIEW, SETTINGS))
    files = [path.name for path in own.folder.iterdir()]
    assert len({name.casefold() for name in files}) == len(names)
    assert max(map(len, files)) < 120
    own.rename(own.find("own/Lung"), "lunG")
    assert set(OwnPresets(parameters.node).of(SPARSE_VIEW)) == {f"own/{name}" for name in (*names[1:], "lunG")}
    own.rename(own.find("own/lunG"), "lunG")  # to what it is called
    assert own.find("own/lunG") is not None


def test_a_file_that_was_put_into_the_folder_by_hand_is_dropped_as_well(parameters):
    own = parameters.own_presets
    own.folder.mkdir(parents=True)
    (own.folder / "from a colleague.mbirpreset.json").write_text(preset_of("Lung", SPARSE_VIEW, SETTINGS).to_json())
    own.drop(own.find("own/Lung"))
    assert list(own.folder.iterdir()) == []


def changed(**changes) -> str:
    return json.dumps({**json.loads(preset_of("mine", SPARSE_VIEW, SETTINGS).to_json()), **changes})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "no preset of DiffusionMBIR"),
        ("[1, 2]", "no preset of DiffusionMBIR"),
        ("[" * 100_000, "no preset of DiffusionMBIR"),
        (changed(format="DiffusionMBIR preset 2"), "or one of a newer version"),
        (changed(task="ultrasound"), "no preset of DiffusionMBIR"),
        (changed(name=" "), "needs a name"),
        (changed(name=["x"]), "needs a name"),
        (changed(name="x" * 61), "at most 60 characters"),
        (changed(settings=7), "no preset of DiffusionMBIR"),
        (changed(settings={"device": "cuda:9"}), "not known here: device"),
        (changed(settings={"steps": 0}), "setting steps"),
        (changed(settings={"steps": "many"}), "setting steps"),
    ],
)
def test_a_file_that_is_no_preset_is_refused_in_one_line(parameters, tmp_path, text, line):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=line) as refused:
        read_preset_file(tmp_path / "x.json")
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("x.json: ")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(InputError, match="^x.json: This is no preset"):
        read_preset_file(tmp_path / "x.json")
    with pytest.raises(InputError, match="^gone.json: No such file"):
        read_preset_file(tmp_path / "gone.json")


def test_a_file_from_an_editor_that_marks_its_encoding_is_read(tmp_path):
    preset = preset_of("Lunge s\u00fc\u00df", SPARSE_VIEW, SETTINGS)
    (tmp_path / "x.json").write_text(preset.to_json(), encoding="utf-8-sig")
    assert read_preset_file(tmp_path / "x.json").name == preset.name


def test_a_damaged_scene_or_folder_still_opens(parameters):
    own = parameters.own_presets
    own.keep(preset_of("sound", SPARSE_VIEW, SETTINGS))
    (own.folder / "damaged.mbirpreset.json").write_bytes(b"\xff\xfe{")
    for text in ("{", "7", '["{", 7, null]'):
        parameters.node.SetParameter(OwnPresets.PARAMETER, text)
        assert list(own.of(SPARSE_VIEW)) == ["own/sound"]
