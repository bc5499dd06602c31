"""Volumes of voxels with their grid and unit; Hounsfield units and attenuation.  Needs numpy only."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .errors import InputError
from .formats import write
from .geometry import AxisOrder, Grid, axial_order

MU_WATER_PER_MM = 0.0192  # 70 keV (NIST XCOM: 0.1929 / cm), the effective energy of a 120 kV beam


def hu_to_attenuation(hu: np.ndarray, mu_water_per_mm: float = MU_WATER_PER_MM) -> np.ndarray:
    """HU -> linear attenuation in 1/mm: mu = mu_water (1 + HU / 1000)."""
    values: np.ndarray = np.asarray(hu, dtype=np.float32)
    return (values / np.float32(1000.0) + np.float32(1.0)) * np.float32(mu_water_per_mm)


def attenuation_to_hu(mu: np.ndarray, mu_water_per_mm: float = MU_WATER_PER_MM) -> np.ndarray:
    """Linear attenuation in 1/mm -> HU."""
    values: np.ndarray = np.asarray(mu, dtype=np.float32)
    return values * np.float32(1000.0 / mu_water_per_mm) - np.float32(1000.0)


def require_finite(array: np.ndarray, name: str) -> None:
    """Raise InputError that names ``name`` and counts the NaN or infinite values, if there are any."""
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name}: values of type {array.dtype} cannot be used; real numbers are needed")
    parts = array if array.ndim > 2 else (array,)  # a part at a time: what a file is mapped to is not held as a whole
    bad = int(array.size - sum(np.count_nonzero(np.isfinite(part)) for part in parts))
    if bad:
        raise InputError(f"{name}: {bad} of {array.size} values are NaN or infinite; repair or mask them first")


@dataclass(frozen=True)
class Volume:
    """A scalar volume: array (slices, rows, columns), its grid and unit ('HU' for CT, '' for MR, which has none)."""

    array: np.ndarray
    grid: Grid
    unit: str = "HU"
    name: str = "volume"
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise InputError(f"{self.name}: a volume has three axes, this one has {self.array.ndim}")
        if tuple(self.array.shape) != self.grid.shape:
            raise InputError(f"{self.name}: array {self.array.shape} does not fit its grid {self.grid.shape}")
        require_finite(self.array, self.name)

    def axial(self) -> tuple[Volume, AxisOrder]:
        """The volume in axial (LPS) array order and the order that :meth:`AxisOrder.undo` reverts."""
        order = axial_order(self.grid)
        turned = replace(self, array=order.apply(self.array), grid=order.apply_to_grid(self.grid))
        return turned, order

    def coarsened(self, factor: int) -> Volume:
        """Means of factor x factor blocks of the array's rows and columns, float32."""
        grid = self.grid.coarsened(factor)
        n, rows, columns = grid.shape
        blocks = self.array.astype(np.float32).reshape(n, rows, factor, columns, factor)
        return replace(self, array=blocks.mean(axis=(2, 4)), grid=grid)

    def middle(self, slices: int) -> Volume:
        """The middle slices of the array; all of them where there are no more."""
        first = (self.grid.shape[0] - slices) // 2
        if first <= 0:
            return self
        shift = self.grid.matrix @ np.array([0.0, 0.0, first * self.grid.spacing_mm[2]])
        origin = tuple(np.asarray(self.grid.origin_mm) + shift)
        grid = replace(self.grid, shape=(slices, *self.grid.in_plane), origin_mm=origin)
        return replace(self, array=self.array[first : first + slices], grid=grid)

    def save(self, path: Any) -> None:
        """Write to NRRD, NIfTI or MetaImage by the file's extension, through a temporary name."""
        write(self, path)
