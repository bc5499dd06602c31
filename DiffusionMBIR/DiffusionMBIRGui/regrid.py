"""One volume on the grid of another: what a result is judged by.  Computed slab by slab, without a node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import vtk

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import Grid

from .scene import HELPER, VOLUME_CLASS, put_beside
from .texts import _, shape
from .volumes import empty_image, grid_of, image_like, image_voxels, place, voxels

SLAB = 16  # slices at a time: little memory, and no call that holds up other threads for long


class OnGrid:
    """A reference on a result's grid: made of nodes, computed anywhere, shown in a node of its own."""

    def __init__(self, reference: Any, result: Any) -> None:
        self._reference, self._name = reference, reference.GetName()
        self._voxels = voxels(reference)  # the memory stays, whatever becomes of the node
        self._own, self._grid = grid_of(reference), grid_of(result)
        self._image: Any = None

    @property
    def needed(self) -> bool:
        """False where both lie on the same grid."""
        own, grid = self._own, self._grid
        return own.shape != grid.shape or not np.allclose(own.ijk_to_ras, grid.ijk_to_ras, rtol=0, atol=1e-3)

    def compute(self) -> None:
        """In any thread.  Raises InputError where the two volumes do not overlap."""
        image = empty_image(self._grid.shape)
        values, slab_of = image_voxels(image), sampler(self._voxels, self._own, self._grid)
        outside = float(self._voxels.min())
        found = False
        for first in range(0, len(values), SLAB):
            part = slice(first, min(first + SLAB, len(values)))
            slab = slab_of(part)
            beyond = np.isnan(slab)
            found = found or not beyond.all()
            values[part] = np.where(beyond, outside, slab)
        if not found:
            raise InputError(_("Result and reference do not overlap: choose a reference of the same region."))
        self._image = image

    def show(self, scene: Any) -> Any:
        """A new node that shows what was computed."""
        name = _("{volume} on the result's grid, {shape}").format(volume=self._name, shape=shape(self._grid.shape))
        node = scene.AddNewNodeByClass(VOLUME_CLASS, name)
        put_beside(scene, node, self._reference)
        node.SetAttribute(HELPER, "1")
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetAutoWindowLevel(0)  # before the voxels come: it looks for no window of its own
        place(node, self._grid)
        node.SetAndObserveImageData(self._image)
        return node


def sampler(array: np.ndarray, own: Grid, grid: Grid) -> Callable[[slice], np.ndarray]:
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
    expected = own.ijk_to_ras
    expected[:3, 3] += expected[:3, :3] @ ((along - 1) / 2)
    expected[:3, :3] *= along
    return np.allclose(expected, grid.ijk_to_ras, rtol=0, atol=0.05 * min(grid.spacing_mm))


def _interpolator(array: np.ndarray, own: Grid, grid: Grid) -> Any:
    """Linear interpolation from one grid to another, in VTK's threads."""
    axes = vtk.vtkMatrix4x4()
    axes.DeepCopy((np.linalg.inv(own.ijk_to_ras) @ grid.ijk_to_ras).reshape(-1).tolist())
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
