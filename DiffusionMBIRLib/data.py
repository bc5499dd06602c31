"""What travels through the engine: volumes, and CT measurements as line integrals, each with its geometry."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .errors import InputError
from .geometry import AxisOrder, Grid, ParallelBeam, axial_order
from .tasks import CT_TASKS, SPARSE_VIEW

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
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if bad:
        raise InputError(f"{name}: {bad} of {array.size} values are NaN or infinite; repair or mask them first")


def require_data_shape(shape: tuple[int, ...], geometry: ParallelBeam, slices: int, name: str) -> None:
    """Raise InputError that names the axis where measured data do not have the shape (slices, views, columns)."""
    if len(shape) != 3:
        raise InputError(f"{name}: data must be (slices, views, columns), it has {len(shape)} axes")
    for axis, what in enumerate(("slices", "angles", "detector columns")):
        needs = geometry.data_shape(slices)[axis]
        if shape[axis] != needs:
            raise InputError(
                f"{name}: data has {shape[axis]} entries along axis {axis}, its grid and geometry list {needs} {what}"
            )


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
        from .io.volumes import write_volume

        write_volume(self, path)


@dataclass(frozen=True)
class Measurement:
    """A parallel-beam scan of a stack of slices.

    data: (slices, views, columns) line integrals of the attenuation, without unit (mm x 1/mm), float32.
    grid: the grid to reconstruct on, in axial order.  stored_grid: the grid that the user's volume had, in which the
    result is given back (equal to ``grid`` where it was axial already).
    photons: incident photons a ray, 0 for noise-free; the statistical weight of a ray is photons x exp(-data).
    electronic_noise: standard deviation of the detector's own noise, in photons.
    """

    data: np.ndarray
    geometry: ParallelBeam
    grid: Grid
    task: str = SPARSE_VIEW
    stored_grid: Grid | None = None
    mu_water_per_mm: float = MU_WATER_PER_MM
    photons: float = 0.0
    electronic_noise: float = 0.0
    provenance: dict[str, Any] = field(default_factory=dict)
    name: str = "measurement"

    def __post_init__(self) -> None:
        require_data_shape(self.data.shape, self.geometry, self.grid.shape[0], self.name)
        self._check_settings()
        require_finite(self.data, f"{self.name}: data")

    def _check_settings(self) -> None:
        if self.task not in CT_TASKS:
            raise InputError(f"{self.name}: task {self.task!r} is not known; use one of {', '.join(CT_TASKS)}")
        if not self.mu_water_per_mm > 0:
            raise InputError(f"{self.name}: mu_water_per_mm must be positive, not {self.mu_water_per_mm}")
        for what, value in (("photons", self.photons), ("electronic_noise", self.electronic_noise)):
            if not (np.isfinite(value) and value >= 0):
                raise InputError(f"{self.name}: {what} must be zero or positive, not {value}")
        if self.stored_grid is not None:
            turned = axial_order(self.stored_grid).apply_to_grid(self.stored_grid)
            if turned.shape != self.grid.shape:
                raise InputError(
                    f"{self.name}: stored_grid {self.stored_grid.shape} turned to axial order is {turned.shape}, "
                    f"which is not the shape of grid, {self.grid.shape}"
                )


def to_stored_order(array: np.ndarray, measurement: Measurement, *, unit: str = "HU", name: str = "volume") -> Volume:
    """A reconstruction on ``measurement.grid`` (slices, rows, columns) as a volume in the user's own axis order.

    Raises InputError where the array does not have the grid's shape.
    """
    if tuple(array.shape) != measurement.grid.shape:
        raise InputError(
            f"{name}: array {array.shape} does not fit the grid to reconstruct on {measurement.grid.shape}"
        )
    if measurement.stored_grid is None:
        return Volume(array, measurement.grid, unit=unit, name=name)
    order = axial_order(measurement.stored_grid)
    return Volume(order.undo(array), measurement.stored_grid, unit=unit, name=name)
