"""Fixtures that show the panel: a real MRML scene, the loaded form, a desktop and a runner that the test plays."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .played import CPU, GPU, UI, PlayedDesktop, PlayedRunner, ct_volume


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


@pytest.fixture
def ready(panel: Any, new_scene: Any) -> Any:
    """A panel with an engine that works and a volume that is chosen."""
    from DiffusionMBIRGui import setup

    panel.pace.enabled = panel.warm.enabled = False  # they would start a process for each test
    panel.setup.engine = setup.Engine((sys.executable,), in_slicer=True)
    panel.setup.report = setup.Report("3.12.10", "2.9.1", (GPU, CPU), machine="this one")
    panel.setup.priors = setup.priors()
    panel.parameters.set_node("input", ct_volume(new_scene, "Chest", (180, 16, 16)))
    panel.refresh()
    return panel
