"""Measured or simulated k-space of a stack of slices, with all that its reconstruction needs.  Needs numpy only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..errors import InputError
from ..geometry import CartesianMRI, Grid
from ..geometry.checks import within
from ..tasks import MR_TASK
from ..volume import Volume
from .base import Scan

MAGNITUDES = (1e-15, 1e15)  # whose squares and sums of squares are within the range of float32


@dataclass(frozen=True)
class KSpace(Scan):
    """A Cartesian acquisition of a stack of slices.

    Of a 3D acquisition: after the inverse Fourier transform along its fully sampled direction, which becomes the
    slices.  Data and images belong together by the orthonormal, centred 2D Fourier transform of each slice.

    data: complex64 (slices, coils, rows, columns), zero where not sampled.  grid: of the image, in the acquired
    planes.  stored_grid: the grid that the result is given on, of the same shape, where it differs.
    maps: complex64 (slices or 1, coils, rows, columns) coil sensitivities if known; else they are estimated.
    calibration: complex64 (slices, coils, rows, columns) of a scan beside this one, of the same field of view: a fully
    sampled middle of k-space, its lowest frequency at (rows // 2, columns // 2) of this block.  It tells the maps where
    the middle of ``data`` is not sampled.
    noise_std: standard deviation of the noise in the real and in the imaginary part of each sample, equal in all coils
    and independent between them (whitened); 0: not known.
    """

    KIND: ClassVar[str] = "mr"
    STORED: ClassVar[dict[str, Any]] = dict.fromkeys(("data", "maps", "calibration"), np.complex64)

    data: np.ndarray
    geometry: CartesianMRI
    grid: Grid
    stored_grid: Grid | None = None
    maps: np.ndarray | None = None
    calibration: np.ndarray | None = None
    noise_std: float = 0.0
    task: str = MR_TASK
    provenance: dict[str, Any] = field(default_factory=dict)
    name: str = "k-space"

    def __post_init__(self) -> None:
        if self.task != MR_TASK:
            raise InputError(f"{self.name}: task {self.task!r} does not fit k-space; use {MR_TASK}")
        self._require_grids()
        if not (np.isfinite(self.noise_std) and self.noise_std >= 0):
            raise InputError(f"{self.name}: noise_std must be zero or positive, not {self.noise_std}")
        slices = self.grid.shape[0]
        object.__setattr__(self, "data", self._complex("data", self.data, (slices,)))
        self._require_sampled()
        if not self.data.any():
            raise InputError(f"{self.name}: data is zero everywhere; nothing was measured")
        within(f"{self.name}: the largest value of data", float(np.abs(self.data).max()), *MAGNITUDES)
        if self.maps is not None:
            fits_maps: list[tuple[int, ...]] = [(n, self.geometry.coils, *self.grid.in_plane) for n in (1, slices)]
            object.__setattr__(self, "maps", self._fitting("maps", self.maps, fits_maps))
        if self.calibration is not None:
            block = np.shape(self.calibration)[2:]
            fits = (slices, self.geometry.coils, *block)
            object.__setattr__(self, "calibration", self._fitting("calibration", self.calibration, [fits]))

    def _require_grids(self) -> None:
        """Raise InputError where grids and geometry do not fit."""
        if self.grid.in_plane != self.geometry.mask.shape:
            raise InputError(
                f"{self.name}: its mask has {self.geometry.mask.shape} positions (rows, columns), its grid "
                f"{self.grid.in_plane} pixels; give the mask of these data"
            )
        if self.stored_grid is not None and self.stored_grid.shape != self.grid.shape:
            raise InputError(f"{self.name}: stored_grid {self.stored_grid.shape} differs from grid {self.grid.shape}")

    def _require_sampled(self) -> None:
        """Raise InputError for values where nothing was sampled."""
        if np.count_nonzero(self.data[..., ~self.geometry.mask]):
            raise InputError(f"{self.name}: data holds values where its mask says that nothing was sampled")

    @property
    def unit(self) -> str:
        """Of the reconstructed volume: MR has none."""
        return ""

    @classmethod
    def zero_filled(cls, data: np.ndarray, grid: Grid, *, name: str) -> KSpace:
        """Of data (slices, coils, rows, columns) that are zero where nothing was sampled, in all slices and coils."""
        if data.ndim != 4:
            raise InputError(f"{name}: data must be (slices, coils, rows, columns), it has {data.ndim} axes")
        sampled = (data != 0).any(axis=(0, 1))
        if not sampled.any():
            raise InputError(f"{name}: data is zero everywhere; nothing was measured")
        return cls(data, CartesianMRI(sampled, data.shape[1]), grid, name=name)

    def _complex(self, what: str, array: np.ndarray, slices: tuple[int, ...]) -> np.ndarray:
        return self._fitting(what, array, [self.geometry.data_shape(n) for n in slices])

    def _fitting(self, what: str, array: np.ndarray, fits: list[tuple[int, ...]]) -> np.ndarray:
        """The array as complex64, once its type, shape and values are found fit."""
        array = np.asarray(array)
        if array.dtype.kind != "c":
            raise InputError(f"{self.name}: {what} is of type {array.dtype}; complex numbers are needed")
        if array.ndim != 4 or array.shape not in fits:
            raise InputError(
                f"{self.name}: {what} has the shape {array.shape}, its grid and geometry ask for {fits[-1]} "
                f"({self._axes_of(what)})"
            )
        with np.errstate(over="ignore"):
            array = array.astype(np.complex64, copy=False)
        bad = int(array.size - np.count_nonzero(np.isfinite(array)))
        if bad:
            raise InputError(f"{self.name}: {bad} of {array.size} values of {what} are NaN or infinite; repair them")
        return array

    def _axes_of(self, what: str) -> str:
        return ", ".join(self.geometry.data_axes if what == "data" else ("slices", "coils", "rows", "columns"))

    def volume(self, array: np.ndarray, name: str) -> Volume:
        """An image (slices, rows, columns), real or complex, as a volume of its magnitude; MR has no unit."""
        magnitude = np.abs(array).astype(np.float32, copy=False)
        return Volume(magnitude, self.result_grid, unit=self.unit, name=name)
