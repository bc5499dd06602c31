"""The contract of X-ray scanners: where source and detector stand in each view.

Millimetres in the isocentre world: the origin lies on the rotation axis, x runs along the columns of the grid, y along
its rows and z along its slices.  Where the grid lies in it is for the grid to say (``Grid.isocentre_mm``): its middle
is the isocentre where it says nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np

from ..errors import InputError
from .base import Geometry, same_fields
from .checks import finite
from .grid import Grid

Same = TypeVar("Same", bound="RayGeometry")


@dataclass(frozen=True)
class Poses:
    """Source and detector of every view, float64 (views, 3) in mm.

    centre: of the detector.  u, v: steps from one detector column, or row, to the next.  source: where the rays come
    from, None where they are parallel; direction: of parallel rays, unit vectors, None where there is a source.
    arc: whether the detector is part of a cylinder about the axis through the source that is parallel to v; u is then
    the step of arc length at ``centre``, and a column k steps from it is turned about v by k |u| / SDD.
    """

    centre: np.ndarray
    u: np.ndarray
    v: np.ndarray
    source: np.ndarray | None = None
    direction: np.ndarray | None = None
    arc: bool = False


@dataclass(frozen=True, eq=False)
class RayGeometry(Geometry):
    """A scan by X-rays.  Subclasses are frozen dataclasses of plain numbers.

    STACKED: every slice of the grid has a detector row of its own and is seen from the same views; slices do not mix.
    Its data are (slices, views, columns); those of a detector of many rows (rows, views, columns).
    EVERY_LINE_DEG: range of angles that sees every line through the grid; usual for a simulated scan of few views.
    WHOLE_TURNS: the angles of a simulated scan are those of one turn, which is repeated.
    angles_deg: rotation angle of each view in degrees, in any order.
    """

    STACKED: ClassVar[bool] = True
    EVERY_LINE_DEG: ClassVar[float] = 180.0
    WHOLE_TURNS: ClassVar[bool] = False

    angles_deg: tuple[float, ...]

    def __post_init__(self) -> None:
        angles = finite("geometry.angles_deg", self.angles_deg)
        if not angles:
            raise InputError("geometry.angles_deg is empty: give at least one view angle")
        object.__setattr__(self, "angles_deg", angles)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return same_fields(self, other)

    def __hash__(self) -> int:
        return hash((self.KIND, self.views, self.detector))

    @property
    def views(self) -> int:
        """How many there are."""
        return len(self.angles_deg)

    @property
    def views_of_a_point(self) -> int:
        """How many see a point of the grid, about."""
        return self.views

    @classmethod
    def views_in_all(cls, seen: int, slices: int) -> int:
        """How many a usual scan of so many slices has where each point is seen by ``seen`` of them, about."""
        return seen

    @property
    @abstractmethod
    def detector(self) -> tuple[int, int]:
        """(rows, columns); 1 row where ``STACKED``."""

    @abstractmethod
    def poses(self) -> Poses:
        """Where source and detector stand in each view."""

    def take(self: Same, views: slice | Sequence[int]) -> Same:
        """The same scanner with a part of its views."""
        return replace(self, angles_deg=tuple(np.asarray(self.angles_deg)[views]))

    @abstractmethod
    def divided(self: Same, parts: int) -> Same:
        """The same scanner with each detector column divided into so many of equal width."""

    @classmethod
    @abstractmethod
    def covering(cls: type[Same], grid: Grid, angles_deg: Sequence[float]) -> Same:
        """The scanner of a simulation: its detector sees the whole grid from every side, about as finely as pixels.

        Subclasses have further keywords, of the names of a simulated scan's settings: ``sod_mm``, ``sdd_mm`` (None: a
        distance that fits the grid), ``pitch``.
        """

    def data_shape(self, slices: int) -> tuple[int, ...]:
        rows, columns = self.detector
        return slices if self.STACKED else rows, self.views, columns

    @property
    def data_axes(self) -> tuple[str, ...]:
        return ("slices" if self.STACKED else "detector rows"), "angles", "detector columns"

    def summary(self) -> dict[str, Any]:
        """Kind, views and detector, and single numbers among the fields."""
        rows, columns = self.detector
        own = {k: v for k, v in self.to_dict().items() if isinstance(v, int | float) and k not in ("columns", "rows")}
        return {
            "geometry": self.KIND,
            "views": self.views,
            "first_and_last_angle_deg": [min(self.angles_deg), max(self.angles_deg)],
            "detector_columns": columns,
            **({} if self.STACKED else {"detector_rows": rows}),
            **own,
        }


def mixes_slices(geometry: Geometry) -> bool:
    """Whether the data of one slice hold something of others."""
    return isinstance(geometry, RayGeometry) and not geometry.STACKED
