"""Voxels and geometry of volume nodes, to and from numpy arrays and the engine's grids.

The engine counts world coordinates in LPS, as ITK does, MRML in RAS: the first two change their sign.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import vtk
from vtk.util import numpy_support

from DiffusionMBIRLib.geometry import Grid

_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # LPS <-> RAS


def voxels(node: Any) -> np.ndarray:
    """The voxels of a volume node as a view (slices, rows, columns), where there are several components with these as a
    last axis; the node owns the memory.
    """
    return image_voxels(node.GetImageData())


def image_voxels(image: Any) -> np.ndarray:
    """The values of a vtkImageData as a view (slices, rows, columns), with components as a last axis."""
    values = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    return values.reshape(*image.GetDimensions()[::-1], *values.shape[1:])


def empty_image(shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
    """A new vtkImageData of (slices, rows, columns) whose values are still to be set."""
    image = vtk.vtkImageData()
    image.SetDimensions(shape[::-1])
    image.AllocateScalars(numpy_support.get_vtk_array_type(np.dtype(dtype)), 1)
    return image


def image_like(array: np.ndarray, dtype: Any = np.float32) -> Any:
    """A new vtkImageData with the values of ``array`` (slices, rows, columns), which is copied once."""
    image = empty_image(array.shape, dtype)
    np.copyto(image_voxels(image), array, casting="unsafe")
    return image


def write_voxels(node: Any, array: np.ndarray, image: Any = None) -> None:
    """Let a volume node show ``array`` (slices, rows, columns) as float32, with a single ModifiedEvent.

    image: a vtkImageData whose float32 voxels ``array`` is; a node that has no memory for them takes it over.

    The values go into the node's own memory where shape and type allow it: nothing is allocated, so that views and
    volume rendering keep what they built.
    """
    was_modifying = node.StartModify()
    try:
        own = node.GetImageData()
        if _holds(own, array.shape):
            np.copyto(voxels(node), array, casting="unsafe")
            own.GetPointData().GetScalars().Modified()
            own.Modified()  # the node passes it on as ImageDataModifiedEvent
        else:
            node.SetAndObserveImageData(image if image is not None else image_like(array))
        node.StorableModified()
        node.Modified()
    finally:
        node.EndModify(was_modifying)


def _holds(image: Any, shape: tuple[int, ...]) -> bool:
    return (
        image is not None
        and tuple(image.GetDimensions()[::-1]) == tuple(shape)
        and image.GetScalarType() == vtk.VTK_FLOAT
        and image.GetNumberOfScalarComponents() == 1
    )


def ijk_to_world(node: Any) -> np.ndarray:
    """The 4 x 4 matrix from (column, row, slice) to RAS in mm, with the linear transforms that the node lies under."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    result = _array(matrix)
    parent = node.GetParentTransformNode()
    if parent is not None:
        parent.GetMatrixTransformToWorld(matrix)
        result = _array(matrix) @ result
    return result


def grid_of(node: Any) -> Grid:
    """Where the voxels lie in the world; raises InputError for sheared axes and for a spacing of zero."""
    lps = _FLIP @ ijk_to_world(node)
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    safe = np.where(spacing > 0, spacing, 1.0)
    return Grid(
        tuple(node.GetImageData().GetDimensions()[::-1]),
        tuple(spacing),
        tuple(lps[:3, 3]),
        tuple((lps[:3, :3] / safe).reshape(-1)),
    )


def place(node: Any, grid: Grid) -> None:
    """Give a volume node the geometry of ``grid`` in the world, under no transform; no event if it has it already."""
    if node.GetParentTransformNode() is not None:
        node.SetAndObserveTransformNodeID(None)
    wanted = grid.ijk_to_ras
    if np.allclose(ijk_to_world(node), wanted, rtol=0, atol=1e-9):
        return
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(wanted.reshape(-1).tolist())
    node.SetIJKToRASMatrix(matrix)


def _array(matrix: Any) -> np.ndarray:
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def sample(array: np.ndarray, count: int = 200_000) -> np.ndarray:
    """Finite values from a regular raster of the array, at most about ``count``: enough for percentiles, in a ms."""
    stride = max(1, int(np.ceil((array.size / count) ** (1 / array.ndim))))
    values = array[tuple(slice(None, None, stride) for _ in range(array.ndim))]
    return values[np.isfinite(values)]
