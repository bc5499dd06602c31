"""What the panel asks of the application: questions, files, settings of this machine.  Slicer's answers to them."""

from __future__ import annotations

import os
import shutil
from typing import Any, Protocol

from .parameters import MODULE
from .texts import _


class Desktop(Protocol):
    """What the panel needs to know of the application that it lives in."""

    def confirm(self, question: str) -> bool: ...

    def ask_text(self, question: str, suggestion: str) -> str: ...

    def open_file(self, title: str, kinds: str) -> str: ...

    def open_folder(self, title: str) -> str: ...

    def save_file(self, title: str, suggestion: str, kinds: str) -> str: ...

    def open_page(self, path: str) -> bool: ...

    def setting(self, name: str) -> str: ...

    def set_setting(self, name: str, value: str) -> None: ...

    def sop_class(self, instance_uid: str) -> str: ...

    def index_dicom(self, folder: str) -> bool: ...

    def own_python(self) -> tuple[str, ...]: ...

    def clean_environment(self) -> dict[str, str]: ...

    def application_logic(self) -> Any: ...

    def slice_logics(self) -> list[Any]: ...

    def views_side_by_side(self) -> int: ...


class SlicerDesktop:
    """The answers of 3D Slicer."""

    def confirm(self, question: str) -> bool:
        import slicer

        return bool(slicer.util.confirmOkCancelDisplay(question))

    def ask_text(self, question: str, suggestion: str) -> str:
        import qt
        import slicer

        dialog = qt.QInputDialog(slicer.util.mainWindow())
        dialog.setLabelText(question)
        dialog.setTextValue(suggestion)
        return str(dialog.textValue()) if dialog.exec_() else ""  # no property of it

    def open_file(self, title: str, kinds: str) -> str:
        import qt
        import slicer

        return _path(qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, "", kinds))

    def open_folder(self, title: str) -> str:
        import qt
        import slicer

        return str(qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title) or "")

    def save_file(self, title: str, suggestion: str, kinds: str) -> str:
        import qt
        import slicer

        return _path(qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, suggestion, kinds))

    def open_page(self, path: str) -> bool:
        import qt

        return bool(qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(path)))

    def setting(self, name: str) -> str:
        import slicer

        return str(slicer.util.settingsValue(f"{MODULE}/{name}", "") or "")

    def set_setting(self, name: str, value: str) -> None:
        import slicer

        slicer.app.userSettings().setValue(f"{MODULE}/{name}", value)

    def sop_class(self, instance_uid: str) -> str:
        database = _dicom_database()
        return str(database.instanceValue(instance_uid, "0008,0016") or "") if database is not None else ""

    def index_dicom(self, folder: str) -> bool:
        if _dicom_database() is None:
            return False
        from DICOMLib import DICOMUtils

        return bool(DICOMUtils.importDicom(folder))

    def own_python(self) -> tuple[str, ...]:
        import slicer

        name = "PythonSlicer.exe" if os.name == "nt" else "PythonSlicer"
        beside = os.path.join(slicer.app.slicerHome, "bin", name)
        found = shutil.which("PythonSlicer") or (beside if os.path.isfile(beside) else "")
        return (found,) if found else ()

    def clean_environment(self) -> dict[str, str]:
        import slicer

        return dict(slicer.util.startupEnvironment())

    def application_logic(self) -> Any:
        import slicer

        return slicer.app.applicationLogic()

    def slice_logics(self) -> list[Any]:
        logics = self.application_logic().GetSliceLogics()
        return [logics.GetItemAsObject(index) for index in range(logics.GetNumberOfItems())] if logics else []

    def views_side_by_side(self) -> int:
        """How many slice views there is room for without the window growing; 0 where that is not known."""
        import slicer

        manager = slicer.app.layoutManager()
        view = manager.sliceWidget("Red") if manager is not None else None
        content = view.property("minimumSizeHint") if view is not None else None
        return int(manager.viewport().property("width")) // max(content.width(), 1) if content is not None else 0


def with_ending(desktop: Desktop, path: str, ending: str) -> str:
    """The path that a dialog gave, with its ending; '' where that is another file, which is to stay.

    The dialog has asked about the name as it was typed.
    """
    if not path or path.lower().endswith(ending):
        return path
    path += ending
    return path if not os.path.exists(path) or desktop.confirm(_("Replace {file}?").format(file=path)) else ""


def _dicom_database() -> Any:
    """Slicer's, None where it is not open or Slicer was built without DICOM."""
    import slicer

    database = getattr(slicer, "dicomDatabase", None)
    return database if database is not None and database.isOpen else None


def _path(answer: Any) -> str:
    # PySide answers with the path and the kind that was chosen, PythonQt with the path.
    return str(answer[0] if isinstance(answer, tuple | list) else answer or "")
