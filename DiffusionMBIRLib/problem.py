"""A measurement on a device: the operator scaled to norm 1 and data in the prior's value scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .config import DIFFUSION_METHODS, ReconSettings
from .data import Measurement, Volume, to_stored_order
from .errors import InputError
from .models import ValueScale
from .monitor import Checkpoint, Monitor
from .operators import LinearOperator, SliceDifference, SliceProjector, projector
from .operators.base import RowWeighted
from .operators.xray import slices_last
from .priors.base import Prior, SliceDenoiser
from .priors.checkpoints import load_prior
from .samplers import dds, mbir
from .samplers import published as published_samplers
from .samplers.schedules import geometric_sigmas, karras_sigmas
from .samplers.state import STAGE
from .solvers.cg import conjugate_gradient
from .solvers.classic import admm_tv, fbp, sirt
from .solvers.consistency import ZTVConsistency
from .solvers.published import PeriodicDifference, aliased_conjugate_gradient

SLOW_SWEEPS = 10  # of the paper's Algorithm 2, which starts the ADMM anew at every noise level
PIXELS_PER_BATCH = {"cpu": 2**18, "cuda": 2**22}


@dataclass
class Problem:
    """y = A x with x in the prior's value scale, where attenuation = base + slope x (1/mm).

    raw: the operator in mm.  A, y: scaled so that |A| = 1, rows weighted by their statistical precision where the
    photon count is known.
    """

    measurement: Measurement
    raw: SliceProjector
    A: LinearOperator
    y: Tensor
    line_integrals: Tensor
    value: ValueScale
    denoiser: SliceDenoiser | None
    seed_device: torch.device

    @classmethod
    def build(
        cls, measurement: Measurement, settings: ReconSettings, prior: str | Prior | None, device: torch.device
    ) -> Problem:
        loaded = _load(settings, prior, device)
        value = loaded.card.value if loaded else ValueScale()
        raw = projector(measurement.geometry, measurement.grid, device=device)
        measured = slices_last(torch.from_numpy(np.ascontiguousarray(measurement.data, np.float32)).to(device))
        base, slope = _attenuation_of_value(value, measurement.mu_water_per_mm)
        target = measured / slope
        if base != 0.0:
            target = target - raw.forward(torch.full(raw.domain, base / slope, device=device))
        A: LinearOperator = raw
        if measurement.photons > 0:
            weights = (-0.5 * (measured - measured.min())).exp()
            A, target = RowWeighted(raw, weights), target * weights
        norm = A.norm()
        if not norm > 0:
            raise InputError(f"{measurement.name}: no ray meets the grid; check geometry.pitch_mm and offset_mm")
        denoiser = None
        if loaded:
            rows, columns = measurement.grid.in_plane
            batch = settings.slices_per_batch or max(1, PIXELS_PER_BATCH[device.type] // (rows * columns))
            denoiser = SliceDenoiser(loaded, batch)
        scaled = raw.scaled(1 / norm) if A is raw else RowWeighted(raw.scaled(1 / norm), weights)
        return cls(measurement, raw, scaled, target / norm, measured, value, denoiser, device)

    @property
    def prior(self) -> Prior | None:
        return self.denoiser.prior if self.denoiser else None

    def solve(self, settings: ReconSettings, monitor: Monitor, checkpoint: Checkpoint) -> Tensor:
        """The volume (slices, rows, columns) in the value scale."""
        watcher = _Watcher(self, monitor)
        if settings.method == "fbp":
            return self._fbp(settings.fbp_filter)
        if settings.method == "sirt":
            steps = settings.sirt_iterations
            return sirt(self.A, self.y, iterations=steps, floor=self._air, monitor=watcher, checkpoint=checkpoint)
        if settings.method == "admm-tv":
            return self._admm_tv(settings.tv_lam, settings.tv_sweeps, watcher, checkpoint)
        return self._diffuse(settings, watcher, checkpoint)

    @property
    def _air(self) -> float:
        """The value of no attenuation."""
        return (-1000.0 - self.value.offset) / self.value.scale

    def _fbp(self, window: str) -> Tensor:
        base, slope = _attenuation_of_value(self.value, self.measurement.mu_water_per_mm)
        return (fbp(self.raw, self.line_integrals, window=window) - base) / slope

    def _admm_tv(self, lam: float, sweeps: int, monitor: Monitor, checkpoint: Checkpoint) -> Tensor:
        return admm_tv(
            self.A,
            self.y,
            lam=lam,
            sweeps=sweeps,
            weights=_inverse_spacing(self.measurement),
            floor=self._air,
            monitor=monitor,
            checkpoint=checkpoint,
        )

    def _diffuse(self, settings: ReconSettings, monitor: Monitor, checkpoint: Checkpoint) -> Tensor:
        assert self.denoiser is not None
        self.denoiser.poll = monitor.poll
        stored = checkpoint.load(STAGE) or {}
        # The start is kept where further samples need it; its form alone matters to one that is taken up.
        start = stored.get("start", stored.get("x"))
        start = self._start(settings, monitor, checkpoint) if start is None else start
        difference = self._difference(settings)
        # The published code of dds mended its conjugate gradient.
        aliased = settings.published and settings.method == "mbir"
        generator = torch.Generator(self.seed_device).manual_seed(settings.seed)
        mean = stored.get("mean", torch.zeros_like(start))
        for number in range(int(stored.get("number", 0)), settings.samples):
            consistency = ZTVConsistency(
                self.A,
                self.y,
                difference=difference,
                rho=settings.rho,
                lam=settings.lam,
                cg_steps=settings.cg_steps,
                sweeps=settings.sweeps or (SLOW_SWEEPS if settings.method == "mbir-slow" else 1),
                solver=aliased_conjugate_gradient if aliased else conjugate_gradient,
            )
            keeper = _OfSample(checkpoint, number, {"start": start, "mean": mean} if settings.samples > 1 else {})
            mean += self._sample(settings, consistency, start, generator, monitor, keeper) / settings.samples
        return mean

    def _sample(
        self,
        settings: ReconSettings,
        consistency: ZTVConsistency,
        start: Tensor,
        generator: torch.Generator,
        monitor: Monitor,
        checkpoint: Checkpoint,
    ) -> Tensor:
        assert self.denoiser is not None
        if settings.published:
            return self._sample_as_published(settings, consistency, generator, monitor, checkpoint)
        if settings.method == "dds":
            sigmas = karras_sigmas(settings.sigma_end, settings.sigma_start, settings.steps)
            return dds.sample(
                self.denoiser,
                consistency,
                sigmas,
                start,
                generator,
                eta=settings.eta,
                monitor=monitor,
                checkpoint=checkpoint,
            )
        sigmas = geometric_sigmas(settings.sigma_end, settings.sigma_start, settings.steps)
        return mbir.sample(
            self.denoiser,
            consistency,
            sigmas,
            start,
            generator,
            snr=settings.snr,
            share_variables=settings.method == "mbir",
            monitor=monitor,
            checkpoint=checkpoint,
        )

    def _sample_as_published(
        self,
        settings: ReconSettings,
        consistency: ZTVConsistency,
        generator: torch.Generator,
        monitor: Monitor,
        checkpoint: Checkpoint,
    ) -> Tensor:
        assert self.denoiser is not None
        if settings.method == "dds":
            sigmas = published_samplers.dds_sigmas(settings.steps)
            _require_level(self.denoiser.prior, sigmas[0], f"setting published: {settings.steps} steps of dds begin at")
            return published_samplers.sample_dds(
                self.denoiser,
                consistency,
                sigmas,
                generator,
                eta=settings.eta,
                monitor=monitor,
                checkpoint=checkpoint,
            )
        prior = self.denoiser.prior
        return published_samplers.sample_mbir(
            self.denoiser,
            consistency,
            published_samplers.mbir_levels(prior.sigma_min, prior.sigma_max, settings.steps),
            generator,
            snr=settings.snr,
            slices_per_batch=settings.slices_per_batch or published_samplers.SLICES_PER_BATCH,
            monitor=monitor,
            checkpoint=checkpoint,
        )

    def _difference(self, settings: ReconSettings) -> SliceDifference:
        shape = self.measurement.grid.shape
        if settings.published:
            return PeriodicDifference(shape, device=self.A.device)
        return SliceDifference(shape, weight=_inverse_spacing(self.measurement)[0], device=self.A.device)

    def _start(self, settings: ReconSettings, monitor: Monitor, checkpoint: Checkpoint) -> Tensor:
        if settings.start == "noise" or settings.published:
            return torch.zeros_like(self.A.adjoint(self.y))
        if settings.start == "fbp":
            return self._fbp("hann")
        return self._admm_tv(settings.tv_lam, settings.start_sweeps, monitor, checkpoint)

    def residual(self, x: Tensor) -> float:
        """|A x - y| / |y|, unweighted."""
        base, slope = _attenuation_of_value(self.value, self.measurement.mu_water_per_mm)
        difference = self.raw.forward(x * slope + base) - self.line_integrals
        return float(torch.linalg.vector_norm(difference) / torch.linalg.vector_norm(self.line_integrals))

    def volume(self, x: Tensor, name: str) -> Volume:
        """An estimate as a volume in HU, in the user's own axis order."""
        array = (x * self.value.scale + self.value.offset).cpu().numpy()
        return to_stored_order(array, self.measurement, name=name)


@dataclass
class _Watcher:
    """Passes on what happens, with previews made into volumes for the user."""

    problem: Problem
    monitor: Monitor

    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        self.monitor.tick(stage, done, total, **metrics)

    def preview(self, estimate: Callable[[], Tensor], step: int) -> None:
        name = self.problem.measurement.name
        self.monitor.preview(lambda: self.problem.volume(estimate(), f"preview of {name}"), step)

    def poll(self) -> None:
        self.monitor.poll()


@dataclass
class _OfSample:
    """The checkpoint of one of several samples: adds to a state which sample it belongs to and what the others gave."""

    checkpoint: Checkpoint
    number: int
    shared: dict[str, Tensor]

    def load(self, stage: str) -> dict[str, Tensor] | None:
        stored = self.checkpoint.load(stage)
        return stored if stored and int(stored["number"]) == self.number else None

    def save(self, stage: str, state: dict[str, Tensor]) -> None:
        self.checkpoint.save(stage, state | self.shared | {"number": torch.tensor(self.number)})


def _load(settings: ReconSettings, prior: str | Prior | None, device: torch.device) -> Prior | None:
    if settings.method not in DIFFUSION_METHODS:
        return None
    chosen = settings.prior if prior is None else prior
    loaded = load_prior(chosen, device=device) if isinstance(chosen, str) else chosen
    if loaded.card.modality not in ("CT", "any"):
        raise InputError(
            f"prior {loaded.card.id!r} is for {loaded.card.modality}, the measurement is CT; choose another"
        )
    if loaded.card.channels != 1:
        raise InputError(
            f"prior {loaded.card.id!r} works on {loaded.card.channels} channels (complex images), the measurement has "
            "one; choose another"
        )
    if settings.published and settings.method == "mbir-slow":
        raise InputError("setting published: no code of mbir-slow was published; use mbir or dds")
    if not settings.published:
        _require_level(loaded, settings.sigma_start, "setting sigma_start:")
    return loaded


def _require_level(prior: Prior, sigma: float, what: str) -> None:
    if sigma > 1.001 * prior.sigma_max:
        raise InputError(
            f"{what} {sigma:g} is above the largest noise level of prior {prior.card.id!r}, {prior.sigma_max:g}"
        )


def _attenuation_of_value(value: ValueScale, mu_water_per_mm: float) -> tuple[float, float]:
    """(base, slope) of attenuation = base + slope x, in 1/mm."""
    return mu_water_per_mm * (1 + value.offset / 1000.0), mu_water_per_mm * value.scale / 1000.0


def _inverse_spacing(measurement: Measurement) -> tuple[float, float, float]:
    """Weights of differences along (slices, rows, columns): smaller pixel side / spacing."""
    x, y, z = measurement.grid.spacing_mm
    pixel = min(x, y)
    return pixel / z, pixel / y, pixel / x
