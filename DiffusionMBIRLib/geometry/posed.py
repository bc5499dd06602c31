"""Any scanner with a point source: where source and detector stand is told view by view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..errors import InputError
from .checks import MOST
from .cone import ConeBeam
from .grid import Grid
from .point_source import PointSource
from .rays import Poses

_SQUARE = 1e-3  # cosine of the angle between a detector's rows and columns, at most


@dataclass(frozen=True, eq=False)
class PosedBeam(PointSource):
    """Arbitrary poses, as of a C-arm or a robot; arrays (views, 3) in mm of the isocentre world.

    sources_mm: the point that rays come from.  centres_mm: of the detector.  columns_along, rows_along: directions from
    one detector column, or row, to the next, at right angles to each other; their lengths do not count.  arc: the
    detector is part of a cylinder about the axis through the source that is parallel to ``rows_along``.
    angles_deg: of the source about z, which names views; (:meth:`of` finds them.)
    """

    KIND: ClassVar[str] = "posed-beam"
    LABEL: ClassVar[str] = "Cone beam, view by view"

    sources_mm: np.ndarray
    centres_mm: np.ndarray
    columns_along: np.ndarray
    rows_along: np.ndarray
    arc: bool = False

    VECTORS: ClassVar[tuple[str, ...]] = ("sources_mm", "centres_mm", "columns_along", "rows_along")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "arc", bool(self.arc))
        for field in self.VECTORS:
            object.__setattr__(self, field, _vectors(f"geometry.{field}", getattr(self, field), self.views))
        for field in ("columns_along", "rows_along"):
            size = np.linalg.norm(getattr(self, field), axis=1, keepdims=True)
            if not np.all(size > 0):
                raise InputError(f"geometry.{field} holds a vector of length 0; give a direction for each view")
            object.__setattr__(self, field, getattr(self, field) / size)
        skew = np.abs((self.columns_along * self.rows_along).sum(1))
        if skew.max() > _SQUARE:
            raise InputError(
                f"geometry.columns_along and rows_along are not at right angles in view {int(skew.argmax())}; "
                "resample the images of a skewed detector"
            )
        ahead = np.abs((np.cross(self.columns_along, self.rows_along) * (self.centres_mm - self.sources_mm)).sum(1))
        if not np.all(ahead > 0):
            raise InputError(
                f"geometry.centres_mm: the source lies in the detector's plane in view {int(ahead.argmin())}"
            )

    @classmethod
    def of(cls, poses: Poses, rows: int, columns: int) -> PosedBeam:
        """The scanner of poses that have sources and one size of pixels."""
        if poses.source is None:
            raise InputError("poses without a source are those of parallel beams; use the geometry 'parallel-beam'")
        angles = np.degrees(np.arctan2(poses.source[:, 0], -poses.source[:, 1]))
        pitch, row_pitch = (float(np.linalg.norm(axis, axis=1).mean()) for axis in (poses.u, poses.v))
        return cls(
            tuple(angles), rows, columns, pitch, row_pitch, poses.source, poses.centre, poses.u, poses.v, poses.arc
        )

    def poses(self) -> Poses:
        u, v = self.columns_along * self.pitch_mm, self.rows_along * self.row_pitch_mm
        return Poses(self.centres_mm, u, v, source=self.sources_mm, arc=self.arc)

    def take(self, views: slice | Sequence[int]) -> PosedBeam:
        parts = {field: getattr(self, field)[views] for field in self.VECTORS}
        return replace(self, angles_deg=tuple(np.asarray(self.angles_deg)[views]), **parts)

    def divided(self, parts: int) -> PosedBeam:
        return replace(self, columns=self.columns * parts, pitch_mm=self.pitch_mm / parts)

    @classmethod
    def covering(cls, grid: Grid, angles_deg: Sequence[float]) -> PosedBeam:
        """The poses of a cone beam on a circle."""
        circle = ConeBeam.covering(grid, angles_deg)
        return replace(cls.of(circle.poses(), *circle.detector), angles_deg=tuple(angles_deg))


def _vectors(field: str, values: object, views: int) -> np.ndarray:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{field} must hold three numbers for each view") from None
    if array.shape != (views, 3):
        raise InputError(f"{field} has shape {array.shape}; three numbers for each of {views} views are needed")
    if not np.isfinite(array).all() or np.abs(array).max() > MOST:
        raise InputError(f"{field} holds a value that is not finite or beyond {MOST:g}")
    return array
