"""Parallel beams, and the angles of simulated scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..errors import InputError
from .checks import count, finite, length
from .grid import Grid
from .rays import Poses, RayGeometry


@dataclass(frozen=True, eq=False)
class ParallelBeam(RayGeometry):
    """A stack of 2D parallel-beam scans: every slice is seen from the same views.

    A ray of view theta and detector coordinate s (mm) is the line x cos(theta) + y sin(theta) = s, with x along the
    columns and y along the rows of a slice, both measured from the isocentre.  Column j of the detector is centred at
    s = (j - (columns - 1) / 2) pitch_mm + offset_mm.

    angles_deg: any list of view angles in degrees.  offset_mm: detector shift against the rotation axis.
    """

    KIND: ClassVar[str] = "parallel-beam"
    LABEL: ClassVar[str] = "Parallel beam"

    columns: int
    pitch_mm: float
    offset_mm: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "columns", count("geometry.columns", self.columns))
        object.__setattr__(self, "pitch_mm", length("geometry.pitch_mm", self.pitch_mm))
        object.__setattr__(self, "offset_mm", finite("geometry.offset_mm", [self.offset_mm])[0])

    @property
    def detector(self) -> tuple[int, int]:
        return 1, self.columns

    def poses(self) -> Poses:
        theta = np.radians(self.angles_deg)
        cos, sin, none = np.cos(theta), np.sin(theta), np.zeros_like(theta)
        across = np.stack([cos, sin, none], axis=1)
        along_z = np.stack([none, none, none + 1], axis=1)
        return Poses(
            across * self.offset_mm, across * self.pitch_mm, along_z, direction=np.stack([-sin, cos, none], axis=1)
        )

    def divided(self, parts: int) -> ParallelBeam:
        return replace(self, columns=self.columns * parts, pitch_mm=self.pitch_mm / parts)

    @classmethod
    def covering(cls, grid: Grid, angles_deg: Sequence[float], pitch_mm: float | None = None) -> ParallelBeam:
        """A detector that covers the whole slice from every side, its pitch the smaller pixel size by default."""
        rows, columns = grid.in_plane
        pitch = min(grid.spacing_mm[:2]) if pitch_mm is None else length("geometry.pitch_mm", pitch_mm)
        diagonal = np.hypot(rows * grid.spacing_mm[1], columns * grid.spacing_mm[0])
        reach = diagonal + 2 * float(np.hypot(*grid.off_isocentre_mm[:2]))
        return cls(tuple(angles_deg), int(np.ceil(reach / pitch)) + 1, pitch)


def view_angles(views: int, angle_range_deg: float = 180.0, start_deg: float = 0.0) -> tuple[float, ...]:
    """Equidistant angles that start at ``start_deg`` and stop before ``start_deg + angle_range_deg``."""
    views = count("views", views)
    if not 0 < angle_range_deg <= 360:
        raise InputError(f"angle_range_deg must lie above 0 and at most at 360, not {angle_range_deg}")
    return tuple(start_deg + angle_range_deg * k / views for k in range(views))
