"""Export from the panel: a menu that names each kind, so that what is written never hangs on a file's ending."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.names import as_file_name
from DiffusionMBIRLib.tasks import MR_TASK, THIN_SLICES_MR

from . import export
from .dicom_source import DicomSource, source_of, source_of_folder
from .panel_desktop import Desktop, with_ending
from .panel_work import Background
from .texts import _


class ExportMenu:
    """``result()`` gives the node to export, ``begin(work, line)`` follows what runs in a thread."""

    def __init__(
        self,
        button: Any,
        desktop: Desktop,
        result: Callable[[], Any],
        begin: Callable[[Background, str], None],
        attempt: Callable[[Callable[[], None]], None],
    ) -> None:
        self._desktop, self._result, self._begin, self._attempt = desktop, result, begin, attempt
        self.folders: dict[str, Path] = {}  # ID of a result -> the DICOM folder that it was made of, in this session
        self._menu = qt.QMenu(button)
        self.actions = {
            "nrrd": self._action(_("NRRD volume ..."), self.as_nrrd),
            "anonymous": self._action(_("DICOM series, anonymous, as a study of its own ..."), self.as_anonymous),
            "study": self._action(_("DICOM series, into the patient's study ..."), self.into_study),
        }
        self._menu.aboutToShow.connect(self.show)
        button.setMenu(self._menu)

    def _action(self, title: str, act: Callable[[], None]) -> Any:
        action = self._menu.addAction(title)
        action.triggered.connect(lambda *_state: self._attempt(act))
        return action

    def show(self) -> None:
        """What can be chosen."""
        node = self._result()
        known = node is not None and (node.GetID() in self.folders or source_of(node, lambda uid: "") is not None)
        self.actions["study"].setEnabled(known)

    def as_nrrd(self) -> None:
        node = self._result()
        if node is None:
            return
        path = self._desktop.save_file(
            _("Export the result"), f"{_file_name(node)}.nrrd", _("NRRD volume") + " (*.nrrd)"
        )
        path = with_ending(self._desktop, path, ".nrrd")
        if not path:
            return
        volume = _snapshot(node)
        # Copied in the thread: both copying and writing take long.
        work = Background(lambda: export.write_nrrd(replace(volume, array=volume.array.copy()), path))
        work.done = lambda: _("Exported as {file}.").format(file=path)
        self._begin(work, _("Exporting ..."))

    def as_anonymous(self) -> None:
        self._as_dicom(lambda node: None, _("an anonymous series, a study of its own"))

    def into_study(self) -> None:
        self._as_dicom(self._source, _("a series of the patient's study, with name and number of the patient"))

    def _source(self, node: Any) -> Callable[[], DicomSource | None]:
        """What finds the series, in a thread; nodes are asked at once."""
        folder = self.folders.get(node.GetID())
        if folder is not None:
            return lambda: source_of_folder(folder)
        found = source_of(node, self._desktop.sop_class)
        return lambda: found

    def _as_dicom(self, find: Callable[[Any], Any], what: str) -> None:
        node = self._result()
        parent = self._desktop.open_folder(_("Folder that the new series is put into")) if node is not None else ""
        if not parent:
            return
        folder = _new_folder(Path(parent), _file_name(node))
        volume, source = _snapshot(node), find(node)
        written: list[Path] = []

        def write() -> None:
            known = source() if source is not None else None
            if source is not None and (known is None or not known.has_study):
                raise InputError(_("The study of the input is not known: export an anonymous series."))
            written.extend(export.write_dicom(replace(volume, array=volume.array.copy()), folder, source=known))

        work = Background(write)
        work.done = lambda: self._written(folder, len(written), what)
        self._begin(work, _("Exporting ..."))

    def _written(self, folder: Path, count: int, what: str) -> str:
        line = _("Exported {count} images as {what}: {folder}.").format(count=count, what=what, folder=folder)
        if self._desktop.index_dicom(str(folder)):
            return line + " " + _("They are in Slicer's DICOM database.")
        return line + " " + _("Slicer's DICOM database is not open: import the folder in the DICOM module.")


def _snapshot(node: Any) -> Any:
    return export.snapshot(node, unit="HU" if _is_ct(node) else "", copy=False)


def _is_ct(node: Any) -> bool:
    """False for a volume that our own record calls an MR reconstruction."""
    told = str(export.provenance_of(node).get("measurement", ""))
    return MR_TASK not in told and THIN_SLICES_MR not in told


def _file_name(node: Any) -> str:
    return as_file_name(node.GetName() or "")


def _new_folder(parent: Path, name: str) -> Path:
    """A folder that is not there yet."""
    folder, number = parent / name, 2
    while folder.exists():
        folder, number = parent / f"{name} {number}", number + 1
    return folder
