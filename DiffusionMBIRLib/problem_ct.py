"""A CT scan on a device: line integrals, weighted where the photon count is known, in the prior's value scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .config import ReconSettings
from .errors import InputError
from .geometry import coarse_start, contiguous
from .models import ValueScale
from .monitor import Checkpoint, Monitor
from .operators import LinearOperator
from .operators.base import RowWeighted
from .operators.xray import XRayTransform, slices_last
from .priors.base import Prior
from .problem import Problem, slice_denoiser
from .samplers.slicewise import Projection
from .scans import Measurement, to_stored_order
from .solvers.classic import fbp, sirt
from .supervised.methods import SliceRestorer, restore
from .supervised.networks import condition
from .volume import Volume

# How far line integrals of pixels lie from measured ones, beside the noise.  It bounds how unlike rays are weighed (by
# photons alone 30 times less behind the body than beside it) and how closely the data are fitted at low noise
# levels.  Measured on a held-out chest, 20 levels, PSNR axial / coronal with 0, 1e6 and 1e5 photons a ray:
#   24 views: weights by photons alone, nothing loosened  34.35 / 36.92, 30.84 / 34.60, 30.82 / 34.36
#             0.005                                       34.49 / 37.26, 33.88 / 36.96, 32.36 / 36.06
#             0.01                                        34.57 / 37.70, 34.30 / 37.54, 33.10 / 36.87
#             0.02                                        34.20 / 37.78, 34.07 / 37.67, 33.37 / 37.22
MODEL_ERROR = 0.015


@dataclass
class CTProblem(Problem):
    """y = A x with x in the prior's value scale, where attenuation = base + slope x (1/mm).

    A, y: scaled so that |A| = 1, rows weighted by their statistical precision where the photon count is known.
    unweighted, norm: the operator in mm is norm unweighted, kept so since its matrix is large.
    """

    measurement: Measurement
    unweighted: XRayTransform
    norm: float

    aliased: ClassVar[bool] = True
    ends_on_data: ClassVar[bool] = True

    @classmethod
    def of(
        cls, measurement: Measurement, settings: ReconSettings, prior: Prior | None, device: torch.device
    ) -> CTProblem:
        """Raises InputError where no ray meets the grid."""
        value = prior.card.value if prior else ValueScale()
        raw = XRayTransform(measurement.geometry, measurement.grid, device=device)
        measured = _line_integrals(measurement, device)
        base, slope = _attenuation_of_value(value, measurement.mu_water_per_mm)
        target = measured / slope
        if base != 0.0:
            target -= raw.forward(torch.full(raw.domain, base / slope, device=device))
        A: LinearOperator = raw
        deviation = MODEL_ERROR
        if measurement.photons > 0:
            variance = (measured.exp() / measurement.photons).add_(MODEL_ERROR**2)
            deviation = float(variance.min()) ** 0.5
            weights = variance.rsqrt_().mul_(deviation)
            A, target = RowWeighted(raw, weights), target.mul_(weights)
        norm = A.norm()
        if not norm > 0:
            raise InputError(f"{measurement.name}: no ray meets the grid; check geometry.pitch_mm and offset_mm")
        denoiser = slice_denoiser(prior, settings, measurement.grid, device)
        scaled = raw.scaled(1 / norm)
        A = scaled if A is raw else RowWeighted(scaled, weights)
        grid, name = measurement.grid, measurement.name
        noise = deviation / (slope * norm)
        return cls(A, target.div_(norm), value, denoiser, grid, name, noise, measurement, scaled, norm)

    @property
    def floor(self) -> float:
        """The value of no attenuation."""
        return (-1000.0 - self.value.offset) / self.value.scale

    def classical(self, method: str, settings: ReconSettings, monitor: Monitor, checkpoint: Checkpoint) -> Tensor:
        if method == "fbp":
            return self._fbp(settings.fbp_filter)
        if isinstance(self.denoiser, SliceRestorer):
            told = condition(self.measurement.geometry.angles_deg, self.measurement.task)
            return restore(self.denoiser, self.A, self.y, self._fbp("ramp"), condition=told, monitor=monitor)
        steps = settings.sirt_iterations
        return sirt(self.A, self.y, iterations=steps, floor=self.floor, monitor=monitor, checkpoint=checkpoint)

    def _start(self, settings: ReconSettings, monitor: Monitor, checkpoint: Checkpoint) -> Tensor:
        """Of many views a part is enough for what noise is added to, and a coarser grid: the finer it is, the more
        sweeps total variation takes to fill in what no view has seen.
        """
        geometry, grid = self.measurement.geometry, self.measurement.grid
        stride, factor = coarse_start(geometry.views, grid.in_plane)
        if settings.start != "admm-tv" or settings.published or stride == 1:
            return super()._start(settings, monitor, checkpoint)
        coarse = grid.coarsened(factor)
        few = replace(geometry, angles_deg=geometry.angles_deg[::stride])
        data = self.measurement.data[:, ::stride]
        part = CTProblem.of(
            replace(self.measurement, data=data, geometry=few, grid=coarse, stored_grid=coarse),
            settings,
            self.prior,
            self.A.device,
        )
        watcher = _Finer(monitor, grid.in_plane)
        return _on_grid(part._admm_tv(settings.tv_lam, settings.start_sweeps, watcher, checkpoint), grid.in_plane)

    def quick(self, start: str, settings: ReconSettings) -> Tensor:
        return self._fbp("hann")

    def usual_level(self) -> float:
        """The fewer views, the larger the errors of the start.

        Measured on a held-out chest, 50 levels, axial PSNR.  2 views: from sigma 0.2 16.26, 0.8 17.09, 2 17.66; 4: 0.2
        21.39, 0.4 21.93, 0.8 22.02; 8 (more slices): 0.1 29.03, 0.2 29.08, 0.4 28.41; 24: 0.05 31.32, 0.1 31.48, 0.2
        31.50.
        """
        return min(max(10.0 / self.measurement.geometry.views**2, 0.1), 2.0)

    def projection(self) -> Projection:
        return Projection(self.A, self.y, normalised=True)

    def _fbp(self, window: str) -> Tensor:
        base, slope = _attenuation_of_value(self.value, self.measurement.mu_water_per_mm)
        return (
            fbp(self.unweighted, _line_integrals(self.measurement, self.A.device), window=window)
            .mul_(self.norm)
            .sub_(base)
            .div_(slope)
        )

    def residual(self, x: Tensor) -> float:
        """|A x - y| / |y|, unweighted."""
        base, slope = _attenuation_of_value(self.value, self.measurement.mu_water_per_mm)
        measured = _line_integrals(self.measurement, self.A.device)
        difference = self.unweighted.forward(x * slope + base).mul_(self.norm).sub_(measured)
        return float(torch.linalg.vector_norm(difference) / torch.linalg.vector_norm(measured))

    def volume(self, x: Tensor, name: str, *, difference: bool = False) -> Volume:
        """An estimate as a volume in HU, in the user's own axis order."""
        array = x.cpu().numpy()
        volume = to_stored_order(array, self.measurement, name=name)
        if np.may_share_memory(volume.array, array):
            volume = replace(volume, array=contiguous(array) if not array.flags.c_contiguous else array.copy())
        hu = volume.array  # in place: half the time of new arrays
        hu *= np.float32(self.value.scale)
        hu += np.float32(0.0 if difference else self.value.offset)
        return volume


@dataclass
class _Finer:
    """Passes on what happens on a coarser grid, with previews on the finer one."""

    monitor: Monitor
    in_plane: tuple[int, int]

    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        self.monitor.tick(stage, done, total, **metrics)

    def preview(self, estimate: Callable[[], Tensor], step: int) -> None:
        self.monitor.preview(lambda: _on_grid(estimate(), self.in_plane), step)

    def poll(self) -> None:
        self.monitor.poll()


def _line_integrals(measurement: Measurement, device: torch.device) -> Tensor:
    """The measured ones, (slices, views, columns), each time anew: as large as a volume, and seldom needed."""
    return slices_last(torch.from_numpy(np.ascontiguousarray(measurement.data, np.float32)).to(device))


def _on_grid(x: Tensor, in_plane: tuple[int, int]) -> Tensor:
    """x between its pixels, where it has others (bilinear)."""
    if tuple(x.shape[1:]) == in_plane:
        return x
    return slices_last(F.interpolate(x.contiguous()[:, None], size=in_plane, mode="bilinear")[:, 0])


def _attenuation_of_value(value: ValueScale, mu_water_per_mm: float) -> tuple[float, float]:
    """(base, slope) of attenuation = base + slope x, in 1/mm."""
    return mu_water_per_mm * (1 + value.offset / 1000.0), mu_water_per_mm * value.scale / 1000.0
