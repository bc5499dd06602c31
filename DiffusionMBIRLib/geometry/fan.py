"""Fan beams: a source and a row of detector columns that turn together, slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..errors import InputError
from .checks import count, finite, length, moving
from .cone import standing, wide_enough
from .grid import Grid
from .rays import Poses, RayGeometry


@dataclass(frozen=True, eq=False)
class FanBeam(RayGeometry):
    """A stack of 2D fan-beam scans: every slice is seen from the same views.

    In the view theta the axis of the beam runs along (-sin(theta), cos(theta)) and detector columns along
    (cos(theta), sin(theta)), with x along the columns and y along the rows of a slice: as in :class:`.ParallelBeam`,
    which this becomes as the source moves away.  The source stands ``sod_mm`` before the isocentre on that axis, the
    detector ``sdd_mm`` behind the source.  Column j is centred at s = (j - (columns - 1) / 2) pitch_mm + offset_mm from
    the axis: along a straight line at right angles to it or, of an arc, along the circle of radius sdd_mm about the
    source.

    angles_deg: any list of view angles in degrees.  offset_mm: detector shift along s, of half-fan scans up to half of
    its width.
    """

    KIND: ClassVar[str] = "fan-beam"
    LABEL: ClassVar[str] = "Fan beam"
    EVERY_LINE_DEG: ClassVar[float] = 360.0

    columns: int
    pitch_mm: float
    sod_mm: float
    sdd_mm: float
    offset_mm: float = 0.0
    arc: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        moving("geometry.angles_deg", self.angles_deg)
        object.__setattr__(self, "columns", count("geometry.columns", self.columns))
        for name in ("pitch_mm", "sod_mm", "sdd_mm"):
            object.__setattr__(self, name, length(f"geometry.{name}", getattr(self, name)))
        object.__setattr__(self, "offset_mm", finite("geometry.offset_mm", [self.offset_mm])[0])
        object.__setattr__(self, "arc", bool(self.arc))
        if self.sod_mm > self.sdd_mm:
            raise InputError(
                f"geometry.sod_mm {self.sod_mm:g} is above geometry.sdd_mm {self.sdd_mm:g}: the source is nearer to "
                "the axis than to the detector; are they exchanged, or is one the distance from axis to detector?"
            )
        reach = (self.columns * self.pitch_mm / 2 + abs(self.offset_mm)) / self.sdd_mm
        if self.arc and reach >= np.pi / 2:
            raise InputError(
                f"geometry.columns: an arc of {self.columns} columns goes {np.degrees(reach):.0f} degrees to one side "
                "of the source, less than 90 make sense; check geometry.pitch_mm and geometry.sdd_mm"
            )

    @property
    def detector(self) -> tuple[int, int]:
        return 1, self.columns

    def poses(self) -> Poses:
        theta = np.radians(self.angles_deg)
        cos, sin, none = np.cos(theta), np.sin(theta), np.zeros_like(theta)
        across, ahead = np.stack([cos, sin, none], axis=1), np.stack([-sin, cos, none], axis=1)
        along_z = np.stack([none, none, none + 1], axis=1)
        source = -self.sod_mm * ahead
        if not self.arc:
            centre = source + self.sdd_mm * ahead + self.offset_mm * across
            return Poses(centre, across * self.pitch_mm, along_z, source=source)
        turn = self.offset_mm / self.sdd_mm
        to_middle = np.cos(turn) * ahead + np.sin(turn) * across
        along = np.cos(turn) * across - np.sin(turn) * ahead
        return Poses(source + self.sdd_mm * to_middle, along * self.pitch_mm, along_z, source=source, arc=True)

    def divided(self, parts: int) -> FanBeam:
        return replace(self, columns=self.columns * parts, pitch_mm=self.pitch_mm / parts)

    @classmethod
    def covering(
        cls,
        grid: Grid,
        angles_deg: Sequence[float],
        *,
        sod_mm: float | None = None,
        sdd_mm: float | None = None,
        arc: bool = False,
    ) -> FanBeam:
        """A detector that covers the whole slice from every side, about as finely as pixels.

        Distances as in :meth:`.cone.ConeBeam.covering`.
        """
        stand = standing(grid, sod_mm, sdd_mm)
        return cls(tuple(angles_deg), arc=arc, **stand, **wide_enough(grid, stand, arc))
