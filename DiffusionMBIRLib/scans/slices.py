"""A finished volume of thick slices as a measurement of thin ones.  Needs numpy only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..errors import InputError
from ..geometry import AxisOrder, Grid, SliceProfiles
from ..tasks import SLICE_TASKS, THIN_SLICES, task_info
from ..volume import Volume, require_finite
from .base import Scan, require_data_shape


@dataclass(frozen=True)
class ThickSlices(Scan):
    """Thick slices, each the mean over what it is thick along.

    data: (thick slices, rows, columns) in HU, or magnitudes of MR, float32.  geometry: where they lie and their
    profile.  grid: of the thin slices.  axis: of the user's own array, that the slices are stacked along; the result is
    given back in its order, wherever it lies in space.
    """

    KIND: ClassVar[str] = "slices"
    STORED: ClassVar[dict[str, Any]] = {"data": np.float32}

    data: np.ndarray
    geometry: SliceProfiles
    grid: Grid
    axis: float = 0
    task: str = THIN_SLICES
    provenance: dict[str, Any] = field(default_factory=dict)
    name: str = "thick slices"

    def __post_init__(self) -> None:
        if self.task not in SLICE_TASKS:
            known = ", ".join(SLICE_TASKS)
            raise InputError(f"{self.name}: task {self.task!r} does not fit thick slices; use one of {known}")
        if not isinstance(self.geometry, SliceProfiles):
            raise InputError(f"{self.name}: geometry {self.geometry.KIND!r} is not one of thick slices")
        if self.axis not in (0, 1, 2):
            raise InputError(f"{self.name}: axis must be 0, 1 or 2, not {self.axis}")
        if self.geometry.in_plane != self.grid.in_plane:
            raise InputError(
                f"{self.name}: its slices have {self.geometry.in_plane} pixels (rows, columns), its grid "
                f"{self.grid.in_plane}"
            )
        require_data_shape(self.data.shape, self.geometry, self.grid, self.name)
        require_finite(self.data, f"{self.name}: data")
        self.geometry.matrix(self.grid)  # raises where a slice lies outside

    @property
    def unit(self) -> str:
        """HU, or none of MR."""
        return task_info(self.task).unit

    @property
    def stored_grid(self) -> Grid | None:
        """The grid of the result, in the user's own axis order."""
        return stacked_along(int(self.axis)).inverse().apply_to_grid(self.grid) if self.axis else None

    def volume(self, array: np.ndarray, name: str) -> Volume:
        """Thin slices (slices, rows, columns) as a volume in the user's own axis order."""
        order = stacked_along(int(self.axis))
        return Volume(order.undo(array), self.result_grid, unit=self.unit, name=name, metadata=self._told)

    def thick(self) -> Volume:
        """The measured slices as a volume of their own."""
        spacing = (*self.grid.spacing_mm[:2], self.geometry.distance_mm)
        shift = self.geometry.places_mm[0] + (self.grid.shape[0] - 1) / 2 * self.grid.spacing_mm[2]
        origin = tuple(np.asarray(self.grid.origin_mm) + self.grid.matrix[:, 2] * shift)
        grid = Grid(self.data.shape, spacing, origin, self.grid.direction)
        order = stacked_along(int(self.axis)).inverse()
        told = self._told | {"slice_thickness_mm": f"{self.geometry.thickness_mm:.6g}"}
        array = order.apply(np.asarray(self.data, np.float32))
        return Volume(array, order.apply_to_grid(grid), self.unit, self.name, told)

    @property
    def _told(self) -> dict[str, str]:
        return {"modality": self.modality}


def stacked_along(axis: int) -> AxisOrder:
    """The order of axes that has one of them first and leaves the others as they are."""
    others = [k for k in range(3) if k != axis]
    return AxisOrder((axis, *others), (False, False, False))
