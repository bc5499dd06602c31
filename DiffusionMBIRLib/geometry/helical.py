"""Helical scans: a cone beam that turns about the axis while the table travels along it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import InputError
from .checks import count, finite, positive
from .cone import TurningCone, standing, wide_enough
from .grid import Grid

STEEPEST = 2.0  # pitch: beyond it, points on the axis are seen over less than half a turn
_USUAL_ROWS = 16


@dataclass(frozen=True, eq=False)
class HelicalCone(TurningCone):
    """A cone beam on a helix; see :class:`.cone.TurningCone`.

    angles_deg go on beyond 360 from turn to turn.  In the view at angle theta the source stands at
    z = start_mm + travel_mm theta / 360.

    travel_mm: of the source along z in one turn of growing angles; negative downwards.  start_mm: its z at angle 0.
    """

    KIND: ClassVar[str] = "helical"
    LABEL: ClassVar[str] = "Helical"
    WHOLE_TURNS: ClassVar[bool] = True

    travel_mm: float = 0.0
    start_mm: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("travel_mm", "start_mm"):
            object.__setattr__(self, field, finite(f"geometry.{field}", [getattr(self, field)])[0])
        if self.travel_mm == 0:
            raise InputError("geometry.travel_mm is 0: the table does not move; use the geometry 'cone-beam'")
        if abs(self.pitch) > STEEPEST * (1 + 1e-9):
            raise InputError(
                f"geometry.travel_mm {self.travel_mm:g} is a pitch of {abs(self.pitch):.3g} and leaves gaps: points on "
                f"the axis are seen over less than half a turn; at most {STEEPEST * self.height_mm:g} leaves none"
            )

    @property
    def height_mm(self) -> float:
        """Of the detector, as it is seen on the axis."""
        return self.rows * self.row_pitch_mm / self.magnification

    @property
    def pitch(self) -> float:
        """Travel of a turn over the detector's height on the axis."""
        return self.travel_mm / self.height_mm

    @property
    def turns(self) -> float:
        """From the first view to the last."""
        return float(np.ptp(self.angles_deg)) / 360.0

    @property
    def views_of_a_point(self) -> int:
        """About as many see each point of the axis."""
        a_turn = (self.views - 1) / self.turns if self.views > 1 else 1.0
        return max(1, min(self.views, round(a_turn / abs(self.pitch))))

    @classmethod
    def views_in_all(cls, seen: int, slices: int) -> int:
        return round(seen * (slices / _USUAL_ROWS + 1))

    def _heights(self) -> np.ndarray:
        return self.start_mm + self.travel_mm * np.asarray(self.angles_deg) / 360.0

    def summary(self) -> dict[str, Any]:
        return {**super().summary(), "pitch": round(self.pitch, 6), "turns": round(self.turns, 3)}

    @classmethod
    def covering(
        cls,
        grid: Grid,
        angles_deg: Sequence[float],
        *,
        sod_mm: float | None = None,
        sdd_mm: float | None = None,
        arc: bool = True,
        rows: int = _USUAL_ROWS,
        pitch: float = 1.0,
    ) -> HelicalCone:
        """The scanner of a simulation: a detector of a few rows on a helix that sees the whole grid.

        angles_deg: of one turn; they are repeated for as many turns as lead from half a turn's travel below the grid to
        as much above it.  Distances as in :meth:`.cone.ConeBeam.covering`.
        """
        stand = standing(grid, sod_mm, sdd_mm)
        row_pitch = grid.spacing_mm[2] * stand["sdd_mm"] / stand["sod_mm"]
        travel = positive("pitch", pitch) * count("rows", rows) * grid.spacing_mm[2]
        turns = (grid.shape[0] * grid.spacing_mm[2] + travel) / travel
        one = np.asarray(angles_deg, dtype=float)
        every = (one + 360.0 * np.arange(int(np.ceil(turns)) + 1)[:, None]).ravel()
        every = every[every <= one.min() + 360.0 * turns]
        middle = (every.min() + every.max()) / 2
        start = grid.off_isocentre_mm[2] - travel * middle / 360.0
        return cls(
            tuple(every),
            rows,
            row_pitch_mm=row_pitch,
            arc=arc,
            travel_mm=travel,
            start_mm=start,
            **stand,
            **wide_enough(grid, stand, arc),
        )
