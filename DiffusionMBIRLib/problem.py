"""A measurement on a device, whatever its kind: the operator with norm 1 and the data in the prior's value scale."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from .config import ReconSettings
from .devices import volume_device
from .errors import InputError
from .geometry import Grid
from .methods import DIFFUSION_METHODS, SUPERVISED_METHODS, methods_for, starts_for
from .models import ValueScale
from .monitor import Checkpoint, Monitor
from .operators import LinearOperator, SliceDifference
from .operators.difference import Gradient
from .priors.base import Denoiser, Prior, SliceDenoiser
from .priors.checkpoints import in_precision, load_prior
from .priors.networks import NetworkPrior
from .samplers import dds, mbir, slicewise
from .samplers import published as published_samplers
from .samplers.posterior import Moments
from .samplers.schedules import geometric_sigmas, karras_sigmas
from .samplers.state import STAGE
from .scans import KSpace, Measurement
from .solvers.accelerated import CarriedDescent, CirculantPreconditioner
from .solvers.cg import descend
from .solvers.classic import admm_tv
from .solvers.consistency import ZTVConsistency
from .solvers.published import PeriodicDifference, aliased_descend
from .supervised.methods import SliceRestorer, SupervisedNetwork, load_network
from .tasks import MR_TASK
from .volume import Volume

SLOW_SWEEPS = 10  # of the paper's Algorithm 2, which starts the ADMM anew at every noise level
PIXELS_PER_BATCH = {"cpu": 2**18, "cuda": 2**22, "mps": 2**20}


@dataclass
class Problem(ABC):
    """y = A x with x (slices, rows, columns) in the prior's value scale and |A| = 1.

    grid, name: of the measurement.  denoiser: the prior, for methods that use one.  noise: standard deviation of y in
    that scale, 0 if unknown.  deviation: that of the posterior samples, once several were drawn.
    """

    A: LinearOperator
    y: Tensor
    value: ValueScale
    denoiser: SliceDenoiser | None
    grid: Grid
    name: str
    noise: float
    deviation: Tensor | None = field(default=None, init=False)

    @property
    def floor(self) -> float | None:
        """The least value that a volume can have, where there is one."""
        return None

    @staticmethod
    def build(
        measurement: Measurement | KSpace, settings: ReconSettings, prior: str | Prior | None, device: torch.device
    ) -> Problem:
        """The problem of a measurement, with networks on ``device`` and all else there or beside it.

        Raises InputError for a method, start, prior or precision that does not fit it or the device.
        """
        require_fitting(measurement.task, settings)
        volumes = volume_device(device)
        if isinstance(measurement, KSpace):
            from .problem_mr import MRProblem

            return MRProblem.of(measurement, settings, load(settings, prior, device, "MR", channels=(1, 2)), volumes)
        from .problem_ct import CTProblem

        if settings.method in SUPERVISED_METHODS:
            chosen = settings.prior if prior is None else prior
            loaded: Prior | None = load_network(
                chosen, settings.method, measurement.task, device=device, precision=settings.precision
            )
        else:
            loaded = load(settings, prior, device, "CT", channels=(1,))
        return CTProblem.of(measurement, settings, loaded, volumes)

    # --- what the kinds of measurement do differently

    @abstractmethod
    def classical(self, method: str, settings: ReconSettings, monitor: Monitor, checkpoint: Checkpoint) -> Tensor:
        """The volume by a method without a prior, but for admm-tv, which all kinds share."""

    @abstractmethod
    def quick(self, start: str, settings: ReconSettings) -> Tensor:
        """The volume to start from by ``settings.start``, but for those that all kinds share."""

    @abstractmethod
    def residual(self, x: Tensor) -> float:
        """|A x - y| / |y|, unweighted."""

    @abstractmethod
    def volume(self, x: Tensor, name: str, *, difference: bool = False) -> Volume:
        """An estimate as a volume in the user's own unit and axis order.

        difference: of values, such as a standard deviation, that the unit's zero does not count for.
        """

    def usual_level(self) -> float:
        """The first noise level where the settings leave it open: above the errors of the volume to start from."""
        return 0.2

    def volumes_denoiser(self, settings: ReconSettings) -> Denoiser:
        """How the prior sees the volumes of this problem."""
        assert self.denoiser is not None
        return self.denoiser

    def projection(self) -> slicewise.Projection:
        """The data step of slice-wise diffusion."""
        return slicewise.Projection(self.A, self.y)

    aliased: ClassVar[bool] = False  # the published code's conjugate gradient of mbir errs beyond one step
    ends_on_data: ClassVar[bool] = False  # the published code of mbir ends with a step onto the data

    # --- what they share

    @property
    def prior(self) -> Prior | None:
        return self.denoiser.prior if self.denoiser else None

    @property
    def precision(self) -> torch.dtype:
        """Of the network's arithmetic; all else is computed in float32."""
        found: torch.dtype = getattr(self.prior, "precision", torch.float32)
        return found

    def solve(self, settings: ReconSettings, monitor: Monitor, checkpoint: Checkpoint) -> Tensor:
        """The volume (slices, rows, columns) in the value scale."""
        watcher = _Watcher(self, monitor)
        if settings.method == "admm-tv":
            return self._admm_tv(settings.tv_lam, settings.tv_sweeps, watcher, checkpoint)
        if settings.method in DIFFUSION_METHODS:
            return self._diffuse(settings, watcher, checkpoint)
        return self.classical(settings.method, settings, watcher, checkpoint)

    def _admm_tv(self, lam: float, sweeps: int, monitor: Monitor, checkpoint: Checkpoint) -> Tensor:
        return admm_tv(
            self.A,
            self.y,
            lam=lam,
            sweeps=sweeps,
            weights=inverse_spacing(self.grid),
            floor=self.floor,
            monitor=monitor,
            checkpoint=checkpoint,
        )

    def _start(self, settings: ReconSettings, monitor: Monitor, checkpoint: Checkpoint) -> Tensor:
        if settings.start == "noise" or settings.published:
            return torch.zeros_like(self.A.adjoint(self.y))
        if settings.start == "admm-tv":
            return self._admm_tv(settings.tv_lam, settings.start_sweeps, monitor, checkpoint)
        return self.quick(settings.start, settings)

    def _diffuse(self, settings: ReconSettings, monitor: Monitor, checkpoint: Checkpoint) -> Tensor:
        assert self.denoiser is not None
        self.denoiser.poll = monitor.poll
        stored = checkpoint.load(STAGE) or {}
        self.denoiser.evaluations = int(stored.get("evaluations", 0))
        self.denoiser.seconds = float(stored.get("network_seconds", 0.0))
        denoiser = self.volumes_denoiser(settings)
        generator = torch.Generator(self.A.device).manual_seed(settings.seed)
        # The start is kept where further samples need it; its form alone matters to one that is taken up.  It is handed
        # over by a function, so that nobody holds it once noise is on it.
        kept = stored.get("start", stored.get("x"))
        begin = partial(self._start, settings, monitor, checkpoint) if kept is None else [kept].pop
        del kept
        if settings.samples == 1:
            del stored
            return self._sample(_Run(settings, denoiser, generator, monitor, self._keeper(checkpoint, 0, {})), begin)
        start = begin()
        moments = Moments(start, stored)
        for number in range(int(stored.get("number", 0)), settings.samples):
            keeper = self._keeper(checkpoint, number, {"start": start, **moments.state()})
            run = _Run(settings, denoiser, generator, monitor, keeper)
            moments.add(self._sample(run, lambda: start), number + 1)
        self.deviation = moments.deviation(settings.samples)
        return moments.mean

    def _keeper(self, checkpoint: Checkpoint, number: int, shared: dict[str, Tensor]) -> _OfSample:
        assert self.denoiser is not None
        return _OfSample(checkpoint, number, shared, self.denoiser)

    def _sample(self, run: _Run, start: Callable[[], Tensor]) -> Tensor:
        s = run.settings
        if s.published:
            return self._sample_as_published(run)
        if s.method in ("score-mri", "score-ct"):
            sigmas = geometric_sigmas(s.sigma_end, self._first_level(s), s.steps)
            return slicewise.sample(
                run.denoiser,
                self.projection(),
                sigmas,
                start,
                run.generator,
                snr=s.snr,
                monitor=run.monitor,
                checkpoint=run.checkpoint,
            )
        if s.method == "dds":
            spaced = karras_sigmas if s.schedule == "karras" else geometric_sigmas
            return dds.sample(
                run.denoiser,
                self._consistency(run),
                spaced(s.sigma_end, self._first_level(s), s.steps),
                start,
                run.generator,
                eta=s.eta,
                noise_span=s.noise_span,
                share_variables=s.share_variables,
                extrapolation=s.extrapolation,
                monitor=run.monitor,
                checkpoint=run.checkpoint,
            )
        return mbir.sample(
            run.denoiser,
            self._consistency(run),
            geometric_sigmas(s.sigma_end, self._first_level(s), s.steps),
            start,
            run.generator,
            snr=s.snr,
            share_variables=s.method == "mbir",
            monitor=run.monitor,
            checkpoint=run.checkpoint,
        )

    def _first_level(self, settings: ReconSettings) -> float:
        """The noise level that a sampler which starts from a volume begins at."""
        assert self.denoiser is not None
        usual = min(self.usual_level(), self.denoiser.prior.sigma_max)
        return max(settings.sigma_start or usual, settings.sigma_end)

    def _sample_as_published(self, run: _Run) -> Tensor:
        s, prior = run.settings, run.denoiser.prior
        if s.method == "dds":
            sigmas = published_samplers.dds_sigmas(s.steps)
            require_level(prior, sigmas[0], f"setting published: {s.steps} steps of dds begin at")
            return published_samplers.sample_dds(
                run.denoiser,
                self._consistency(run),
                sigmas,
                run.generator,
                eta=s.eta,
                monitor=run.monitor,
                checkpoint=run.checkpoint,
            )
        return published_samplers.sample_mbir(
            run.denoiser,
            self._consistency(run),
            published_samplers.mbir_levels(prior.sigma_min, prior.sigma_max, s.steps),
            run.generator,
            snr=s.snr,
            slices_per_batch=s.slices_per_batch or published_samplers.SLICES_PER_BATCH,
            end_on_data=self.ends_on_data,
            monitor=run.monitor,
            checkpoint=run.checkpoint,
        )

    def _consistency(self, run: _Run) -> ZTVConsistency:
        settings = run.settings
        # The published code of dds mended its conjugate gradient.
        aliased = self.aliased and settings.published and settings.method == "mbir"
        return ZTVConsistency(
            self.A,
            self.y,
            difference=self._difference(settings),
            rho=settings.rho,
            lam=settings.lam,
            cg_steps=settings.cg_steps,
            sweeps=settings.sweeps or (SLOW_SWEEPS if settings.method == "mbir-slow" else 1),
            softening=0.0 if settings.published else settings.softening * self.noise,
            solver=aliased_descend if aliased else self._solver(settings),
            poll=run.monitor.poll,
        )

    def _solver(self, settings: ReconSettings) -> Callable[..., Tensor]:
        """What takes the steps of conjugate gradient."""
        if settings.published or not settings.preconditioner:
            return descend
        coupling = settings.rho * self._weights(settings)[0] ** 2
        return CarriedDescent(CirculantPreconditioner(self.A, settings.preconditioner, coupling))

    def _difference(self, settings: ReconSettings) -> SliceDifference | Gradient:
        A = self.A
        if settings.published:
            return PeriodicDifference(self.grid.shape, device=A.device, dtype=A.dtype)
        weights = self._weights(settings)
        if settings.tv_axes == "xyz":
            return Gradient(self.grid.shape, weights=weights, device=A.device, dtype=A.dtype)
        return SliceDifference(self.grid.shape, weight=weights[0], device=A.device, dtype=A.dtype)

    def _weights(self, settings: ReconSettings) -> tuple[float, float, float]:
        """Of differences along slices, rows and columns."""
        return inverse_spacing(self.grid) if settings.weigh_spacing else (1.0, 1.0, 1.0)


@dataclass
class _Run:
    """What one sample needs besides its start."""

    settings: ReconSettings
    denoiser: Denoiser
    generator: torch.Generator
    monitor: Monitor
    checkpoint: Checkpoint


@dataclass
class _Watcher:
    """Passes on what happens, with previews made into volumes for the user."""

    problem: Problem
    monitor: Monitor

    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        self.monitor.tick(stage, done, total, **metrics)

    def preview(self, estimate: Callable[[], Tensor], step: int) -> None:
        self.monitor.preview(lambda: self.problem.volume(estimate(), f"preview of {self.problem.name}"), step)

    def poll(self) -> None:
        self.monitor.poll()


@dataclass
class _OfSample:
    """The checkpoint of one of several samples: adds to a state which sample it belongs to, what the others gave and
    what the network was asked.
    """

    checkpoint: Checkpoint
    number: int
    shared: dict[str, Tensor]
    denoiser: SliceDenoiser

    def load(self, stage: str) -> dict[str, Tensor] | None:
        stored = self.checkpoint.load(stage)
        return stored if stored and int(stored["number"]) == self.number else None

    def save(self, stage: str, state: dict[str, Tensor]) -> None:
        asked = {
            "evaluations": torch.tensor(self.denoiser.evaluations),
            "network_seconds": torch.tensor(self.denoiser.seconds, dtype=torch.float64),
        }
        self.checkpoint.save(stage, state | self.shared | asked | {"number": torch.tensor(self.number)})


def require_fitting(task: str, settings: ReconSettings) -> None:
    """Raise InputError for a method or start that does not fit a task."""
    for name, value, known in (
        ("method", settings.method, methods_for(task)),
        ("start", settings.start, starts_for(task)),
    ):
        if value not in known:
            raise InputError(f"setting {name}: {value!r} does not fit the task {task}; use one of {', '.join(known)}")
    if task == MR_TASK and settings.preconditioner:
        raise InputError("setting preconditioner: it is made for CT; set it to 0 for k-space")


def load(
    settings: ReconSettings,
    prior: str | Prior | None,
    device: torch.device,
    modality: str,
    *,
    channels: tuple[int, ...],
) -> Prior | None:
    """The prior, if the method needs one; raises InputError where it does not fit the measurement or the settings."""
    if settings.method not in DIFFUSION_METHODS:
        return None
    chosen = settings.prior if prior is None else prior
    if isinstance(chosen, str):
        loaded: Prior = load_prior(chosen, device=device, precision=settings.precision)
    else:
        loaded = in_precision(chosen, settings.precision)
    card = loaded.card
    if card.modality not in (modality, "any"):
        raise InputError(f"prior {card.id!r} is for {card.modality}, the measurement is {modality}; choose another")
    if card.channels not in channels:
        raise InputError(
            f"prior {card.id!r} works on {card.channels} channels (complex images), the measurement has "
            "one; choose another"
        )
    if settings.published and settings.method not in ("mbir", "dds"):
        raise InputError(f"setting published: no code of {settings.method} was published; use mbir or dds")
    if not settings.published:
        require_level(loaded, settings.sigma_start, "setting sigma_start:")
    if settings.compile and isinstance(loaded, NetworkPrior):
        loaded.compile()
    return loaded


def require_level(prior: Prior, sigma: float, what: str) -> None:
    """Raise InputError for a noise level above those that a prior has learnt."""
    if sigma > 1.001 * prior.sigma_max:
        raise InputError(
            f"{what} {sigma:g} is above the largest noise level of prior {prior.card.id!r}, {prior.sigma_max:g}"
        )


def slice_denoiser(
    prior: Prior | None, settings: ReconSettings, grid: Grid, device: torch.device
) -> SliceDenoiser | None:
    """The prior for whole volumes, with sub-batches that fit the device."""
    if prior is None:
        return None
    rows, columns = grid.in_plane
    place: torch.device = getattr(prior, "device", device)
    batch = settings.slices_per_batch or max(1, PIXELS_PER_BATCH[place.type] // (rows * columns))
    if settings.method in SUPERVISED_METHODS and isinstance(prior, SupervisedNetwork):
        return SliceRestorer(prior, batch)
    return SliceDenoiser(prior, batch)


def inverse_spacing(grid: Grid) -> tuple[float, float, float]:
    """Weights of differences along (slices, rows, columns): smaller pixel side / spacing."""
    x, y, z = grid.spacing_mm
    pixel = min(x, y)
    return pixel / z, pixel / y, pixel / x
