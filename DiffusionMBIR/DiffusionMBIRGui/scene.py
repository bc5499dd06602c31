"""The volume that a running job fills: one node, updated in place, in the slice views; and previews to replay."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import slicer
import vtk

from DiffusionMBIRLib.errors import EngineError, InputError
from DiffusionMBIRLib.geometry import Grid

from .texts import _
from .volumes import grid_of, image_like, place, sample, write_voxels

VOLUME_CLASS = "vtkMRMLScalarVolumeNode"
OWN_VIEWS = "DiffusionMBIR"  # the layout names of our own slice views begin with it
HELPER = "DiffusionMBIR.Helper"  # attribute of volumes that we show something with, which are nobody's data
STATE = "DiffusionMBIR.State"  # attribute: "partial" until a run came to its end, then "finished"
STEP = "DiffusionMBIR.Step"
UNIT = "DiffusionMBIR.Unit"  # attribute: of the values; without it HU
SOURCE = "DiffusionMBIR.Source"  # node reference: what a volume was reconstructed from
REFERENCE = "DiffusionMBIR.Reference"  # node reference: what it is to be judged by
UNCERTAINTY = "DiffusionMBIR.Uncertainty"  # role by which a result knows the volume of its half-widths
FILLED = "DiffusionMBIR.Filled"  # likewise of what the prior filled in
CANDIDATES = "DiffusionMBIR.Candidates"  # likewise of the labels of hallucination candidates
JOB = "DiffusionMBIR.Job"  # attribute: name of the job's folder that a result came from
PROVENANCE = "DiffusionMBIR.Provenance"  # attribute: JSON
_WINDOW = "DiffusionMBIR.Window"  # attribute: the window and level that we set; others are the user's
_PERCENTILES = (1.0, 99.5)


class OutputVolume:
    """A scalar volume node that shows a reconstruction from its first preview to the result.

    ``node`` may be deleted, or its scene closed, at any time: every method copes with that.
    """

    def __init__(self, node: Any, grid: Grid, *, beside: Any = None, created: bool = False, unit: str = "HU") -> None:
        self.node, self.grid, self.unit = node, grid, unit
        self._beside, self._created = beside, created
        self._name = _without_suffix(node)
        self._updates = 0

    @classmethod
    def create(
        cls, scene: Any, name: str, grid: Grid, beside: Any = None, node: Any = None, *, unit: str = "HU"
    ) -> OutputVolume:
        """Prepare ``node``, or a new one called ``name``, for a run whose volumes lie on ``grid``.

        beside: the input; a new node comes after it in the subject hierarchy, and takes over its window and level where
        both cover the same region.  What ``node`` holds already stays until the first update.
        Raises InputError where ``node`` cannot hold the result.
        """
        if node is not None and node is beside:
            raise InputError(_("The output is the input itself: choose another volume, or a new one."))
        if node is not None and node.GetClassName() != VOLUME_CLASS:
            raise InputError(_("The output must be a scalar volume: choose another one, or a new one."))
        created = node is None
        if created:
            node = scene.AddNewNodeByClass(VOLUME_CLASS, scene.GenerateUniqueName(name))
        if node.GetImageData() is None:
            put_beside(scene, node, beside)
        if beside is not None:
            node.SetNodeReferenceID(SOURCE, beside.GetID())
        return cls(node, grid, beside=beside, created=created, unit=unit)

    @property
    def alive(self) -> bool:
        """False once the node was deleted or its scene closed."""
        return self.node.GetScene() is not None

    @property
    def updates(self) -> int:
        """How many volumes the node has shown."""
        return self._updates

    def update(
        self,
        array: np.ndarray,
        step: int,
        final: bool = False,
        *,
        partial: bool = False,
        grid: Grid | None = None,
        image: Any = None,
    ) -> bool:
        """Show ``array`` (slices, rows, columns); False, and nothing is done, where the node is gone.

        final: the run is over and this is its result; partial: it was cancelled.  grid: where the result does not lie
        on the previews' grid.  image: a vtkImageData that holds ``array``; a node without memory of this shape takes it
        over instead of copying.  One ModifiedEvent of the node, no event of its display node after the first one.
        """
        if not self.alive:
            return False
        self.grid = grid or self.grid
        if tuple(array.shape) != self.grid.shape:
            raise EngineError(f"preview of shape {tuple(array.shape)} does not fit its grid {self.grid.shape}")
        if self._updates == 0:
            self._stop_automatic_window()
        was_modifying = self.node.StartModify()
        try:
            if self._updates == 0 or grid is not None:  # later the user may move it
                place(self.node, self.grid)
            write_voxels(self.node, array, image)
            self.node.SetAttribute(STEP, str(step))
            self.node.SetAttribute(UNIT, self.unit)
            self._mark(finished=final and not partial, suffix=partial)
        finally:
            self.node.EndModify(was_modifying)
        if self._updates == 0 or final:
            self._set_window(array)
        self._updates += 1
        return True

    def mark_partial(self) -> bool:
        """Mark what the node shows as the result of a run that was cut short; False where the node is gone."""
        if not self.alive:
            return False
        if self._updates:
            was_modifying = self.node.StartModify()
            self._mark(finished=False, suffix=True)
            self.node.EndModify(was_modifying)
        return True

    def discard_if_empty(self) -> bool:
        """Take away a node that was made for this run and never showed anything; True if it did so."""
        if self._updates or not self._created or not self.alive:
            return False
        self.node.GetScene().RemoveNode(self.node)
        return True

    def describe(self, provenance: Mapping[str, Any]) -> bool:
        """Keep the run's record with the node, so that it travels in the scene and into exports."""
        if not self.alive:
            return False
        self.node.SetAttribute(PROVENANCE, json.dumps(provenance, sort_keys=True))
        return True

    def show(self, composites: Iterable[Any] | None = None, *, fit: Iterable[Any] = ()) -> bool:
        """Put the volume into the background of slice views; False where it is gone.

        composites: vtkMRMLSliceCompositeNodes, by default those of all views but our own comparison's.
        fit: vtkMRMLSliceLogics; those that showed nothing before, or something elsewhere, are fitted to the volume.
        """
        if not self.alive:
            return False
        show_volume(self.node, composites, fit)
        return True

    def _mark(self, *, finished: bool, suffix: bool) -> None:
        self.node.SetAttribute(STATE, "finished" if finished else "partial")
        self.node.SetName(f"{self._name} {partial_suffix()}" if suffix else self._name)

    def _set_window(self, array: np.ndarray) -> None:
        """Choose window and level, unless the user did."""
        display = self.node.GetDisplayNode()
        if display is None or display.GetAutoWindowLevel() or self._user_set_window(display):
            return
        first = self.node.GetAttribute(_WINDOW) is None
        like = self._beside.GetDisplayNode() if self._beside is not None else None
        if like is not None and like.IsA("vtkMRMLScalarVolumeDisplayNode") and _same_region(self._beside, self.grid):
            window, level = like.GetWindow(), like.GetLevel()
            if first:
                display.SetAndObserveColorNodeID(like.GetColorNodeID())
        else:
            low, high = np.percentile(sample(array), _PERCENTILES)
            window, level = max(float(high - low), 1e-6), float(high + low) / 2
        set_window(display, window, level)
        self.node.SetAttribute(_WINDOW, _window_text(display))

    def _stop_automatic_window(self) -> None:
        """Before the first voxels come: a display node that looks for a window itself takes long, and each time."""
        display = self.node.GetDisplayNode()
        if display is None:
            self.node.CreateDefaultDisplayNodes()
            display = self.node.GetDisplayNode()
        ours = self.node.GetAttribute(_WINDOW)
        if ours is None and not display.GetAutoWindowLevel():
            self.node.SetAttribute(_WINDOW, "the user's")
        elif ours is None:
            display.SetAutoWindowLevel(0)

    def _user_set_window(self, display: Any) -> bool:
        ours = self.node.GetAttribute(_WINDOW)
        return ours is not None and ours != _window_text(display)


def add_spread(
    result: OutputVolume, what: str, array: np.ndarray, provenance: Mapping[str, Any], role: str = UNCERTAINTY
) -> None:
    """A volume beside the result, which stays in the views: how far off it may be, such as its standard deviation.

    role: by which the result knows it.  Labels become a label map.
    """
    if not result.alive:
        return
    scene, name = result.node.GetScene(), f"{result.node.GetName()} {what}"
    if role == CANDIDATES:
        node = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", scene.GenerateUniqueName(name))
        place(node, result.grid)
        node.SetAndObserveImageData(image_like(array, np.uint8))
        node.CreateDefaultDisplayNodes()
    else:
        unit = result.unit if role == UNCERTAINTY else ""
        spread = OutputVolume.create(scene, name, result.grid, unit=unit)
        spread.update(array, 0, final=True)
        spread.describe(provenance)
        node = spread.node
    put_beside(scene, node, result.node)
    result.node.SetNodeReferenceID(role, node.GetID())


def show_volume(node: Any, composites: Iterable[Any] | None = None, fit: Iterable[Any] = ()) -> None:
    """Put a volume into the background of slice views; see :meth:`OutputVolume.show`."""
    scene = node.GetScene()
    chosen = ordinary_composites(scene) if composites is None else list(composites)
    formers = [(logic, scene.GetNodeByID(logic.GetSliceCompositeNode().GetBackgroundVolumeID() or "")) for logic in fit]
    for composite in chosen:
        composite.SetBackgroundVolumeID(node.GetID())
    for logic, former in formers:
        if logic.GetSliceCompositeNode() in chosen and (former is None or not _overlap(former, node)):
            if former is not None:  # whose axes the view may have been turned to
                logic.GetSliceNode().SetOrientationToDefault()
                logic.GetSliceNode().RotateToVolumePlane(node)
            logic.FitSliceToBackground()


def partial_suffix() -> str:
    return _("(partial)")


def _without_suffix(node: Any) -> str:
    """The name without the mark of an earlier run that was cut short."""
    name, suffix = node.GetName() or "", f" {partial_suffix()}"
    return name.removesuffix(suffix) if node.GetAttribute(STATE) == "partial" else name


def set_window(display: Any, window: float, level: float) -> None:
    """Window and level by hand, with one event of the display node at most."""
    was_modifying = display.StartModify()
    display.SetAutoWindowLevel(0)
    display.SetWindowLevel(window, level)
    display.EndModify(was_modifying)


def _window_text(display: Any) -> str:
    return f"{display.GetWindow():.6g} {display.GetLevel():.6g}"


def _same_region(node: Any, grid: Grid) -> bool:
    """True if a volume node covers the region of ``grid``, in the same axes, to half a voxel: both show the same."""
    if node.GetScene() is None or node.GetImageData() is None:
        return False
    try:
        other = grid_of(node)
    except InputError:
        return False
    return np.allclose(_box(other), _box(grid), rtol=0, atol=0.5 * max(grid.spacing_mm))


def _overlap(one: Any, other: Any) -> bool:
    """True if the middle of each volume node lies within the other: a view of one is a view of both."""
    boxes = np.zeros((2, 6))
    for node, box in zip((one, other), boxes, strict=True):
        node.GetRASBounds(box)
    low, high = boxes[:, ::2], boxes[:, 1::2]
    middle = (low + high) / 2
    return bool((low[::-1] <= middle).all() and (middle <= high[::-1]).all())


def _box(grid: Grid) -> np.ndarray:
    """The three edges of a grid's outer box and its centre, in mm, as columns."""
    steps = grid.matrix * np.asarray(grid.spacing_mm)
    counts = np.asarray(grid.shape[::-1])
    centre = np.asarray(grid.origin_mm) + steps @ ((counts - 1) / 2)
    return np.column_stack([steps * counts, centre])


def ordinary_composites(scene: Any) -> list[Any]:
    """The composite nodes of all slice views except our own comparison's."""
    count = scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")
    nodes = [scene.GetNthNodeByClass(index, "vtkMRMLSliceCompositeNode") for index in range(count)]
    return [node for node in nodes if not (node.GetLayoutName() or "").startswith(OWN_VIEWS)]


def put_beside(scene: Any, node: Any, beside: Any) -> None:
    """Let ``node`` follow ``beside`` in the subject hierarchy, under the same study or folder."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if hierarchy is None:
        return
    anchor = hierarchy.GetItemByDataNode(beside) if beside is not None and beside.GetScene() is not None else 0
    parent = hierarchy.GetItemParent(anchor) if anchor else hierarchy.GetSceneItemID()
    item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(parent, node)
    if not anchor:
        return
    hierarchy.SetItemParent(item, parent)
    children = vtk.vtkIdList()
    hierarchy.GetItemChildren(parent, children)
    order = [children.GetId(index) for index in range(children.GetNumberOfIds())]
    following = order[order.index(anchor) + 1 :]
    if following and following[0] != item:
        hierarchy.MoveItem(item, following[0])


class PreviewSequence:
    """Previews as a sequence that the Sequences module replays.

    Values in HU are kept as whole numbers, which halves the memory.  When ``budget_bytes`` are full, every second
    preview is dropped and from then on only every second one kept, so that the replay still spans the whole run.
    """

    def __init__(
        self, scene: Any, name: str, grid: Grid, *, unit: str = "HU", budget_bytes: int = 1_000_000_000
    ) -> None:
        self._scene, self._name, self._grid = scene, name, grid
        self._dtype = np.dtype(np.int16 if unit == "HU" else np.float32)
        self._most = max(3, budget_bytes // (grid.voxels * self._dtype.itemsize))
        self._every, self._seen = 1, 0
        self.node: Any = None
        self.browser: Any = None

    @staticmethod
    def require(scene: Any) -> None:
        """Raises InputError where the application lacks what replays a sequence."""
        if not all(scene.IsNodeClassRegistered(f"vtkMRMLSequence{part}Node") for part in ("", "Browser")):
            raise InputError(_("Previews are not recorded: Slicer's module Sequences is not there."))

    @property
    def frames(self) -> int:
        return self.node.GetNumberOfDataNodes() if self.node is not None else 0

    def copy_of(self, array: np.ndarray) -> Any:
        """What is kept of ``array`` (slices, rows, columns); in any thread, as it takes 20 ms at 256^3."""
        return image_like(self._limited(array), self._dtype)

    def record(self, array: np.ndarray, step: int, *, last: bool = False, copy: Any = None) -> bool:
        """Keep a copy of ``array`` (slices, rows, columns); False where the sequence was deleted.

        last: the result, which is always kept.  copy: :meth:`copy_of` the same array, where it was made before.
        """
        if self.node is None:
            self.node = self._scene.AddNewNodeByClass("vtkMRMLSequenceNode", f"{self._name} {_('previews')}")
            self.node.SetIndexName("step")
            self.node.SetIndexUnit("")
            self.node.SetIndexTypeFromString("numeric")
        if self.node.GetScene() is None:
            return False
        wanted = self._seen % self._every == 0
        self._seen += 1
        if not (wanted or last):
            return True
        if self.frames >= self._most:
            self._thin_out()
        frame = slicer.vtkMRMLScalarVolumeNode()
        frame.SetName(self._name)
        frame.SetAttribute(HELPER, "1")  # the node that replays takes its attributes from the frames
        place(frame, self._grid)
        self.node.SetDataNodeAtValue(frame, str(step))  # copies the node: cheap, as it has no voxels yet
        self.node.GetDataNodeAtValue(str(step)).SetAndObserveImageData(
            copy if copy is not None else self.copy_of(array)
        )
        return True

    def finish(self, output: Any = None) -> Any:
        """Make the browser node that replays; None where nothing was recorded or the sequence was deleted.

        The replay has a volume node of its own, with the window and level of ``output``: it never touches the result.
        """
        if self.node is None or self.node.GetScene() is None or not self.frames:
            return None
        replay = self._scene.AddNewNodeByClass(VOLUME_CLASS, f"{self._name} {_('replay')}")
        put_beside(self._scene, replay, output)
        replay.CreateDefaultDisplayNodes()
        display = output.GetDisplayNode() if output is not None and output.GetScene() is not None else None
        if display is not None:  # before the voxels are there: nothing looks for a window of its own
            set_window(replay.GetDisplayNode(), display.GetWindow(), display.GetLevel())
        self.browser = self._scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", self.node.GetName())
        self.browser.AddProxyNode(replay, self.node, False)
        return self.browser

    def _thin_out(self) -> None:
        self._every *= 2
        for value in [self.node.GetNthIndexValue(index) for index in range(1, self.frames, 2)]:
            self.node.RemoveDataNodeAtValue(value)

    def _limited(self, array: np.ndarray) -> np.ndarray:
        """Values that fit the kept type; the copy is only made where some do not."""
        if self._dtype != np.int16 or (array.min() > -32768 and array.max() < 32767):
            return array
        return np.clip(array, -32768, 32767)
