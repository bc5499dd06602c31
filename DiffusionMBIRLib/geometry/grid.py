"""Where voxels lie in space.  Arrays are (slices, rows, columns); millimetres follow ITK's (x, y, z)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InputError
from .checks import count, finite, length

_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Grid:
    """A regular voxel grid.

    shape: (slices, rows, columns), the order of numpy arrays.
    spacing_mm, origin_mm: (x, y, z) = (along columns, rows, slices), in ITK's order.
    direction: the 3 x 3 direction cosines, row by row, as ITK's GetDirection gives them (LPS world).
    isocentre_mm: the point of the same world that a scanner turns about, (x, y, z); None: the middle of the grid.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = _IDENTITY
    isocentre_mm: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if len(self.shape) != 3:
            raise InputError(f"grid.shape must be three positive integers (slices, rows, columns), not {self.shape}")
        object.__setattr__(self, "shape", tuple(count("grid.shape", n) for n in self.shape))
        lengths = {"spacing_mm": 3, "origin_mm": 3, "direction": 9, "isocentre_mm": 3}
        for field, numbers in lengths.items():
            if field == "isocentre_mm" and self.isocentre_mm is None:
                continue
            values = finite(f"grid.{field}", getattr(self, field))
            if len(values) != numbers:
                raise InputError(f"grid.{field} needs {numbers} numbers, not {len(values)}")
            object.__setattr__(self, field, values)
        if min(self.spacing_mm) <= 0:
            raise InputError(f"grid.spacing_mm must be positive, not {self.spacing_mm}")
        for spacing in self.spacing_mm:
            length("grid.spacing_mm", spacing)
        if not np.allclose(self.matrix.T @ self.matrix, np.eye(3), atol=1e-2):
            raise InputError(f"grid.direction must hold three orthogonal unit vectors, not {self.direction}; resample")

    @property
    def in_plane(self) -> tuple[int, int]:
        """(rows, columns) of one slice."""
        return self.shape[1], self.shape[2]

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def matrix(self) -> np.ndarray:
        """Direction cosines as a 3 x 3 array; column i is the world direction of index axis i (x, y, z)."""
        return np.asarray(self.direction).reshape(3, 3)

    @property
    def ijk_to_ras(self) -> np.ndarray:
        """The 4 x 4 matrix from (column, row, slice) to right, anterior, superior in mm, as Slicer has it."""
        placed = np.eye(4)
        placed[:3, :3] = self.matrix * np.asarray(self.spacing_mm)
        placed[:3, 3] = self.origin_mm
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ placed

    @property
    def off_isocentre_mm(self) -> tuple[float, float, float]:
        """Where the middle of the grid lies, seen from the isocentre along the grid's own axes (x, y, z)."""
        if self.isocentre_mm is None:
            return 0.0, 0.0, 0.0
        half = (np.asarray(self.shape[::-1]) - 1) / 2 * np.asarray(self.spacing_mm)
        x, y, z = self.matrix.T @ (np.asarray(self.origin_mm) - np.asarray(self.isocentre_mm)) + half
        return float(x), float(y), float(z)

    def slab(self, held: slice) -> Grid:
        """The grid of some slices that follow each other; the isocentre stays where it is."""
        half = (np.asarray(self.shape[::-1]) - 1) / 2 * np.asarray(self.spacing_mm)
        middle = np.asarray(self.origin_mm) + self.matrix @ half
        up = self.matrix @ np.array([0.0, 0.0, held.start * self.spacing_mm[2]])
        return replace(
            self,
            shape=(held.stop - held.start, *self.in_plane),
            origin_mm=tuple(np.asarray(self.origin_mm) + up),
            isocentre_mm=tuple(middle) if self.isocentre_mm is None else self.isocentre_mm,
        )

    def coarsened(self, factor: int) -> Grid:
        """The grid whose voxels are means of factor x factor in-plane blocks of this one; same field of view.

        Raises InputError where the factor does not divide both rows and columns.
        """
        factor = count("coarsen", factor)
        rows, columns = self.in_plane
        if rows % factor or columns % factor:
            raise InputError(
                f"coarsen: in-plane size {rows} x {columns} cannot be divided by {factor}; crop or pad it, or use 1"
            )
        shift = (factor - 1) / 2
        index = np.array([shift * self.spacing_mm[0], shift * self.spacing_mm[1], 0.0])
        return replace(
            self,
            shape=(self.shape[0], rows // factor, columns // factor),
            spacing_mm=(self.spacing_mm[0] * factor, self.spacing_mm[1] * factor, self.spacing_mm[2]),
            origin_mm=tuple(np.asarray(self.origin_mm) + self.matrix @ index),
        )

    def divided(self, parts: int) -> Grid:
        """The grid whose in-plane pixels are a ``parts``-th of these along each side; same field of view."""
        parts = count("parts", parts)
        (slices, rows, columns), (x, y, z) = self.shape, self.spacing_mm
        shift = (1 / parts - 1) / 2
        index = np.array([shift * x, shift * y, 0.0])
        return replace(
            self,
            shape=(slices, rows * parts, columns * parts),
            spacing_mm=(x / parts, y / parts, z),
            origin_mm=tuple(np.asarray(self.origin_mm) + self.matrix @ index),
        )

    def to_dict(self) -> dict[str, Any]:
        entries = {name: list(getattr(self, name)) for name in ("shape", "spacing_mm", "origin_mm", "direction")}
        return entries if self.isocentre_mm is None else {**entries, "isocentre_mm": list(self.isocentre_mm)}

    @classmethod
    def from_dict(cls, entries: dict[str, Any]) -> Grid:
        """The inverse of :meth:`to_dict`; raises InputError that names a missing or damaged field."""
        try:
            shape, spacing, origin, direction = (
                tuple(entries[k]) for k in ("shape", "spacing_mm", "origin_mm", "direction")
            )
            isocentre = entries.get("isocentre_mm")
            return cls(shape, spacing, origin, direction, None if isocentre is None else tuple(isocentre))
        except KeyError as error:
            raise InputError(f"grid lacks the field {error.args[0]!r}") from None
        except TypeError:
            raise InputError(f"grid must map each field to a list of numbers, not {entries!r}") from None


def contiguous(array: np.ndarray) -> np.ndarray:
    """A volume in C order, as it is where it is so.  Copied row by row: four times as fast as in one go where the axes
    have changed places, as 256^3 values at a large stride do not fit any cache.
    """
    if array.flags.c_contiguous or array.ndim != 3:
        return np.ascontiguousarray(array)
    out = np.empty(array.shape, array.dtype)
    for row in range(array.shape[1]):
        out[:, row] = array[:, row]
    return out


@dataclass(frozen=True)
class AxisOrder:
    """How the axes of a stored array are permuted and flipped to lie axially (slices S, rows P, columns L)."""

    permutation: tuple[int, ...]
    flipped: tuple[bool, ...]  # of the permuted array

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Stored order -> axial order, contiguous."""
        turned = np.transpose(array, self.permutation)
        axes = tuple(axis for axis in range(3) if self.flipped[axis])
        return contiguous(np.flip(turned, axes))

    def undo(self, array: np.ndarray) -> np.ndarray:
        """Axial order -> stored order, contiguous."""
        return self.inverse().apply(array)

    def inverse(self) -> AxisOrder:
        """The order that leads back: ``inverse().apply`` is :meth:`undo`, and it serves grids too."""
        back = tuple(int(axis) for axis in np.argsort(self.permutation))
        return AxisOrder(back, tuple(self.flipped[axis] for axis in back))

    def apply_to_grid(self, grid: Grid) -> Grid:
        """The same voxels' grid after :meth:`apply`."""
        # World vector and spacing of each array axis (slices, rows, columns) = ITK's index axes (z, y, x).
        world = grid.matrix[:, ::-1][:, self.permutation]
        spacing = np.asarray(grid.spacing_mm)[::-1][list(self.permutation)]
        shape = np.asarray(grid.shape)[list(self.permutation)]
        origin = np.asarray(grid.origin_mm, dtype=float)
        for axis in range(3):
            if self.flipped[axis]:
                origin = origin + world[:, axis] * spacing[axis] * (shape[axis] - 1)
                world[:, axis] = -world[:, axis]
        slices, rows, columns = (int(n) for n in shape)
        axes = tuple(world[:, ::-1].reshape(-1))
        return Grid((slices, rows, columns), tuple(spacing[::-1]), tuple(origin), axes, grid.isocentre_mm)


def axial_order(grid: Grid) -> AxisOrder:
    """The permutation and flips to axial (LPS) order; an oblique grid goes to the nearest axes."""
    world = grid.matrix[:, ::-1]  # columns: world direction of array axes 0, 1, 2
    remaining = [0, 1, 2]
    permutation, flipped = [], []
    for target in (2, 1, 0):  # slices along S (z), rows along P (y), columns along L (x)
        axis = max(remaining, key=lambda a: abs(world[target, a]))
        remaining.remove(axis)
        permutation.append(axis)
        flipped.append(bool(world[target, axis] < 0))
    return AxisOrder(tuple(permutation), tuple(flipped))
