"""Slicer's answers to the panel's questions: real dialogs of Qt, which the test fills in as a user does."""

from __future__ import annotations

import pytest

pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest_plugins = ("Testing.slicer.host.fixtures",)

import Testing.slicer.host  # noqa: E402, F401 - makes qt importable

# isort: split
import qt  # noqa: E402

from DiffusionMBIRGui.panel_desktop import SlicerDesktop, with_ending  # noqa: E402
from Testing.slicer.host import module_base  # noqa: E402
from Testing.slicer.host.played import PlayedDesktop  # noqa: E402


@pytest.fixture
def slicers(application, new_scene):
    with module_base.application(new_scene):
        yield SlicerDesktop()


def answer(words: str | None) -> None:
    """Once the dialog is there: type the words over what it suggests and accept it; None leaves it."""

    def act() -> None:
        dialog = qt.QApplication.activeModalWidget()
        if dialog is not None and words is not None:
            dialog.findChild(qt.QLineEdit).setText(words)
            dialog.accept()
        elif dialog is not None:
            dialog.reject()

    qt.QTimer.singleShot(100, act)


@pytest.mark.filterwarnings("ignore:'exec_' will be removed")  # PythonQt's name
def test_a_text_that_is_asked_for_is_what_the_user_typed(slicers):
    answer("Lunge s\u00fc\u00df")
    assert slicers.ask_text("Name of the preset:", "My preset") == "Lunge s\u00fc\u00df"
    answer(None)
    assert slicers.ask_text("Name of the preset:", "My preset") == ""


def test_files_that_are_asked_for(slicers, tmp_path):
    (tmp_path / "there.json").write_text("{}")
    answer(str(tmp_path / "there.json"))
    assert slicers.open_file("Choose", "Presets (*.json)") == str(tmp_path / "there.json")
    answer(str(tmp_path / "new.json"))
    assert slicers.save_file("Share", "x.json", "Presets (*.json)") == str(tmp_path / "new.json")
    answer(None)
    assert slicers.save_file("Share", "x.json", "Presets (*.json)") == ""


def test_an_ending_is_added_once_and_asks_before_it_meets_another_file(tmp_path):
    desktop, name = PlayedDesktop(tmp_path), str(tmp_path / "Chest CT 0.8 mm")
    assert with_ending(desktop, "", ".nrrd") == ""
    assert with_ending(desktop, name, ".nrrd") == f"{name}.nrrd"
    assert with_ending(desktop, f"{name}.NRRD", ".nrrd") == f"{name}.NRRD"
    (tmp_path / "Chest CT 0.8 mm.nrrd").write_text("")
    assert desktop.asked == []
    desktop.answer = False
    assert with_ending(desktop, name, ".nrrd") == ""
    assert desktop.asked == [f"Replace {name}.nrrd?"]
