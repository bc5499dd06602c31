"""The preset's row: what each preset takes, and the menu for presets of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.names import as_file_name

from . import texts
from .own_presets import OWN, SUFFIX, OwnPreset, preset_of, read_preset_file
from .panel_desktop import Desktop, with_ending
from .parameters import Parameters, presets_of
from .texts import _

Effort = Callable[[str], str]  # 'about 40 s', '20 steps': what a preset takes


class PresetMenu:
    """Save, rename, delete, share and load; ``report(line)`` says what went wrong."""

    def __init__(self, button: Any, parameters: Parameters, desktop: Desktop, report: Callable[[str], None]) -> None:
        self.parameters, self._desktop, self._report = parameters, desktop, report
        self._menu = qt.QMenu(button)
        self.actions = {
            name: self._action(title, act)
            for name, title, act in (
                ("save", _("Save these settings as a preset ..."), self._save),
                ("load", _("Load a preset from a file ..."), self._load),
                ("rename", _("Rename this preset ..."), self._rename),
                ("share", _("Share this preset as a file ..."), self._share),
                ("delete", _("Delete this preset ..."), self._delete),
            )
        }
        self._menu.aboutToShow.connect(self.show)
        button.setMenu(self._menu)

    def _action(self, title: str, act: Callable[[], None]) -> Any:
        action = self._menu.addAction(title)
        action.triggered.connect(lambda *_state: self._try(act))
        return action

    def show(self) -> None:
        """What can be chosen: only a preset of the user's own is renamed, shared or deleted."""
        for name in ("rename", "share", "delete"):
            self.actions[name].setEnabled(self._chosen() is not None)

    def _try(self, act: Callable[[], None]) -> None:
        self._report("")
        try:
            act()
        except InputError as error:
            self._report(str(error))

    def _chosen(self) -> OwnPreset | None:
        name = self.parameters.get("preset")
        return self.parameters.own_presets.find(name) if name.startswith(OWN) else None

    def _save(self) -> None:
        chosen = self._chosen()
        name = self._desktop.ask_text(_("Name of the preset:"), chosen.name if chosen else _("My preset"))
        if name:
            self._take(preset_of(name, self.parameters.get("task"), self.parameters.settings()))

    def _take(self, preset: OwnPreset) -> None:
        """Keep and apply a preset; another one of its name only goes where the user wants that."""
        known = self.parameters.own_presets.find(preset.key)
        question = _("Replace the preset {name}?").format(name=preset.name)
        if known not in (None, preset) and not self._desktop.confirm(question):
            return
        try:
            self.parameters.own_presets.keep(preset)
        finally:  # what could not be kept on the machine is in the scene
            if preset.task == self.parameters.get("task"):
                self.parameters.apply_preset(preset.key)
            else:
                line = _("The preset {name} is for the task {task}, where it is offered now.")
                self._report(line.format(name=preset.name, task=texts.word(preset.task)))

    def _load(self) -> None:
        path = self._desktop.open_file(_("Choose a preset"), _("Presets") + f" (*{SUFFIX} *.json)")
        if path:
            self._take(read_preset_file(path))

    def _rename(self) -> None:
        preset = self._chosen()
        name = self._desktop.ask_text(_("New name of the preset:"), preset.name) if preset is not None else ""
        if preset is not None and name:
            self.parameters.set("preset", self.parameters.own_presets.rename(preset, name).key)

    def _share(self) -> None:
        preset = self._chosen()
        if preset is None:
            return
        suggestion = as_file_name(preset.name) + SUFFIX
        path = self._desktop.save_file(_("Share the preset"), suggestion, _("Presets") + f" (*{SUFFIX} *.json)")
        if not path.lower().endswith(".json"):
            path = with_ending(self._desktop, path, SUFFIX)
        if path:
            try:
                Path(path).write_text(preset.to_json(), encoding="utf-8")
            except OSError as error:
                raise InputError(f"{path}: {error.strerror or error}") from None
            self._report(_("The preset is written: {file}").format(file=path))

    def _delete(self) -> None:
        preset = self._chosen()
        if preset is not None and self._desktop.confirm(_("Delete the preset {name}?").format(name=preset.name)):
            self.parameters.own_presets.drop(preset)
            self.parameters.set("preset", presets_of(preset.task)[0])


def offered(parameters: Parameters, effort: Effort) -> tuple[list[str], list[str]]:
    """(names, titles) of the presets to choose from: the task's, then the user's own, each with what it takes."""
    task, chosen = parameters.get("task"), parameters.get("preset")
    own = parameters.own_presets.of(task)
    names = [*presets_of(task), *own]
    titles = []
    for name in names:
        title = own[name].name if name in own else texts.preset_title(name, task)
        parts = [title, effort(name)]
        if name == chosen and not parameters.follows_preset():
            parts = [title + " " + _("(changed)")]
        titles.append(", ".join(filter(None, parts)))
    return names, titles
