"""What scanners with a point source and a detector of many rows share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import numpy as np

from ..errors import InputError
from .checks import count, length, moving
from .grid import Grid
from .rays import Poses, RayGeometry

Same = TypeVar("Same", bound="PointSource")
_LEAST_DEPTH = 1e-3  # of a voxel before the source, as a share of the distance to the detector


class NothingSeen(InputError):
    """No view sees anything of a grid; of a part of a grid, or of some views alone, that need not be wrong."""


@dataclass(frozen=True, eq=False)
class PointSource(RayGeometry):
    """Rays from a point to a detector of rows x columns; slices mix in the data, (rows, views, columns).

    pitch_mm, row_pitch_mm: from one detector column, or row, to the next, on the detector.
    """

    STACKED: ClassVar[bool] = False
    EVERY_LINE_DEG: ClassVar[float] = 360.0

    rows: int
    columns: int
    pitch_mm: float
    row_pitch_mm: float

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("rows", "columns"):
            object.__setattr__(self, field, count(f"geometry.{field}", getattr(self, field)))
        for field in ("pitch_mm", "row_pitch_mm"):
            object.__setattr__(self, field, length(f"geometry.{field}", getattr(self, field)))
        moving("geometry.angles_deg", self.angles_deg)

    @property
    def detector(self) -> tuple[int, int]:
        return self.rows, self.columns

    def divided_rows(self: Same, parts: int) -> Same:
        """The same scanner with each detector row divided into so many of equal height."""
        return replace(self, rows=self.rows * parts, row_pitch_mm=self.row_pitch_mm / parts)

    def require_in_sight(self, grid: Grid) -> None:
        """Raise InputError where the source of a view stands within or beyond the grid, and where no view's detector
        sees anything of it.
        """
        along, across, up = _in_view(self.poses(), corners_of(grid))
        if along.min() <= _LEAST_DEPTH:
            view = int(along.min(axis=1).argmin())
            raise InputError(
                f"view {view} (angle {self.angles_deg[view]:g} deg): the source stands within the grid or on its other "
                "side; check the distance from source to axis, or crop the grid"
            )
        seen = True
        for places, cells in ((across, self.columns), (up, self.rows)):
            seen = seen & (places.max(axis=1) > -cells / 2) & (places.min(axis=1) < cells / 2)
        if not np.any(seen):
            raise NothingSeen(
                "the detector misses the grid in every view; check the detector's offsets and the grid's isocentre"
            )


def corners_of(grid: Grid) -> np.ndarray:
    """The corners of a grid's outermost voxels in the isocentre world, (8, 3) in mm."""
    half = np.asarray(grid.shape[::-1]) * grid.spacing_mm / 2
    signs = np.stack(np.meshgrid(*3 * [(-1.0, 1.0)], indexing="ij"), axis=-1).reshape(8, 3)
    return signs * half + grid.off_isocentre_mm


def _in_view(poses: Poses, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each view (first axis) and point: depth before the source as a share of the detector's, and steps along u and
    v from the detector's centre to the point's shadow.
    """
    assert poses.source is not None
    u, v, middle = (axis[:, None] for axis in (poses.u, poses.v, poses.centre - poses.source))
    normal = np.cross(poses.u, poses.v)[:, None]
    rays = points[None] - poses.source[:, None]
    depth = (rays * normal).sum(-1) / (middle * normal).sum(-1)
    safe = np.where(depth > _LEAST_DEPTH, depth, 1.0)[..., None]
    on_plane = rays / safe - middle
    across, up = ((on_plane * axis).sum(-1) / (axis**2).sum(-1) for axis in (u, v))
    if poses.arc:  # of a middle column straight before the source
        reach = np.linalg.norm(poses.u, axis=1)[:, None] / np.abs(
            (middle * normal).sum(-1) / np.linalg.norm(normal, axis=-1)
        )
        across, up = np.arctan(across * reach) / reach, up * np.cos(np.arctan(across * reach))
    return depth, across, up
