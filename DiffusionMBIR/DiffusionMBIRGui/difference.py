"""Result minus reference as a volume in diverging colours.

The values are computed without a node, slab by slab, so that a thread may do it while Slicer stays alive.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import vtk

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import Grid

from .compare import require_pair
from .scene import VOLUME_CLASS, put_beside, set_window
from .texts import _
from .volumes import empty_image, grid_of, ijk_to_ras, image_like, image_voxels, place, sample, voxels

DIVERGING = "DiffusionMBIR.Diverging"  # attribute of the colour node
_SLAB = 16  # slices at a time: little memory, and no call that holds up other threads for long


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
        self._image: Any = None
        self._reach = 0.0

    def compute(self) -> None:
        """In any thread.  Raises InputError where the two volumes do not overlap."""
        values, reference = self._voxels
        image = empty_image(self._grid.shape)
        difference = image_voxels(image)
        slab_of = _sampler(reference, self._own, self._grid)
        overlap = False
        for first in range(0, len(values), _SLAB):
            part = slice(first, min(first + _SLAB, len(values)))
            np.subtract(values[part], slab_of(part), out=difference[part], dtype=np.float32, casting="unsafe")
            outside = np.isnan(difference[part])
            overlap = overlap or not outside.all()
            np.copyto(difference[part], 0, where=outside)
        if not overlap:
            raise InputError(_("Result and reference do not overlap: choose a reference of the same region."))
        self._reach = max(float(np.percentile(np.abs(sample(difference)), 99.5)), 1e-6)
        self._image = image

    def show(self, scene: Any, node: Any = None) -> Any:
        """The node that shows what was computed: ``node``, an earlier difference, in place, or else a new one."""
        if node is None or node.GetScene() is not scene:
            node = scene.AddNewNodeByClass(VOLUME_CLASS, scene.GenerateUniqueName(self._name))
            put_beside(scene, node, self._result)
        if node.GetDisplayNode() is None:
            node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetAndObserveColorNodeID(diverging_colours(scene).GetID())
        set_window(display, 2 * self._reach, 0.0)  # before the voxels come: it looks for no window of its own
        was_modifying = node.StartModify()
        place(node, self._grid)
        node.SetAndObserveImageData(self._image)
        node.EndModify(was_modifying)
        return node


def difference_volume(scene: Any, result: Any, reference: Any, node: Any = None) -> Any:
    """The node of a :class:`Difference`, computed at once; node: an earlier difference to update in place."""
    difference = Difference(result, reference)
    difference.compute()
    return difference.show(scene, node)


def _sampler(array: np.ndarray, own: Grid, grid: Grid) -> Any:
    """A function from a slice of ``grid``'s slices to the values of ``array`` there, NaN where it has none."""
    factors = [n // m for n, m in zip(own.shape, grid.shape, strict=True)]
    if min(factors) < 1 or not _is_coarser(own, grid, factors):
        return _interpolator(array, own, grid)

    def means(part: slice) -> np.ndarray:
        block = array[part.start * factors[0] : part.stop * factors[0]]
        if factors == [1, 1, 1]:
            return block
        total = np.zeros((part.stop - part.start, *grid.shape[1:]), np.float32)
        for first in np.ndindex(*factors):  # several times as fast as a mean over the axes of blocks
            total += block[tuple(slice(start, None, step) for start, step in zip(first, factors, strict=True))]
        return total / np.float32(np.prod(factors))

    return means


def _is_coarser(own: Grid, grid: Grid, factors: list[int]) -> bool:
    """True if each voxel of ``grid`` is a block of ``factors`` (slices, rows, columns) voxels of ``own``."""
    if tuple(n * f for n, f in zip(grid.shape, factors, strict=True)) != own.shape:
        return False
    along = np.asarray(factors[::-1])
    expected = ijk_to_ras(own)
    expected[:3, 3] += expected[:3, :3] @ ((along - 1) / 2)
    expected[:3, :3] *= along
    return np.allclose(expected, ijk_to_ras(grid), rtol=0, atol=0.05 * min(grid.spacing_mm))


def _interpolator(array: np.ndarray, own: Grid, grid: Grid) -> Any:
    """Linear interpolation from one grid to another, in VTK's threads."""
    axes = vtk.vtkMatrix4x4()
    axes.DeepCopy((np.linalg.inv(ijk_to_ras(own)) @ ijk_to_ras(grid)).reshape(-1).tolist())
    reslice = vtk.vtkImageReslice()
    reslice.SetInputData(image_like(array))
    reslice.SetResliceAxes(axes)
    reslice.SetInterpolationModeToLinear()
    reslice.SetBackgroundLevel(float("nan"))
    reslice.SetOutputSpacing(1, 1, 1)
    reslice.SetOutputOrigin(0, 0, 0)
    _slices, rows, columns = grid.shape

    def interpolated(part: slice) -> np.ndarray:
        reslice.SetOutputExtent(0, columns - 1, 0, rows - 1, part.start, part.stop - 1)
        reslice.Update()
        return image_voxels(reslice.GetOutput())

    return interpolated


def diverging_colours(scene: Any) -> Any:
    """The scene's colour node from blue over white (zero, the middle of the window) to red; made at first use."""
    count = scene.GetNumberOfNodesByClass("vtkMRMLColorTableNode")
    for index in range(count):
        node = scene.GetNthNodeByClass(index, "vtkMRMLColorTableNode")
        if node.GetAttribute(DIVERGING) == "1":
            return node
    node = scene.AddNewNodeByClass("vtkMRMLColorTableNode", _("Difference (blue - white - red)"))
    node.SetAttribute(DIVERGING, "1")
    node.SetTypeToUser()
    node.SetNumberOfColors(255)  # odd: one colour is exactly the middle
    for index in range(255):
        red, green, blue = _diverging(index / 127 - 1)
        node.SetColor(index, f"{index - 127}", red, green, blue, 1.0)
    return node


def _diverging(position: float) -> tuple[float, float, float]:
    """Colour at -1 (blue) to 1 (red), darker towards the ends so that they differ in grey as well."""
    strength = abs(position)
    fading = 1 - min(2 * strength, 1.0) * 0.75 - max(2 * strength - 1, 0.0) * 0.25
    main = 1 - max(2 * strength - 1, 0.0) * 0.45
    return (main, fading, fading) if position > 0 else (fading, fading, main)
