"""Where an MR scan sampled k-space along paths that are no grid.  Needs numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import InputError
from .base import Geometry, same_fields
from .checks import count

LONG_READOUT_MS = 5.0  # beyond it off-resonance blurs what no correction was made for
_BEYOND = 0.5  # cycles that a point may lie outside the band of the matrix, as the first of an even readout does


@dataclass(frozen=True, eq=False)
class TrajectoryMRI(Geometry):
    """A stack of 2D slices whose k-space was sampled along the same readouts in every slice and coil.

    points: float64 (readouts, samples, 2), in cycles per field of view of the matrix along (columns, rows), x first.
    matrix: (rows, columns) of the image; its pixel n lies (n - size // 2) / size of the field of view off the middle.
    coils: receiving coils.  pattern: what the readouts are, for people, such as "radial".
    dwell_us: time from sample to sample; 0: not known.

    Raises InputError for points that are not finite, all zero or outside the matrix's band.
    """

    KIND: ClassVar[str] = "trajectory-mri"
    LABEL: ClassVar[str] = "k-space along a trajectory"

    points: np.ndarray
    matrix: tuple[int, int]
    coils: int = 1
    pattern: str = "trajectory"
    dwell_us: float = 0.0

    def __post_init__(self) -> None:
        points = np.asarray(self.points, dtype=np.float64)
        if points.ndim != 3 or points.shape[2] != 2 or 0 in points.shape:
            raise InputError(f"geometry.points must be (readouts, samples, 2), not of the shape {points.shape}")
        if len(self.matrix) != 2:
            raise InputError(f"geometry.matrix must be two numbers (rows, columns), not {self.matrix}")
        bad = int(points.size - np.count_nonzero(np.isfinite(points)))
        if bad:
            raise InputError(f"geometry.points: {bad} of {points.size} values are NaN or infinite; mend the trajectory")
        if not points.any():
            raise InputError("geometry.points: all are zero; is it the trajectory of these data?")
        rows, columns = (count("geometry.matrix", n) for n in self.matrix)
        for reach, size, axis in zip(np.abs(points).max((0, 1)), (columns, rows), ("columns", "rows"), strict=True):
            if reach > size / 2 + _BEYOND:
                raise InputError(
                    f"geometry.points: reach {reach:.4g} cycles per field of view along the {axis}, a matrix of {size} "
                    f"holds {size / 2:g}; give a finer matrix or the right unit"
                )
        if not (np.isfinite(self.dwell_us) and self.dwell_us >= 0):
            raise InputError(f"geometry.dwell_us must be zero or positive, not {self.dwell_us}")
        points = points.copy()
        points.flags.writeable = False
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "matrix", (rows, columns))
        object.__setattr__(self, "coils", count("geometry.coils", self.coils))

    def __eq__(self, other: object) -> bool:
        return same_fields(self, other) if isinstance(other, TrajectoryMRI) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.points.tobytes(), self.matrix, self.coils))

    @property
    def readouts(self) -> int:
        """Spokes, arms or lines."""
        return self.points.shape[0]

    @property
    def samples(self) -> int:
        """Of a readout."""
        return self.points.shape[1]

    @property
    def reach(self) -> float:
        """The largest |k| in cycles per field of view."""
        return float(np.hypot(self.points[..., 0], self.points[..., 1]).max())

    @property
    def readout_ms(self) -> float:
        """How long a readout takes; 0: not known."""
        return self.samples * self.dwell_us / 1000

    @property
    def outermost(self) -> np.ndarray:
        """bool (readouts, samples): the tenth that lies farthest out, in shares of the matrix."""
        radius = np.hypot(self.points[..., 0] / self.matrix[1], self.points[..., 1] / self.matrix[0])
        return np.asarray(radius >= np.quantile(radius, 0.9))

    def data_shape(self, slices: int) -> tuple[int, int, int, int]:
        """Shape of the samples of a stack: (slices, coils, readouts, samples)."""
        return slices, self.coils, self.readouts, self.samples

    @property
    def data_axes(self) -> tuple[str, ...]:
        return "slices", "coils", "readouts", "samples"

    def summary(self) -> dict[str, Any]:
        """What was sampled, in words and numbers."""
        entries: dict[str, Any] = {
            "geometry": self.KIND,
            "pattern": self.pattern,
            "coils": self.coils,
            "matrix": list(self.matrix),
            "readouts": self.readouts,
            "samples": self.samples,
            "largest_k": round(self.reach, 3),
        }
        return {**entries, "readout_ms": round(self.readout_ms, 3)} if self.dwell_us else entries
