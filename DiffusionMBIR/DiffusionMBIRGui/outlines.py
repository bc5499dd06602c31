"""Where to doubt, as outlines in the slice views: half-widths from a threshold on, and hallucination candidates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .difference import colours_of
from .scene import CANDIDATES
from .texts import _
from .volumes import empty_image, grid_of, image_voxels, place, voxels

DOUBT, CANDIDATE = 1, 2  # labels
COLOURS = "DiffusionMBIR.Outlines"  # attribute of the colour node
_COLOURS = ((0.0, 0.0, 0.0), (1.0, 0.75, 0.1), (0.95, 0.2, 0.9))


class DoubtOutlines:
    """One label map in the label layer of the slice views; what they showed before comes back."""

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._node: Any = None
        self._sources: tuple[Any, Any] = (None, None)
        self._former: list[tuple[Any, Any, Any]] = []

    @property
    def active(self) -> bool:
        return self._node is not None

    def start(self, result: Any, half_widths: Any, least: float, composites: Iterable[Any]) -> None:
        """Outline where half-widths are at least ``least``, and the candidates that the run of the result left."""
        self.stop()
        node = self._scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", _("doubt"))
        node.SetHideFromEditors(1)
        node.SetSaveWithScene(False)
        place(node, grid_of(half_widths))
        node.SetAndObserveImageData(empty_image(voxels(half_widths).shape, np.uint8))
        node.CreateDefaultDisplayNodes()
        table = colours_of(self._scene, COLOURS, _("Doubt (outlines)"), _COLOURS)
        table.SetColor(0, "0", 0.0, 0.0, 0.0, 0.0)
        node.GetDisplayNode().SetAndObserveColorNodeID(table.GetID())
        self._node, self._sources = node, (half_widths, result.GetNodeReference(CANDIDATES))
        self.set_threshold(least)
        for composite in composites:
            view = _view_of(self._scene, composite)
            self._former.append((composite, composite.GetLabelVolumeID(), view))
            composite.SetLabelVolumeID(node.GetID())
            if view is not None:
                view.SetUseLabelOutline(True)

    def set_threshold(self, least: float) -> None:
        half_widths, candidates = self._sources
        if self._node is None or any(n is None or n.GetScene() is None for n in (self._node, half_widths)):
            return
        labels = image_voxels(self._node.GetImageData())
        np.copyto(labels, voxels(half_widths) >= least, casting="unsafe")
        if candidates is not None and candidates.GetImageData() is not None:
            marked = voxels(candidates)
            if marked.shape == labels.shape:
                labels[marked > 0] = CANDIDATE
        self._node.GetImageData().GetPointData().GetScalars().Modified()
        self._node.GetImageData().Modified()
        self._node.Modified()

    def stop(self) -> None:
        """Give the views back; nothing happens where nothing is shown."""
        former, self._former = self._former, []
        for composite, label, view in former:
            if composite.GetScene() is self._scene:
                composite.SetLabelVolumeID(label)
            if view is not None and view.GetScene() is self._scene:
                view.SetUseLabelOutline(False)
        node, self._node = self._node, None
        if node is not None and node.GetScene() is self._scene:
            self._scene.RemoveNode(node)


def _view_of(scene: Any, composite: Any) -> Any:
    """The slice node of a composite node, None where it already draws outlines: these are the user's."""
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")):
        node = scene.GetNthNodeByClass(index, "vtkMRMLSliceNode")
        if node.GetLayoutName() == composite.GetLayoutName():
            return None if node.GetUseLabelOutline() else node
    return None
