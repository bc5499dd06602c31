"""Tests of the Slicer module on Slicer's own MRML, from the package slicer-core: no window, no GPU, nothing imitated.

Where the package does not exist for this Python, every file here is skipped and says so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
for _folder in (ROOT, ROOT / "DiffusionMBIR"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

try:
    import slicer  # noqa: F401
    import vtk

    LACKING = ""
except ImportError as error:
    LACKING = f"Slicer's MRML cannot be imported ({error}); install slicer-core (Python 3.11 or 3.12)"


class _Skipped(pytest.Module):
    def collect(self) -> Any:
        pytest.skip(LACKING, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> Any:
    return _Skipped.from_parent(parent, path=module_path) if LACKING else None


@pytest.fixture(autouse=True)
def _errors_fail(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Errors in observers and in VTK's C++ are only printed: let them fail the test."""
    raised: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda _kind, value, _trace: raised.append(value))
    window = vtk.vtkStringOutputWindow()
    former = vtk.vtkOutputWindow.GetInstance()
    vtk.vtkOutputWindow.SetInstance(window)
    yield
    vtk.vtkOutputWindow.SetInstance(former)
    assert not raised, f"an observer raised {raised[0]!r}"
    assert not window.GetOutput(), window.GetOutput()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Any]:
    """A scene with what Slicer's desktop application puts around it."""
    from Testing.slicer.helpers import Desk

    desk = Desk(tmp_path / "cache")
    yield desk
    desk.close()
