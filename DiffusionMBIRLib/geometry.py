"""Where voxels and rays lie in space.  Arrays are (slices, rows, columns); millimetres follow ITK's (x, y, z)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .errors import InputError

_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def _finite(field: str, values: Iterable[float]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        raise InputError(f"{field} must hold numbers, not {values!r}") from None
    if not np.all(np.isfinite(numbers)):
        raise InputError(f"{field} holds a value that is not finite: {numbers}")
    return numbers


def _count(field: str, value: float) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number < 1 or number != value:
        raise InputError(f"{field} must be a positive integer, not {value!r}")
    return number


@dataclass(frozen=True)
class Grid:
    """A regular voxel grid.

    shape: (slices, rows, columns), the order of numpy arrays.
    spacing_mm, origin_mm: (x, y, z) = (along columns, rows, slices), in ITK's order.
    direction: the 3 x 3 direction cosines, row by row, as ITK's GetDirection gives them (LPS world).
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = _IDENTITY

    def __post_init__(self) -> None:
        if len(self.shape) != 3:
            raise InputError(f"grid.shape must be three positive integers (slices, rows, columns), not {self.shape}")
        object.__setattr__(self, "shape", tuple(_count("grid.shape", n) for n in self.shape))
        for field, length in (("spacing_mm", 3), ("origin_mm", 3), ("direction", 9)):
            values = _finite(f"grid.{field}", getattr(self, field))
            if len(values) != length:
                raise InputError(f"grid.{field} needs {length} numbers, not {len(values)}")
            object.__setattr__(self, field, values)
        if min(self.spacing_mm) <= 0:
            raise InputError(f"grid.spacing_mm must be positive, not {self.spacing_mm}")
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

    def coarsened(self, factor: int) -> Grid:
        """The grid whose voxels are means of factor x factor in-plane blocks of this one; same field of view.

        Raises InputError where the factor does not divide both rows and columns.
        """
        factor = _count("coarsen", factor)
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

    def to_dict(self) -> dict[str, Any]:
        return {
            "shape": list(self.shape),
            "spacing_mm": list(self.spacing_mm),
            "origin_mm": list(self.origin_mm),
            "direction": list(self.direction),
        }

    @classmethod
    def from_dict(cls, entries: dict[str, Any]) -> Grid:
        """The inverse of :meth:`to_dict`; raises InputError that names a missing or damaged field."""
        try:
            return cls(*(tuple(entries[k]) for k in ("shape", "spacing_mm", "origin_mm", "direction")))
        except KeyError as error:
            raise InputError(f"grid lacks the field {error.args[0]!r}") from None
        except TypeError:
            raise InputError(f"grid must map each field to a list of numbers, not {entries!r}") from None


@dataclass(frozen=True)
class ParallelBeam:
    """A stack of 2D parallel-beam scans: every slice is seen from the same views.

    A ray of view theta and detector coordinate s (mm) is the line x cos(theta) + y sin(theta) = s, with x along the
    columns and y along the rows of a slice, both measured from the centre of the grid.  Column j of the detector is
    centred at s = (j - (columns - 1) / 2) pitch_mm + offset_mm.

    angles_deg: any list of view angles in degrees.  offset_mm: detector shift against the rotation axis.
    """

    angles_deg: tuple[float, ...]
    columns: int
    pitch_mm: float
    offset_mm: float = 0.0

    def __post_init__(self) -> None:
        angles = _finite("geometry.angles_deg", self.angles_deg)
        if not angles:
            raise InputError("geometry.angles_deg is empty: give at least one view angle")
        object.__setattr__(self, "angles_deg", angles)
        object.__setattr__(self, "columns", _count("geometry.columns", self.columns))
        for field in ("pitch_mm", "offset_mm"):
            object.__setattr__(self, field, _finite(f"geometry.{field}", [getattr(self, field)])[0])
        if self.pitch_mm <= 0:
            raise InputError(f"geometry.pitch_mm must be positive, not {self.pitch_mm}")

    @property
    def views(self) -> int:
        return len(self.angles_deg)

    def data_shape(self, slices: int) -> tuple[int, int, int]:
        """Shape of the sinogram stack: (slices, views, columns)."""
        return slices, self.views, self.columns

    @classmethod
    def covering(cls, grid: Grid, angles_deg: Sequence[float], pitch_mm: float | None = None) -> ParallelBeam:
        """A detector that covers the whole slice from every side, its pitch the smaller pixel size by default."""
        rows, columns = grid.in_plane
        pitch = min(grid.spacing_mm[:2]) if pitch_mm is None else _finite("geometry.pitch_mm", [pitch_mm])[0]
        if pitch <= 0:
            raise InputError(f"geometry.pitch_mm must be positive, not {pitch}")
        diagonal = np.hypot(rows * grid.spacing_mm[1], columns * grid.spacing_mm[0])
        return cls(tuple(angles_deg), int(np.ceil(diagonal / pitch)) + 1, pitch)

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": "parallel-beam",
            "angles_deg": list(self.angles_deg),
            "columns": self.columns,
            "pitch_mm": self.pitch_mm,
            "offset_mm": self.offset_mm,
        }

    @classmethod
    def from_dict(cls, entries: dict[str, Any]) -> ParallelBeam:
        """The inverse of :meth:`to_dict`; raises InputError that names a missing, damaged or unknown field."""
        try:
            if entries["kind"] != "parallel-beam":
                raise InputError(f"geometry.kind {entries['kind']!r} is not known; 'parallel-beam' is")
            return cls(
                tuple(entries["angles_deg"]), entries["columns"], entries["pitch_mm"], entries.get("offset_mm", 0.0)
            )
        except KeyError as error:
            raise InputError(f"geometry lacks the field {error.args[0]!r}") from None
        except TypeError:
            raise InputError(f"geometry must map fields to numbers and lists, not {entries!r}") from None


def view_angles(views: int, angle_range_deg: float = 180.0, start_deg: float = 0.0) -> tuple[float, ...]:
    """Equidistant angles that start at ``start_deg`` and stop before ``start_deg + angle_range_deg``."""
    views = _count("views", views)
    if not 0 < angle_range_deg <= 360:
        raise InputError(f"angle_range_deg must lie above 0 and at most at 360, not {angle_range_deg}")
    return tuple(start_deg + angle_range_deg * k / views for k in range(views))


VIEWS_OF_START = 30
PIXELS_OF_START = 64  # along the shorter side, at least


def coarse_start(views: int, in_plane: tuple[int, int]) -> tuple[int, int]:
    """(k, f): the volume that noise is added to is made from every k-th view, on a grid with 1 / f of the pixels along
    each side; 1 of few views.
    """
    stride = views // VIEWS_OF_START
    factor = max(1, min(in_plane) // PIXELS_OF_START)
    if stride < 2:
        return 1, 1
    return stride, 1 if any(n % factor for n in in_plane) else factor


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
        return Grid((slices, rows, columns), tuple(spacing[::-1]), tuple(origin), tuple(world[:, ::-1].reshape(-1)))


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
