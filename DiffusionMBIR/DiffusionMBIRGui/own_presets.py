"""Presets of the user's own: kept on the machine, carried in the scene, shared as a file.  Needs no Qt.

A preset is a task and settings of a reconstruction.  What belongs to a machine is not among them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from DiffusionMBIRLib.config import ReconSettings, check
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.models import user_data
from DiffusionMBIRLib.tasks import TASKS

from .texts import _

OWN = "own/"  # how the names of such presets begin in the setting ``preset``
SUFFIX = ".mbirpreset.json"
_OF_MACHINE = ("device", "precision", "seed", "slices_per_batch")
_FORMAT = "DiffusionMBIR preset 1"
_LONGEST_NAME, _LARGEST_FILE = 60, 100_000
_FIELDS = {item.name: item for item in fields(ReconSettings)}


@dataclass(frozen=True)
class OwnPreset:
    """A preset that the user made."""

    name: str
    task: str
    values: Mapping[str, Any]

    @property
    def key(self) -> str:
        """What the setting ``preset`` holds."""
        return OWN + self.name

    def to_json(self) -> str:
        """As a file and in the scene."""
        entries = {"format": _FORMAT, "name": self.name, "task": self.task, "settings": dict(self.values)}
        return json.dumps(entries, indent=1, sort_keys=True)


def preset_of(name: str, task: str, settings: ReconSettings) -> OwnPreset:
    """The present settings as a preset; raises InputError for a name that will not do."""
    values = {key: value for key, value in asdict(settings).items() if key not in _OF_MACHINE}
    if "/" in settings.prior.replace("\\", "/"):  # a file of this machine
        del values["prior"]
    return OwnPreset(_checked_name(name), task, values)


def read_preset(text: str) -> OwnPreset:
    """A preset from what :meth:`OwnPreset.to_json` wrote; raises InputError for anything else."""
    try:
        found = json.loads(text)
        name, task, values = found["name"], found["task"], dict(found["settings"])
        known = found["format"] == _FORMAT and task in TASKS
    except (KeyError, RecursionError, TypeError, ValueError):
        known = False
    if not known:
        raise InputError(_no_preset())
    for key, value in values.items():
        item = _FIELDS.get(key)
        if item is None or key in _OF_MACHINE:
            raise InputError(_("The preset holds a setting that is not known here: {name}.").format(name=str(key)[:60]))
        check(key, value, item.metadata, item.type)
    return OwnPreset(_checked_name(name), task, values)


def read_preset_file(path: str | os.PathLike[str]) -> OwnPreset:
    """A preset that was shared; raises InputError where the file is none."""
    file = Path(path)
    try:
        if file.stat().st_size > _LARGEST_FILE:
            raise InputError(_no_preset())
        return read_preset(file.read_text(encoding="utf-8-sig"))  # editors may put a mark in front
    except UnicodeDecodeError:
        raise InputError(f"{file.name}: {_no_preset()}") from None
    except InputError as error:
        raise InputError(f"{file.name}: {error}") from None
    except OSError as error:
        raise InputError(f"{file.name}: {error.strerror or error}; check its permissions, or copy it") from None


def _no_preset() -> str:
    return _("This is no preset of DiffusionMBIR, or one of a newer version.")


def _checked_name(name: Any) -> str:
    found = " ".join(name.split()) if isinstance(name, str) else ""
    if not found or len(found) > _LONGEST_NAME or not found.isprintable():
        raise InputError(_("A preset needs a name of at most {count} characters.").format(count=_LONGEST_NAME))
    return found


class OwnPresets:
    """Those of the machine and those that came with a scene; a scene's own ones come first.

    node: the scene's parameter node.  folder: where the machine keeps its own, by default in the user's data.
    """

    PARAMETER = "own_presets"

    def __init__(self, node: Any, folder: Path | None = None) -> None:
        self._node, self._folder = node, folder

    @property
    def folder(self) -> Path:
        return self._folder or user_data() / "presets"

    def of(self, task: str) -> dict[str, OwnPreset]:
        """Key -> preset, of a task, by name."""
        found = {preset.key: preset for preset in (*self._of_machine(), *self._of_scene()) if preset.task == task}
        return dict(sorted(found.items(), key=lambda entry: entry[0].casefold()))

    def find(self, key: str) -> OwnPreset | None:
        """A preset by its key, whatever its task."""
        for preset in (*self._of_scene(), *self._of_machine()):
            if preset.key == key:
                return preset
        return None

    def keep(self, preset: OwnPreset) -> None:
        """Take a preset into the machine and the scene; one of the same name is replaced."""
        self.carry(preset)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file(preset.name).write_text(preset.to_json(), encoding="utf-8")
        except OSError as error:
            line = _("The preset is in the scene, but could not be kept on this machine: {reason}")
            raise InputError(line.format(reason=error.strerror or error)) from None

    def carry(self, preset: OwnPreset) -> None:
        """Let a preset travel in the scene."""
        others = [other for other in self._of_scene() if other.name != preset.name]
        self._write_scene([*others, preset])

    def rename(self, preset: OwnPreset, name: str) -> OwnPreset:
        """The preset under another name; raises InputError where that is taken."""
        renamed = OwnPreset(_checked_name(name), preset.task, preset.values)
        if renamed.name == preset.name:
            return preset
        if self.find(renamed.key) is not None:
            raise InputError(_("There is a preset {name} already: choose another name.").format(name=renamed.name))
        self.keep(renamed)  # first, so that a full disk loses nothing
        self.drop(preset)
        return renamed

    def drop(self, preset: OwnPreset) -> None:
        """Take a preset out of machine and scene."""
        self._write_scene([other for other in self._of_scene() if other.name != preset.name])
        for path, found in self._files().items():
            if found.name == preset.name:
                with suppress(OSError):
                    path.unlink()

    def _of_scene(self) -> list[OwnPreset]:
        try:
            texts = json.loads(self._node.GetParameter(self.PARAMETER) or "[]")
        except ValueError:
            texts = []
        return _sound(texts if isinstance(texts, list) else [])

    def _write_scene(self, presets: list[OwnPreset]) -> None:
        text = json.dumps([preset.to_json() for preset in presets])
        if (self._node.GetParameter(self.PARAMETER) or "[]") != text:
            self._node.SetParameter(self.PARAMETER, text)

    def _of_machine(self) -> list[OwnPreset]:
        return list(self._files().values())

    def _files(self) -> dict[Path, OwnPreset]:
        found = {}
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            with suppress(OSError, UnicodeDecodeError, InputError):
                found[path] = read_preset(path.read_text(encoding="utf-8"))
        return found

    def _file(self, name: str) -> Path:
        """By name as far as all file systems allow; the rest by its digest, so that no two names meet.

        Windows and macOS know a file by its name in any case, and none takes long ones.
        """
        stem = re.sub(r"[^a-z0-9_-]+", "-", name.lower())[:40]
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        return self.folder / f"{stem}-{digest}{SUFFIX}"


def _sound(texts: list[Any]) -> list[OwnPreset]:
    """Those that can be read: a damaged scene or file still opens."""
    found = []
    for text in texts:
        with suppress(InputError):
            found.append(read_preset(text))
    return found
