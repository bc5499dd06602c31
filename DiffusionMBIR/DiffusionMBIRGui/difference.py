"""Result minus reference as a volume in diverging colours.

The values are computed without a node, slab by slab, so that a thread may do it while Slicer stays alive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer

from DiffusionMBIRLib.errors import InputError

from .compare import require_pair
from .regrid import SLAB, sampler
from .scene import HELPER, UNIT, VOLUME_CLASS, put_beside, set_window
from .texts import _
from .volumes import empty_image, grid_of, image_voxels, place, sample, voxels

DIVERGING = "DiffusionMBIR.Diverging"  # attribute of the colour node


class Difference:
    """Result minus reference on the result's grid: made of nodes, computed anywhere, shown in a node.

    A finer reference is averaged over the voxels that one of the result covers, any other one interpolated; where the
    reference ends, the difference is zero.  Raises InputError where a volume is missing or both are the same.
    """

    def __init__(self, result: Any, reference: Any) -> None:
        require_pair(result, reference)
        self._result, self._name = result, f"{result.GetName()} - {reference.GetName()}"
        self._grid, self._own = grid_of(result), grid_of(reference)
        self._voxels = (voxels(result), voxels(reference))  # the memory stays, whatever becomes of the nodes
        self._unit = result.GetAttribute(UNIT) if result.GetAttribute(UNIT) is not None else "HU"
        self._image: Any = None
        self.reach = 0.0  # the colours' ends, in the result's unit

    def compute(self) -> None:
        """In any thread.  Raises InputError where the two volumes do not overlap."""
        values, reference = self._voxels
        image = empty_image(self._grid.shape)
        difference = image_voxels(image)
        slab_of = sampler(reference, self._own, self._grid)
        overlap = False
        for first in range(0, len(values), SLAB):
            part = slice(first, min(first + SLAB, len(values)))
            np.subtract(values[part], slab_of(part), out=difference[part], dtype=np.float32, casting="unsafe")
            outside = np.isnan(difference[part])
            overlap = overlap or not outside.all()
            np.copyto(difference[part], 0, where=outside)
        if not overlap:
            raise InputError(_("Result and reference do not overlap: choose a reference of the same region."))
        self.reach = max(float(np.percentile(np.abs(sample(difference)), 99.5)), 1e-6)
        self._image = image

    def show(self, scene: Any, node: Any = None) -> Any:
        """The node that shows what was computed: ``node``, an earlier difference, in place, or else a new one."""
        if node is None or node.GetScene() is not scene:
            node = scene.AddNewNodeByClass(VOLUME_CLASS, scene.GenerateUniqueName(self._name))
            put_beside(scene, node, self._result)
            node.SetAttribute(HELPER, "1")
        if node.GetDisplayNode() is None:
            node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetAndObserveColorNodeID(diverging_colours(scene).GetID())
        set_window(display, 2 * self.reach, 0.0)  # before the voxels come: it looks for no window of its own
        show_legend(node, self._unit, "%+.0f" if self.reach >= 10 else "%+.2g")
        was_modifying = node.StartModify()
        place(node, self._grid)
        node.SetAndObserveImageData(self._image)
        node.EndModify(was_modifying)
        return node

    def ends(self) -> tuple[str, str]:
        """What the first and the last colour stand for, e.g. '-300 HU' and '+300 HU'."""
        text = f"{float(f'{self.reach:.3g}'):g} {self._unit}".strip()
        return f"-{text}", f"+{text}"


def show_legend(node: Any, title: str, number: str) -> None:
    """The colour bar of a volume in the slice views; a scene without Slicer's module Colors has none."""
    if not node.GetScene().IsNodeClassRegistered("vtkMRMLColorLegendDisplayNode"):
        return
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
    legend = legend or slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(node)
    if legend is not None:
        legend.SetTitleText(title)
        legend.SetLabelFormat(number)
        legend.SetVisibility(True)


def difference_volume(scene: Any, result: Any, reference: Any, node: Any = None) -> Any:
    """The node of a :class:`Difference`, computed at once; node: an earlier difference to update in place."""
    difference = Difference(result, reference)
    difference.compute()
    return difference.show(scene, node)


def diverging_colours(scene: Any) -> Any:
    """The scene's colour node from blue over white (zero, the middle of the window) to red; made at first use."""
    # An odd count: one colour is exactly the middle.
    colours = [_diverging(index / 127 - 1) for index in range(255)]
    return colours_of(scene, DIVERGING, _("Difference (blue - white - red)"), colours)


def colours_of(scene: Any, mark: str, name: str, colours: Sequence[tuple[float, float, float]]) -> Any:
    """The scene's colour node with an attribute ``mark``; made with these colours at first use."""
    count = scene.GetNumberOfNodesByClass("vtkMRMLColorTableNode")
    for index in range(count):
        node = scene.GetNthNodeByClass(index, "vtkMRMLColorTableNode")
        if node.GetAttribute(mark) == "1":
            return node
    node = scene.AddNewNodeByClass("vtkMRMLColorTableNode", name)
    node.SetAttribute(mark, "1")
    node.SetTypeToUser()
    node.SetNumberOfColors(len(colours))
    for index, (red, green, blue) in enumerate(colours):
        node.SetColor(index, f"{index}", red, green, blue, 1.0)
    return node


def colour_bar() -> str:
    """The same colours as a style sheet's gradient, for a label."""
    return gradient([_diverging(position) for position in (-1, -0.5, 0, 0.5, 1)])


def gradient(colours: Sequence[tuple[float, float, float]]) -> str:
    """The style sheet of a label that shows colours from left to right."""
    last = len(colours) - 1
    stops = ", ".join(f"stop:{index / last:g} {_css(colour)}" for index, colour in enumerate(colours))
    return f"background: qlineargradient(x1:0, y1:0, x2:1, y2:0, {stops}); color: black"


def _css(colour: tuple[float, float, float]) -> str:
    return f"rgb({', '.join(str(round(255 * part)) for part in colour)})"


def _diverging(position: float) -> tuple[float, float, float]:
    """Colour at -1 (blue) to 1 (red), darker towards the ends so that they differ in grey as well."""
    strength = abs(position)
    fading = 1 - min(2 * strength, 1.0) * 0.75 - max(2 * strength - 1, 0.0) * 0.25
    main = 1 - max(2 * strength - 1, 0.0) * 0.45
    return (main, fading, fading) if position > 0 else (fading, fading, main)
