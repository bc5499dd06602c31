"""Cone beams: a source and a flat or curved detector of many rows that turn about the axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np

from ..errors import InputError
from .checks import finite, length
from .grid import Grid
from .point_source import PointSource
from .rays import Poses

Same = TypeVar("Same", bound="TurningCone")
FAR = 2.5  # usual distance from source to axis, in radii of what is scanned
MAGNIFICATION = 1.75  # usual distance from source to detector over that to the axis


@dataclass(frozen=True, eq=False)
class TurningCone(PointSource):
    """What cone beams on a circle and on a helix share.

    In the view at angle theta the source stands at sod_mm (sin(theta), -cos(theta)) and looks along
    (-sin(theta), cos(theta)); detector columns run along (cos(theta), sin(theta)) and rows along z.  With the source
    far away this is :class:`.parallel.ParallelBeam`.

    sod_mm, sdd_mm: from the source to the axis and to the detector.  offset_mm, row_offset_mm: shift of the detector
    along its columns' and rows' directions; of an arc along it.  roll_deg: turn of the detector in its own plane, from
    its columns' direction towards its rows'.  arc: the detector is part of a cylinder about the source.
    shifts_mm, row_shifts_mm: further shifts of each view; empty: none.
    """

    sod_mm: float
    sdd_mm: float
    offset_mm: float = 0.0
    row_offset_mm: float = 0.0
    roll_deg: float = 0.0
    arc: bool = False
    shifts_mm: tuple[float, ...] = ()
    row_shifts_mm: tuple[float, ...] = ()

    PER_VIEW: ClassVar[tuple[str, ...]] = ("shifts_mm", "row_shifts_mm")

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("sod_mm", "sdd_mm"):
            object.__setattr__(self, field, length(f"geometry.{field}", getattr(self, field)))
        for field in ("offset_mm", "row_offset_mm", "roll_deg"):
            object.__setattr__(self, field, finite(f"geometry.{field}", [getattr(self, field)])[0])
        object.__setattr__(self, "arc", bool(self.arc))
        for field in self.PER_VIEW:
            shifts = finite(f"geometry.{field}", getattr(self, field))
            if len(shifts) not in (0, self.views):
                raise InputError(f"geometry.{field} holds {len(shifts)} numbers for {self.views} views; give one each")
            object.__setattr__(self, field, shifts)
        if self.sod_mm >= self.sdd_mm:
            raise InputError(
                f"geometry.sod_mm {self.sod_mm:g} must be smaller than geometry.sdd_mm {self.sdd_mm:g}: the detector "
                "stands beyond the axis, seen from the source; are they swapped?"
            )

    @property
    def magnification(self) -> float:
        """Of what lies on the axis."""
        return self.sdd_mm / self.sod_mm

    def _heights(self) -> np.ndarray:
        """z of the source in each view, in mm."""
        return np.zeros(self.views)

    def poses(self) -> Poses:
        theta, roll = np.radians(self.angles_deg), np.radians(self.roll_deg)
        none = np.zeros_like(theta)
        across = np.stack([np.cos(theta), np.sin(theta), none], axis=1)
        ahead = np.stack([-np.sin(theta), np.cos(theta), none], axis=1)
        up = np.array([0.0, 0.0, 1.0])
        source = up * self._heights()[:, None] - ahead * self.sod_mm
        u, v = np.cos(roll) * across + np.sin(roll) * up, np.cos(roll) * up - np.sin(roll) * across
        along, aside = (
            (offset + np.asarray(shifts or none))[:, None]
            for offset, shifts in ((self.offset_mm, self.shifts_mm), (self.row_offset_mm, self.row_shifts_mm))
        )
        if self.arc:
            turn = along / self.sdd_mm
            ahead, u = np.cos(turn) * ahead + np.sin(turn) * u, np.cos(turn) * u - np.sin(turn) * ahead
            along = np.zeros_like(along)
        centre = source + ahead * self.sdd_mm + along * u + aside * v
        return Poses(centre, u * self.pitch_mm, v * self.row_pitch_mm, source=source, arc=self.arc)

    def take(self: Same, views: slice | Sequence[int]) -> Same:
        kept: dict[str, Any] = {
            name: tuple(np.asarray(getattr(self, name))[views]) for name in self.PER_VIEW if getattr(self, name)
        }
        return replace(self, angles_deg=tuple(np.asarray(self.angles_deg)[views]), **kept)

    def divided(self: Same, parts: int) -> Same:
        return replace(self, columns=self.columns * parts, pitch_mm=self.pitch_mm / parts)


@dataclass(frozen=True, eq=False)
class ConeBeam(TurningCone):
    """A cone beam on a circle about the axis; see :class:`TurningCone`."""

    KIND: ClassVar[str] = "cone-beam"
    LABEL: ClassVar[str] = "Cone beam"

    @classmethod
    def covering(
        cls,
        grid: Grid,
        angles_deg: Sequence[float],
        *,
        sod_mm: float | None = None,
        sdd_mm: float | None = None,
        arc: bool = False,
    ) -> ConeBeam:
        """The scanner of a simulation: its detector sees the whole grid from every side, about as finely as voxels.

        sod_mm: 2.5 radii of the grid by default.  sdd_mm: 1.75 sod_mm by default.
        """
        stand = standing(grid, sod_mm, sdd_mm)
        nearest = stand["sod_mm"] - radius_about_axis(grid)
        half = grid.shape[0] * grid.spacing_mm[2] / 2 + abs(grid.off_isocentre_mm[2])
        row_pitch = grid.spacing_mm[2] * stand["sdd_mm"] / stand["sod_mm"]
        rows = 2 * int(np.ceil(half * stand["sdd_mm"] / nearest / row_pitch + 0.5))
        return cls(tuple(angles_deg), rows, row_pitch_mm=row_pitch, arc=arc, **stand, **wide_enough(grid, stand, arc))


def radius_about_axis(grid: Grid) -> float:
    """From the axis to the grid's farthest corner, in mm."""
    x, y, _ = np.abs(grid.off_isocentre_mm) + np.asarray(grid.shape[::-1]) * grid.spacing_mm / 2
    return float(np.hypot(x, y))


def standing(grid: Grid, sod_mm: float | None, sdd_mm: float | None) -> dict[str, Any]:
    """Distances from the source to the axis and to the detector, usual ones where none are given.

    Raises InputError for a source that would stand within the circle that the grid turns in.
    """
    radius = radius_about_axis(grid)
    usual = FAR * radius if sdd_mm is None else max(sdd_mm / MAGNIFICATION, 1.1 * radius)
    sod = usual if sod_mm is None else length("geometry.sod_mm", sod_mm)
    if sod <= radius:
        raise InputError(
            f"geometry.sod_mm {sod:g} must be larger than {radius:g}: the grid's corners pass that far from the axis"
        )
    return {"sod_mm": sod, "sdd_mm": sod * MAGNIFICATION if sdd_mm is None else length("geometry.sdd_mm", sdd_mm)}


def wide_enough(grid: Grid, stand: dict[str, Any], arc: bool) -> dict[str, Any]:
    """Columns and pitch of a detector that sees the circle which the grid turns in, one column for each pixel of the
    smaller side at the axis.
    """
    half_fan = np.arcsin(radius_about_axis(grid) / stand["sod_mm"])
    half = stand["sdd_mm"] * (half_fan if arc else np.tan(half_fan))
    pitch = min(grid.spacing_mm[:2]) * stand["sdd_mm"] / stand["sod_mm"]
    return {"columns": 2 * int(np.ceil(half / pitch + 0.5)), "pitch_mm": pitch}
