"""The preset's row: what each takes, and the menu for the user's own."""

from __future__ import annotations

import subprocess

import pytest

pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest_plugins = ("Testing.slicer.host.fixtures",)

import Testing.slicer.host  # noqa: E402, F401 - makes qt importable

# isort: split
from DiffusionMBIRGui import setup  # noqa: E402
from DiffusionMBIRGui.own_presets import preset_of  # noqa: E402
from DiffusionMBIRGui.parameters import presets_of  # noqa: E402
from DiffusionMBIRGui.texts import preset_title  # noqa: E402
from DiffusionMBIRLib.config import ReconSettings  # noqa: E402
from DiffusionMBIRLib.rates import note  # noqa: E402
from DiffusionMBIRLib.tasks import LIMITED_ANGLE, SPARSE_VIEW, TASKS  # noqa: E402
from Testing.slicer.host.played import CPU, text, wait_for  # noqa: E402
from Testing.slicer.jobs_helpers import engine, environment, small_prior  # noqa: E402


@pytest.fixture(autouse=True)
def _data_of_this_test(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "data"))


def entries(panel) -> list[str]:
    box = panel.form.preset
    return [box.itemText(index) for index in range(box.count())]


def choose(panel, name) -> None:
    panel.presets.show()
    assert panel.presets.actions[name].isEnabled()
    panel.presets.actions[name].trigger()


@pytest.mark.parametrize("task", TASKS)
def test_the_presets_of_a_task_have_titles_of_their_own(task):
    titles = [preset_title(name, task) for name in presets_of(task)]
    assert len(set(titles)) == len(titles)
    assert all(titles)
    assert not any(task.split("-")[0] in title.lower() for title in titles)


def test_each_preset_says_what_it_takes(ready):
    """Steps as long as nothing was measured on this machine, its time from then on."""
    assert all(entry.endswith(" steps") for entry in entries(ready))
    place, settings = ready.setup.report.place(ready.outlook.device), ready.parameters.settings()
    note(place.network_key(settings), 1e-7)
    note(place.solver_key(SPARSE_VIEW), 1e-10)
    ready.refresh()
    titles = dict(zip(presets_of(SPARSE_VIEW), entries(ready), strict=True))
    assert titles["sparse-view-quick"].startswith("Quick, ")
    assert all("steps" not in entry for entry in entries(ready))


def test_saved_renamed_shared_deleted_and_loaded(ready, desktop, tmp_path):
    ready.parameters.set("lam", 0.02)
    desktop.text = "Lung"
    choose(ready, "save")
    assert text(ready.form.runMessage) == ""
    assert ready.parameters.get("preset") == "own/Lung"
    assert ready.form.preset.property("currentText").startswith("Lung, ")
    ready.parameters.set("lam", 0.5)
    assert ready.form.preset.property("currentText") == "Lung (changed)"
    desktop.text = "Fine lung"
    choose(ready, "rename")
    assert ready.parameters.get("preset") == "own/Fine lung"
    desktop.saved = str(tmp_path / "shared")
    choose(ready, "share")
    choose(ready, "delete")
    assert ready.parameters.get("preset") == presets_of(SPARSE_VIEW)[0]
    assert not any("lung" in entry.lower() for entry in entries(ready))
    desktop.file = str(tmp_path / "shared.mbirpreset.json")
    choose(ready, "load")
    assert ready.parameters.get("preset") == "own/Fine lung"
    assert ready.parameters.get("lam") == 0.02
    ready.presets.show()
    ready.parameters.apply_preset(presets_of(SPARSE_VIEW)[0])
    ready.presets.show()
    assert not ready.presets.actions["delete"].isEnabled()  # those of the extension stay


def test_a_preset_is_not_replaced_unasked_and_one_of_another_task_says_so(ready, desktop, tmp_path):
    desktop.text = "Mine"
    choose(ready, "save")
    ready.parameters.set("steps", 77)
    desktop.answer = False
    choose(ready, "save")
    assert "Replace the preset Mine?" in desktop.asked
    assert ready.parameters.own_presets.find("own/Mine").values["steps"] != 77
    desktop.saved = desktop.file = str(tmp_path / "x.json")
    ready.parameters.apply_preset("own/Mine")
    choose(ready, "share")
    ready.parameters.choose_task(LIMITED_ANGLE)
    choose(ready, "load")
    assert "is for the task Sparse-view CT" in text(ready.form.runMessage)
    (tmp_path / "x.json").write_text("{")
    choose(ready, "load")
    assert text(ready.form.runMessage).startswith("x.json: This is no preset of DiffusionMBIR")


def test_a_colleagues_preset_of_the_same_name_replaces_mine_only_where_i_say_so(ready, desktop, tmp_path):
    desktop.text, desktop.saved = "Lung", str(tmp_path / "lung.json")
    ready.parameters.set("steps", 77)
    choose(ready, "save")
    choose(ready, "share")
    assert text(ready.form.runMessage).endswith(str(tmp_path / "lung.json"))
    desktop.file = desktop.saved
    choose(ready, "load")  # the very same: nothing to ask
    assert not any("Replace" in question for question in desktop.asked)
    ready.parameters.set("steps", 33)
    choose(ready, "save")
    desktop.answer = False
    choose(ready, "load")
    assert desktop.asked[-1] == "Replace the preset Lung?"
    assert ready.parameters.own_presets.find("own/Lung").values["steps"] == ready.parameters.get("steps") == 33
    desktop.answer = True
    choose(ready, "load")
    assert ready.parameters.own_presets.find("own/Lung").values["steps"] == ready.parameters.get("steps") == 77


def test_a_colleagues_prior_that_is_not_here_is_told_and_no_trap(ready, desktop, tmp_path):
    """The presets of the extension keep the prior that was chosen; one that cannot run is not kept."""
    shared = preset_of("Theirs", SPARSE_VIEW, ReconSettings(prior="their-own-v3"))
    (tmp_path / "x.json").write_text(shared.to_json())
    desktop.file = str(tmp_path / "x.json")
    choose(ready, "load")
    assert text(ready.form.runButton) == "Run: choose a prior first"
    box = ready.form.preset
    box.setCurrentIndex(0)
    box.activated.emit(0)
    assert ready.parameters.get("preset") == presets_of(SPARSE_VIEW)[0]
    assert text(ready.form.runMessage) == "Prior their-own-v3 is not installed: ct-compact-v1 is taken."
    assert text(ready.form.runButton) == "Run"


def test_a_name_without_its_ending_does_not_write_over_another_file(ready, desktop, tmp_path):
    """The dialog asked about NAME; what would be written is NAME.mbirpreset.json."""
    desktop.text, desktop.saved, other = "Lung", str(tmp_path / "a"), tmp_path / "a.mbirpreset.json"
    choose(ready, "save")
    other.write_text("mine")
    desktop.answer = False
    choose(ready, "share")
    assert desktop.asked[-1] == f"Replace {other}?"
    assert other.read_text() == "mine"
    desktop.answer = True
    choose(ready, "share")
    assert "Lung" in other.read_text()


def machine_of(chosen) -> str:
    """What the engine calls this machine, as looking at it tells."""
    code = "from DiffusionMBIRLib.pace import machine; print(machine())"
    return subprocess.check_output([*chosen.command, "-c", code], env=chosen.variables(), text=True).strip()


@pytest.mark.slow
def test_the_pace_is_measured_beside_before_the_first_run(ready, runner, application, tmp_path):
    """And not while a run takes place, whose time it would spoil."""
    ready.pace.enabled = True
    ready.setup.engine = setup.Engine(engine(), environment(tmp_path))
    ready.setup.report = setup.Report("3.12", "2.9", (CPU,), machine=machine_of(ready.setup.engine))
    ready.parameters.update({"prior": str(small_prior(tmp_path)), "device": "cpu"})
    wait_for(lambda: not ready.pace.busy, application)
    assert all("steps" not in entry for entry in entries(ready))
    assert "not known" not in text(ready.form.estimate)
    ready.parameters.set("precision", "float32")  # another pace
    assert ready.pace.busy
    ready.form.runButton.click()
    assert not ready.pace.busy
