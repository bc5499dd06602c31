"""Stand-ins for Slicer's base classes of scripted modules, so that DiffusionMBIR.py can be loaded."""

from __future__ import annotations

import sys
import types
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import slicer
import slicer.util


class ScriptedLoadableModule:
    def __init__(self, parent: Any) -> None:
        self.parent = parent


class ScriptedLoadableModuleWidget:
    def __init__(self, parent: Any = None) -> None:
        import qt

        self.parent = parent or qt.QWidget()
        self.layout = qt.QVBoxLayout(self.parent)

    def setup(self) -> None:
        return None


class ScriptedLoadableModuleLogic:
    def __init__(self, parent: Any = None) -> None:
        self.parent = parent


class ScriptedLoadableModuleTest(unittest.TestCase):
    pass


class VTKObservationMixin:
    """Observers that are taken away together."""

    def __init__(self) -> None:
        self._observed: list[tuple[Any, int]] = []

    def addObserver(self, what: Any, event: Any, act: Any) -> None:
        self._observed.append((what, what.AddObserver(event, act)))

    def removeObservers(self) -> None:
        for what, tag in self._observed:
            what.RemoveObserver(tag)
        self._observed = []


class Application:
    """What of ``slicer.app`` the module asks at start."""

    def __init__(self) -> None:
        self.connected: list[str] = []

    def connect(self, signal: str, act: Any) -> None:
        self.connected.append(signal)


@contextmanager
def application(scene: Any, load_ui: Any = None) -> Iterator[Application]:
    """``slicer`` as the application's Python has it; as before afterwards."""
    from . import widgets

    base = types.ModuleType("slicer.ScriptedLoadableModule")
    for kind in (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    ):
        setattr(base, kind.__name__, kind)
    app = Application()
    added = {"app": app, "mrmlScene": scene}
    helpers = {
        "VTKObservationMixin": VTKObservationMixin,
        "loadUI": load_ui or widgets.load,
        "mainWindow": lambda: None,
    }
    former = {name: getattr(slicer.util, name, None) for name in helpers}
    sys.modules[base.__name__] = base
    for name, value in added.items():
        setattr(slicer, name, value)
    for name, value in helpers.items():
        setattr(slicer.util, name, value)
    try:
        yield app
    finally:
        del sys.modules[base.__name__]
        for name in added:
            delattr(slicer, name)
        for name, value in former.items():
            if value is None:
                delattr(slicer.util, name)
            else:
                setattr(slicer.util, name, value)


def load_module(path: Path) -> Any:
    """DiffusionMBIR.py as Slicer loads it, from its place."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("DiffusionMBIR", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
