"""A CT scan as line integrals of the attenuation, with all that its reconstruction needs.  Needs numpy only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..errors import InputError
from ..geometry import Grid, RayGeometry, axial_order
from ..geometry.checks import within
from ..tasks import CT_TASKS
from ..volume import MU_WATER_PER_MM, Volume, require_finite
from .base import Scan, require_data_shape

MU_WATER_RANGE = (1e-5, 1e3)  # 1/mm; water has 0.5 at 20 keV and 0.003 at 10 MeV, other fluids and units more or less
UNITS = ("HU", "1/mm")
COUNTS = (1e-3, 1e15)
HOLED_DISC = "disc of one material with holes"  # an object that there is a prior of, in a scan's provenance
MOST_ATTENUATION = 1e6


@dataclass(frozen=True)
class Measurement(Scan):
    """A scan by X-rays.

    data: line integrals of the attenuation, without unit (mm x 1/mm), float32; (slices, views, columns) of a stack of
    slices, (rows, views, columns) of a detector of many rows.  geometry: where source and detector stood.
    grid: the grid to reconstruct on, in axial order.  stored_grid: the grid that the user's volume had, in which the
    result is given back (equal to ``grid`` where it was axial already).
    mu_water_per_mm: the attenuation that stands for 0 HU; of water, or of what a scanned object is mostly made of.
    unit: of the reconstructed volume, "HU" or "1/mm" (attenuation, of objects that are no patients).
    photons: incident photons a ray, 0 for noise-free; the statistical weight of a ray is photons x exp(-data).
    photon_profile: how these are spread over the rays, of a shape that broadcasts to that of data; 0 for a ray that
    does not count.  weights: how far each ray is trusted beside that, relative to
    others, of a shape as photon_profile.  electronic_noise: standard deviation of the detector's own noise, in photons.
    most_per_mm: the largest attenuation that voxels can have, where that is known, of a shape that broadcasts to the
    grid's: of an object of one known material, and 0 where it cannot be.  least_per_mm: the smallest, likewise.
    """

    KIND: ClassVar[str] = "ct"
    STORED: ClassVar[dict[str, Any]] = {
        "data": np.float32, "photon_profile": np.float32, "weights": np.float32, "most_per_mm": np.float32,
        "least_per_mm": np.float32,
    }  # fmt: skip

    data: np.ndarray
    geometry: RayGeometry
    grid: Grid
    task: str = "sparse-view-ct"
    stored_grid: Grid | None = None
    mu_water_per_mm: float = MU_WATER_PER_MM
    unit: str = "HU"
    photons: float = 0.0
    photon_profile: np.ndarray | None = None
    weights: np.ndarray | None = None
    electronic_noise: float = 0.0
    most_per_mm: np.ndarray | None = None
    least_per_mm: np.ndarray | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    name: str = "measurement"

    def __post_init__(self) -> None:
        if not isinstance(self.geometry, RayGeometry):
            raise InputError(f"{self.name}: geometry {self.geometry.KIND!r} is not one of rays; CT needs one")
        require_data_shape(self.data.shape, self.geometry, self.grid, self.name)
        self._check_settings()
        require_finite(self.data, f"{self.name}: data")
        if self.photon_profile is not None:
            self._check_profile("photon_profile", self.photon_profile)
            if not self.photons > 0:
                raise InputError(f"{self.name}: photon_profile spreads photons, which must be given too")
        if self.weights is not None:
            self._check_profile("weights", self.weights)
        if self.most_per_mm is not None:
            self._check_bound("most_per_mm", self.most_per_mm)
        if self.least_per_mm is not None:
            self._check_bound("least_per_mm", self.least_per_mm)
            if self.most_per_mm is not None and (self.least_per_mm > self.most_per_mm).any():
                raise InputError(f"{self.name}: least_per_mm is above most_per_mm")
        largest = float(max(self.data.max(), -self.data.min()))
        if largest > MOST_ATTENUATION:
            raise InputError(
                f"{self.name}: data holds line integrals up to {largest:.3g}, no ray is weakened beyond e^"
                f"-{MOST_ATTENUATION:g}; are these counts? Give -ln(counts / open beam)"
            )

    def _check_profile(self, what: str, profile: np.ndarray) -> None:
        require_finite(profile, f"{self.name}: {what}")
        fits = profile.ndim == 3 and all(n in (1, m) for n, m in zip(profile.shape, self.data.shape, strict=True))
        if not fits:
            raise InputError(f"{self.name}: {what} {profile.shape} does not spread over data {self.data.shape}")
        if profile.min() < 0 or not profile.any():
            raise InputError(f"{self.name}: {what} must be 0 or positive, and not 0 everywhere")

    def _check_bound(self, what: str, bound: np.ndarray) -> None:
        require_finite(bound, f"{self.name}: {what}")
        if not (bound.ndim == 3 and all(n in (1, m) for n, m in zip(bound.shape, self.grid.shape, strict=True))):
            raise InputError(f"{self.name}: {what} {bound.shape} does not spread over the grid {self.grid.shape}")
        if bound.min() < 0 or not bound.any():
            raise InputError(f"{self.name}: {what} must be 0 or positive, and not 0 everywhere")

    @property
    def was_counted(self) -> bool:
        """Whether it was read from a scanner's own files."""
        return "water" in self.provenance

    @property
    def of_unknown_object(self) -> bool:
        """Whether what was scanned is no patient, as far as the file tells: its reader knew no attenuation of water."""
        return self.provenance.get("water") == "not known"

    def _check_settings(self) -> None:
        if self.unit not in UNITS:
            raise InputError(f"{self.name}: unit must be one of {', '.join(UNITS)}, not {self.unit!r}")
        if self.task not in CT_TASKS:
            raise InputError(f"{self.name}: task {self.task!r} is not known; use one of {', '.join(CT_TASKS)}")
        if not self.mu_water_per_mm > 0:
            raise InputError(f"{self.name}: mu_water_per_mm must be positive, not {self.mu_water_per_mm}")
        within(f"{self.name}: mu_water_per_mm", self.mu_water_per_mm, *MU_WATER_RANGE)
        for what, value in (("photons", self.photons), ("electronic_noise", self.electronic_noise)):
            if not (np.isfinite(value) and value >= 0):
                raise InputError(f"{self.name}: {what} must be zero or positive, not {value}")
            if value:
                within(f"{self.name}: {what}", value, *COUNTS)
        if self.stored_grid is not None:
            turned = axial_order(self.stored_grid).apply_to_grid(self.stored_grid)
            if turned.shape != self.grid.shape:
                raise InputError(
                    f"{self.name}: stored_grid {self.stored_grid.shape} turned to axial order is {turned.shape}, "
                    f"which is not the shape of grid, {self.grid.shape}"
                )

    def volume(self, array: np.ndarray, name: str) -> Volume:
        """A reconstruction on ``grid`` (slices, rows, columns) in ``unit``, as a volume in the user's own axis order.

        Raises InputError where the array does not have the grid's shape.
        """
        if tuple(array.shape) != self.grid.shape:
            raise InputError(f"{name}: array {array.shape} does not fit the grid to reconstruct on {self.grid.shape}")
        if self.stored_grid is None:
            return Volume(array, self.grid, unit=self.unit, name=name)
        order = axial_order(self.stored_grid)
        return Volume(order.undo(array), self.stored_grid, unit=self.unit, name=name)
