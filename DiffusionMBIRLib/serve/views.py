"""Three slice views of Slicer, drawn here and sent as pictures: what was given, and what is computed from it.

Grids are in LPS, as ITK counts, MRML in RAS: the first two axes change their sign.
"""

from __future__ import annotations

from ctypes.util import find_library
from typing import Any

import numpy as np
import vtk
from trame.widgets import html
from trame_slicer.app.logic import connect_slice_view_slider_to_state
from trame_slicer.app.ui import Slider
from trame_slicer.core import LayoutManager, SlicerApp
from trame_slicer.rca_view import register_rca_factories
from trame_slicer.views import Layout, LayoutDirection, ViewLayoutDefinition
from vtkmodules.util.numpy_support import vtk_to_numpy

from ..errors import EngineError
from ..geometry import Grid

GIVEN, RESULT = "given", "result"
PLANES = ("Axial", "Coronal", "Sagittal")
_PERCENTILES = (1.0, 99.5)
_SAMPLE = 200_000  # values are enough for percentiles


class Views:
    """The scene of the page.  Everything is called from the thread of the server."""

    def __init__(self, server: Any) -> None:
        _only_errors()
        _require_drawing()
        self._app = SlicerApp()
        _only_errors()  # its window of messages is another one
        register_rca_factories(self._app.view_manager, server, slice_view_ui_f=_corner, rca_encoder="jpeg")
        axial, coronal, sagittal = map(ViewLayoutDefinition.slice_view, PLANES)
        layout = Layout(
            LayoutDirection.Horizontal, [axial, Layout(LayoutDirection.Vertical, [coronal, sagittal])], ["3", "2"]
        )
        self._layouts = LayoutManager(self._app.scene, self._app.view_manager, server)
        self._layouts.register_layout("planes", layout)
        self._layouts.set_layout("planes")
        for view in self._app.view_manager.get_slice_views():
            view.render_window().AddObserver("WindowResizeEvent", self._on_resize)
        self._nodes: dict[str, Any] = {}
        self._box: np.ndarray | None = None  # the region that the views are fitted to
        self.window = (0.0, 1.0)  # (lowest, highest) value that is told apart

    def place(self, page: Any) -> None:
        """Put the views where the page is being built."""
        self._layouts.initialize_layout_grid(page)

    def put(self, name: str, array: np.ndarray, grid: Grid) -> None:
        """Have ``array`` (slices, rows, columns) as GIVEN or RESULT; its values are copied."""
        node = self._nodes.get(name)
        if node is None:
            node = self._app.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
            node.CreateDefaultDisplayNodes()
            node.GetDisplayNode().SetAutoWindowLevel(0)
            self._nodes[name] = node
        matrix = vtk.vtkMatrix4x4()
        matrix.DeepCopy(grid.ijk_to_ras.reshape(-1).tolist())
        image = node.GetImageData()
        if image is None or image.GetDimensions()[::-1] != grid.shape:
            image = vtk.vtkImageData()
            image.SetDimensions(grid.shape[::-1])
            image.AllocateScalars(vtk.VTK_FLOAT, 1)
        values = image.GetPointData().GetScalars()
        np.copyto(vtk_to_numpy(values).reshape(grid.shape), array, casting="unsafe")
        values.Modified()
        image.Modified()
        node.SetIJKToRASMatrix(matrix)
        node.SetAndObserveImageData(image)
        node.Modified()
        self.set_window(*self.window)

    def show(self, name: str) -> None:
        """Bring GIVEN or RESULT into the views; they are fitted where it lies elsewhere than what they showed."""
        node = self._nodes[name]
        self._app.display_manager.show_volume_in_slice_background(node)
        box = np.zeros(6)
        node.GetRASBounds(box)
        if self._box is None or not np.allclose(box, self._box, rtol=0, atol=max(node.GetSpacing())):
            self._app.display_manager.reset_views()
            self._box = box

    def holds(self, name: str) -> bool:
        return name in self._nodes

    def forget(self, name: str) -> None:
        node = self._nodes.pop(name, None)
        if node is not None:
            self._app.scene.RemoveNode(node)

    def _on_resize(self, *_: Any) -> None:
        """Nobody knows how large a view is before a browser shows it; nor does Slicer fit it then."""
        self._app.display_manager.reset_views()

    def set_window(self, low: float, high: float) -> None:
        """The values that are shown black and white, of both volumes."""
        self.window = low, high
        for node in self._nodes.values():
            node.GetDisplayNode().SetWindowLevelMinMax(low, max(high, low + 1e-6))


def window_of(array: np.ndarray) -> tuple[float, float]:
    """Where most of the values of a volume lie."""
    stride = max(1, round((array.size / _SAMPLE) ** (1 / 3)))
    low, high = np.percentile(array[::stride, ::stride, ::stride], _PERCENTILES)
    return float(low), float(max(high, low + 1e-6))


def _corner(server: Any, view_id: str, view: Any) -> None:
    """What lies over each view: its name, and a slider for its slice."""
    html.Div(view.get_singleton_tag(), style="position:absolute;top:6px;left:10px;color:#bbb;font-size:13px")
    with html.Div(style="position:absolute;bottom:0;left:0;width:100%;padding:0 10px"):
        Slider(typed_state=connect_slice_view_slider_to_state(server, view), theme="dark", density="compact")


def _require_drawing() -> None:
    """Raise EngineError where VTK found no way to draw: it would end the process."""
    if vtk.vtkRenderWindow().IsA("vtkOSOpenGLRenderWindow") and not find_library("OSMesa"):
        raise EngineError("the views cannot be drawn without OpenGL; on Debian and Ubuntu: apt install libegl1 libgl1")


def _only_errors() -> None:
    """VTK's warnings, of a display that is not there and others, are no news for those who look after a server; errors
    are still told, once.
    """
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_ERROR)
    vtk.vtkOutputWindow.GetInstance().SetDisplayModeToNever()
