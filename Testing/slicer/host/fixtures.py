"""Fixtures that show the panel: a real MRML scene, the loaded form, a desktop and a runner that the test plays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .played import UI, PlayedDesktop, PlayedRunner


@pytest.fixture(scope="session")
def application() -> Any:
    import qt

    return qt.QApplication.instance() or qt.QApplication([])


@pytest.fixture
def new_scene() -> Any:
    import slicer

    return slicer.vtkMRMLScene()


@pytest.fixture
def desktop(tmp_path: Path, new_scene: Any) -> PlayedDesktop:
    desktop = PlayedDesktop(tmp_path)
    desktop.scene = new_scene
    return desktop


@pytest.fixture
def runner() -> PlayedRunner:
    return PlayedRunner()


@pytest.fixture
def panel(application: Any, new_scene: Any, desktop: PlayedDesktop, runner: PlayedRunner) -> Iterator[Any]:
    from DiffusionMBIRGui.panel import Panel

    from . import widgets

    root = widgets.load(str(UI))
    shown = Panel(root, scene=new_scene, desktop=desktop, runner=runner)
    yield shown
    shown.close()
    root.deleteLater()
