"""Result beside reference: an own layout, and flicker in the ordinary views."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import slicer
import vtk

from DiffusionMBIRLib.errors import InputError

from .scene import OWN_VIEWS, ordinary_composites, set_window
from .texts import _

LAYOUT = 11655  # Slicer's own layouts count from 0 and 100, extensions choose larger numbers
NARROW = 11656  # result beside reference, for windows that three views side by side would make wider
ROWS = ("Result", "Reference")
PLANES = ("Axial", "Coronal", "Sagittal")
_COLOURS = {"Axial": "#F34A33", "Coronal": "#6EB04B", "Sagittal": "#EDD54C"}  # as Slicer marks these planes
_NORMALS = {"Axial": 2, "Coronal": 1, "Sagittal": 0}  # the axis of the world that a plane is normal to
_VIEW_GROUP = 77  # linked views and jumping cross-hairs keep to their group


def view_name(row: str, plane: str) -> str:
    """The layout name of a view of the comparison."""
    return f"{OWN_VIEWS}{row}{plane}"


def layout_description(narrow: bool = False) -> str:
    """The layout as Slicer reads it: a row of three planes for the result, one for the reference; narrow: columns."""
    outer, inner = ("horizontal", "vertical") if narrow else ("vertical", "horizontal")
    parts = "".join(
        f'<item><layout type="{inner}" split="true">{"".join(_view(row, plane) for plane in PLANES)}</layout></item>'
        for row in ROWS
    )
    return f'<layout type="{outer}" split="true">{parts}</layout>'


def _view(row: str, plane: str) -> str:
    properties = {
        "orientation": plane,
        "viewlabel": f"{row[:3]} {plane[0]}",
        "viewcolor": _COLOURS[plane],
        "viewgroup": str(_VIEW_GROUP),
    }
    lines = "".join(
        f'<property name="{name}" action="default">{value}</property>' for name, value in properties.items()
    )
    return f'<item><view class="vtkMRMLSliceNode" singletontag="{view_name(row, plane)}">{lines}</view></item>'


def register_layout(scene: Any) -> Any:
    """Make the layouts known to the scene's layout node, which is returned; None where there is none."""
    node = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    for number, narrow in ((LAYOUT, False), (NARROW, True)):
        if node is not None and not node.IsLayoutDescription(number):
            node.AddLayoutDescription(number, layout_description(narrow))
    return node


class Comparison:
    """The layout with result above or beside reference; window, level, zoom and slices are those of both."""

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._former = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
        self._observed: list[tuple[Any, int]] = []

    @property
    def active(self) -> bool:
        """True while the comparison's layout is shown."""
        node = self._scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        return node is not None and node.GetViewArrangement() in (LAYOUT, NARROW)

    def enter(self, result: Any, reference: Any, application_logic: Any = None, room: int = 0) -> None:
        """Show both volumes, the reference with the result's window and level.

        application_logic: Slicer's, whose slice views are then fitted to the result; see also :meth:`fit`.
        room: for how many views side by side; 0 where it is not known.
        Raises InputError where a volume is missing or both are the same.
        """
        require_pair(result, reference)
        layout = register_layout(self._scene)
        if layout is None:
            raise InputError(_("There are no slice views to compare in."))
        if not self.active:
            self._former = layout.GetViewArrangement()
            layout.SetViewArrangement(NARROW if 0 < room < len(PLANES) else LAYOUT)
        for row, volume in zip(ROWS, (result, reference), strict=True):
            for plane in PLANES:
                self._fill(view_name(row, plane), volume)
        same_window(result, reference)
        self._link_windows(result, reference)
        self.fit(application_logic)

    def fit(self, application_logic: Any) -> None:
        """Fit the six views to their volumes, at the slices of the ordinary views; again once the views have a size."""
        if application_logic is None:
            return
        for row in ROWS:
            for plane in PLANES:
                logic = application_logic.GetSliceLogicByLayoutName(view_name(row, plane))
                if logic is not None:
                    logic.FitSliceToBackground()
                    self._go_to_ordinary_slice(logic, plane)

    def leave(self) -> None:
        """Go back to the layout that was shown before; nothing happens where another one was chosen since."""
        self._unlink_windows()
        if self.active:
            self._scene.GetFirstNodeByClass("vtkMRMLLayoutNode").SetViewArrangement(self._former)

    def _fill(self, name: str, volume: Any) -> None:
        composite = _composite(self._scene, name)
        was_modifying = composite.StartModify()
        composite.SetBackgroundVolumeID(volume.GetID())
        composite.SetForegroundVolumeID(None)
        composite.SetLabelVolumeID(None)
        composite.SetLinkedControl(True)
        composite.SetHotLinkedControl(True)
        composite.EndModify(was_modifying)

    def _go_to_ordinary_slice(self, logic: Any, plane: str) -> None:
        """Take over where the user was looking, if that lies in the volume."""
        volume = self._scene.GetNodeByID(logic.GetSliceCompositeNode().GetBackgroundVolumeID() or "")
        other = _ordinary_slice(self._scene, plane)
        if volume is None or other is None:
            return
        bounds = np.zeros(6)
        volume.GetRASBounds(bounds)
        axis = _NORMALS[plane]
        if bounds[2 * axis] <= other.GetSliceToRAS().GetElement(axis, 3) <= bounds[2 * axis + 1]:
            logic.GetSliceNode().SetSliceOffset(other.GetSliceOffset())

    def _link_windows(self, first: Any, second: Any) -> None:
        self._unlink_windows()
        for source, target in ((first, second), (second, first)):
            display = source.GetDisplayNode()
            tag = display.AddObserver(vtk.vtkCommand.ModifiedEvent, self._follower(source, target))
            self._observed.append((display, tag))

    def _follower(self, source: Any, target: Any) -> Any:
        def follow(_caller: Any, _event: str) -> None:
            if not self.active:
                self._unlink_windows()
            elif source.GetScene() is not None and target.GetScene() is not None:
                same_window(source, target)

        return follow

    def _unlink_windows(self) -> None:
        for display, tag in self._observed:
            display.RemoveObserver(tag)
        self._observed = []


def _ordinary_slice(scene: Any, plane: str) -> Any:
    """A slice node outside of the comparison that shows this plane, or None."""
    count = scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")
    nodes = [scene.GetNthNodeByClass(index, "vtkMRMLSliceNode") for index in range(count)]
    ordinary = (node for node in nodes if not (node.GetLayoutName() or "").startswith(OWN_VIEWS))
    return next((node for node in ordinary if node.GetOrientation() == plane), None)


def same_window(source: Any, target: Any) -> None:
    """Give ``target`` the window and level of ``source``; without an event where it has them already."""
    theirs, ours = source.GetDisplayNode(), target.GetDisplayNode()
    if theirs is None:
        return
    if ours is None:
        target.CreateDefaultDisplayNodes()
        ours = target.GetDisplayNode()
    wanted = (theirs.GetWindow(), theirs.GetLevel())
    if (ours.GetWindow(), ours.GetLevel()) != wanted or ours.GetAutoWindowLevel():
        set_window(ours, *wanted)


def _composite(scene: Any, layout_name: str) -> Any:
    """The composite node of a slice view; made here where no view has made it yet."""
    count = scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")
    for index in range(count):
        node = scene.GetNthNodeByClass(index, "vtkMRMLSliceCompositeNode")
        if node.GetLayoutName() == layout_name:
            return node
    node = slicer.vtkMRMLSliceCompositeNode()
    node.SetSingletonTag(layout_name)
    node.SetLayoutName(layout_name)
    node.SetName(layout_name)
    return scene.AddNode(node)


def require_pair(result: Any, reference: Any) -> None:
    """Raises InputError where a volume is missing or both are the same."""
    for node, missing in (
        (result, _("There is no result to compare: run a reconstruction, or choose one.")),
        (reference, _("There is nothing to compare with: choose a reference volume.")),
    ):
        if node is None or node.GetScene() is None or node.GetImageData() is None:
            raise InputError(missing)
    if result is reference:
        raise InputError(_("Result and reference are the same volume: choose another reference."))


class ViewLayers:
    """What the ordinary slice views show, to be given back."""

    def __init__(self) -> None:
        self._former: list[tuple[Any, str | None, str | None, float]] = []

    @property
    def kept(self) -> list[Any]:
        """The composite nodes of the views that something else is shown in."""
        return [node for node, *_layers in self._former]

    def keep(self, composites: Iterable[Any]) -> None:
        self.give_back()
        for node in composites:
            former = (node.GetBackgroundVolumeID(), node.GetForegroundVolumeID(), node.GetForegroundOpacity())
            self._former.append((node, *former))

    def give_back(self) -> None:
        """Show again what was shown before; nothing happens where nothing was kept."""
        former, self._former = self._former, []
        for node, background, foreground, opacity in former:
            if node.GetScene() is not None:
                set_layers(node, background, foreground, opacity)


class Flicker:
    """Result and reference in turn, in the ordinary slice views; every toggle is one change of opacity."""

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._layers = ViewLayers()
        self._shows_result = True

    @property
    def active(self) -> bool:
        return bool(self._layers.kept)

    @property
    def shows_result(self) -> bool:
        """Which of the two is in sight."""
        return self._shows_result

    def start(self, result: Any, reference: Any, composites: Iterable[Any] | None = None) -> None:
        """Put both into the views, the result in sight, with one window and level.

        Raises InputError where a volume is missing or both are the same.
        """
        require_pair(result, reference)
        self.stop()
        same_window(result, reference)
        self._layers.keep(ordinary_composites(self._scene) if composites is None else list(composites))
        for node in self._layers.kept:
            set_layers(node, reference.GetID(), result.GetID(), 1.0)
        self._shows_result = True

    def toggle(self) -> None:
        """Bring the other of the two in sight."""
        self._shows_result = not self._shows_result
        for node in self._layers.kept:
            node.SetForegroundOpacity(1.0 if self._shows_result else 0.0)

    def stop(self) -> None:
        """Give the views back what they showed before."""
        self._layers.give_back()


def set_layers(composite: Any, background: str | None, foreground: str | None, opacity: float) -> None:
    """Layers of a slice view, with one event; colour bars come and go with their volumes."""
    was_modifying = composite.StartModify()
    composite.SetBackgroundVolumeID(background)
    composite.SetForegroundVolumeID(foreground)
    composite.SetForegroundOpacity(opacity)
    composite.EndModify(was_modifying)
    # Slicer's views look for colour bars when a user changes layers, else when a bar itself changes.
    scene, kind = composite.GetScene(), "vtkMRMLColorLegendDisplayNode"
    for index in range(scene.GetNumberOfNodesByClass(kind)):
        scene.GetNthNodeByClass(index, kind).Modified()
