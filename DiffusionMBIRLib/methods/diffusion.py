"""What the diffusion methods share: the prior, the start, the data step, and one posterior sample after another."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ..checkpoints import fitting
from ..errors import InputError
from ..geometry import mixes_slices
from ..models import find, read_card
from ..samplers.schedules import STAGE, USUAL_LEVEL, usual_level
from ..tasks import task_info
from ..uncertainty.cost import EVALUATIONS
from .base import Method
from .run import Estimate, Run
from .starts import OnFinerGrid, start_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..config import ReconSettings
    from ..denoisers import Counter, Denoiser
    from ..models import ModelCard
    from ..monitor import Checkpoint
    from ..priors.base import Prior
    from ..problems import Problem
    from ..samplers.noise import Noise
    from ..scans import Scan


@dataclass(frozen=True)
class Draw:
    """What one posterior sample is drawn with: how the prior sees the volume, what it starts from, and its noise."""

    problem: Problem
    settings: ReconSettings
    run: Run
    denoiser: Denoiser
    prior: Prior
    start: Callable[[], Tensor]
    noise: Noise
    checkpoint: Checkpoint

    @property
    def first_level(self) -> float:
        """The noise level that a sampler which starts from a volume begins at."""
        s = self.settings
        usual = min(self.problem.usual_sigma, self.prior.sigma_max)
        return max(s.sigma_start or usual, s.sigma_end)


class DiffusionMethod(Method):
    """Draws volumes with a diffusion prior.

    publishes: whether the code of a paper can be followed to the letter (setting ``published``).
    """

    network: ClassVar[str] = "prior"
    slabs: ClassVar[bool] = True
    publishes: ClassVar[bool] = False

    @abstractmethod
    def draw(self, draw: Draw) -> Tensor:
        """One volume."""

    @abstractmethod
    def evaluations_of_a_sample(self, settings: ReconSettings, task: str, views: int) -> int:
        """Evaluations of the denoiser for one posterior sample."""

    def data_steps(self, settings: ReconSettings) -> int:
        """Sweeps of the data step for one posterior sample."""
        return settings.steps

    def evaluations(self, settings: ReconSettings, task: str, views: int) -> int:
        parts = 2 if _sees_parts(settings, task) else 1
        doubt = EVALUATIONS if settings.uncertainty else 0
        return (self.evaluations_of_a_sample(settings, task, views) * settings.samples + doubt) * parts

    def work(self, settings: ReconSettings) -> dict[str, tuple[str, float]]:
        steps = settings.samples * self.data_steps(settings) * (settings.cg_steps + 2)
        preconditioned = settings.preconditioner and not settings.published
        return {STAGE: ("preconditioned step" if preconditioned else "step", steps)}

    def load(
        self, settings: ReconSettings, network: Any, scan: Scan, device: torch.device
    ) -> tuple[Any, ModelCard | None]:
        from ..denoisers import TiledPrior
        from ..priors.checkpoints import in_precision, load_prior, not_a_prior
        from ..priors.networks import NetworkPrior

        chosen = settings.prior if network is None else network
        if isinstance(chosen, str):
            prior: Any = load_prior(chosen, device=device, precision=settings.precision)
        else:
            prior = in_precision(chosen, settings.precision)
        if not hasattr(prior, "denoise"):
            raise InputError(not_a_prior(prior.card))
        _require_fitting(prior, scan)
        if settings.tile:
            TiledPrior(prior, settings.tile)  # raises where the prior cannot be asked for tiles
        if settings.published and not self.publishes:
            raise InputError(f"setting published: no code of {self.name} was published; use mbir or dds")
        if not settings.published:
            require_level(prior, settings.sigma_start, "setting sigma_start:")
        if settings.compile and isinstance(prior, NetworkPrior):
            prior.compile()
        return prior, prior.card

    def run(self, problem: Problem, settings: ReconSettings, run: Run) -> Estimate:
        if settings.bin_pixels == 1:
            return self._samples(problem, settings, run)
        part, finer = on_pixels_of_prior(problem, settings.bin_pixels)
        found = self._samples(part, settings, replace(run, monitor=OnFinerGrid(run.monitor, finer)))
        return Estimate(finer(found.volume), None if found.deviation is None else finer(found.deviation))

    def _samples(self, problem: Problem, settings: ReconSettings, run: Run) -> Estimate:
        from ..samplers.noise import Noise
        from ..samplers.posterior import Moments

        volumes = problem.A.domain
        stored = run.checkpoint.load(STAGE) or {}
        run.counter.evaluations = int(stored.get("evaluations", 0))
        run.counter.seconds = float(stored.get("network_seconds", 0.0))
        denoiser = denoiser_of(problem, settings, run)
        prior = denoiser.prior
        span = settings.noise_span if "noise_span" in self.settings else 1

        def draw(number: int, start: Callable[[], Tensor], shared: dict[str, Tensor]) -> Tensor:
            keeper = _OfSample(run.checkpoint, number, shared, run.counter)
            noise = Noise(volumes, settings.seed, number, span)
            return self.draw(Draw(problem, settings, run, denoiser, prior, start, noise, keeper))

        # The start is kept where further samples need it; its form alone matters to one that is taken up.  It is handed
        # over by a function, so that nobody holds it once noise is on it.
        first = int(stored.get("number", 0))
        if first >= settings.samples:
            raise ValueError(f"the state is of sample {first + 1}; the run has {settings.samples}")
        name = "x" if settings.samples == 1 else "start"
        kept = fitting(stored, {name: (volumes.shape, volumes.dtype)})[name] if stored else None
        begin = partial(self._start, problem, settings, run) if kept is None else [kept].pop
        del kept
        if settings.samples == 1:
            del stored
            return Estimate(draw(0, begin, {}))
        start = begin()
        moments = Moments(start, stored)
        for number in range(first, settings.samples):
            moments.add(draw(number, lambda: start, {"start": start, **moments.state()}), number + 1)
        return Estimate(moments.mean, moments.deviation(settings.samples))

    def _start(self, problem: Problem, settings: ReconSettings, run: Run) -> Tensor:
        if settings.published:
            return problem.A.domain.zeros()
        return start_of(problem, settings, run.monitor, run.checkpoint)


def on_pixels_of_prior(problem: Problem, factor: int) -> tuple[Problem, Callable[[Tensor], Tensor]]:
    """The problem on pixels and columns of ``factor`` times the side, and what leads its volumes back.

    Raises InputError where pixels or columns cannot be divided so.
    """
    rows, columns = problem.grid.in_plane
    if problem.coarser is None or rows % factor or columns % factor:
        raise InputError(
            f"setting bin_pixels: {factor} does not divide the {rows} x {columns} pixels of {problem.scan.name}; set "
            "it to 1"
        )
    return problem.coarser(1, factor, factor)


def denoiser_of(problem: Problem, settings: ReconSettings, run: Run) -> Denoiser:
    """How the run's prior sees volumes of a problem: told of the pixels, in tiles, in sub-batches, complex ones,
    and where values are bounded within these bounds.
    """
    from ..denoisers import BoundedDenoiser, SliceDenoiser, TiledPrior, at_pixel_size

    prior, volumes = at_pixel_size(run.network, problem.grid, problem.planes), problem.A.domain
    sides = [n for axis, n in enumerate(volumes.shape) if axis != problem.planes[0]]
    in_plane = tuple(min(n, settings.tile or n) for n in sides)
    batch = slices_per_batch(settings, in_plane, getattr(prior, "device", volumes.device))
    seen = TiledPrior(prior, settings.tile, poll=run.monitor.poll) if settings.tile else prior
    slices = SliceDenoiser(seen, batch, counter=run.counter, poll=run.monitor.poll, axes=problem.planes)
    seen_by = problem.seen_by(slices, settings)
    return seen_by if problem.most is None else BoundedDenoiser(seen_by, problem.least, problem.most)


def predictor_corrector_evaluations(settings: ReconSettings, task: str, views: int) -> int:
    """A predictor for each jump to a lower level, a corrector at each level, and the last evaluation."""
    usual = USUAL_LEVEL if task_info(task).modality == "MR" else usual_level(views)
    falling = (settings.sigma_start or usual) > settings.sigma_end
    return (settings.steps - 1 if falling else 0) + settings.steps + 1


def _sees_parts(settings: ReconSettings, task: str) -> bool:
    """Whether the network is asked for real and imaginary part one after the other."""
    if task_info(task).modality != "MR" or settings.complex_prior not in ("auto", "real-imaginary"):
        return False
    if settings.complex_prior == "real-imaginary":
        return True
    return settings.published and _channels(settings.prior) == 1


def _channels(prior: str) -> int:
    with suppress(InputError):
        return read_card(find(prior)).channels
    return 1


PIXELS_PER_BATCH = {"cpu": 2**18, "cuda": 2**22, "mps": 2**20}


def slices_per_batch(settings: ReconSettings, in_plane: tuple[int, ...], device: torch.device) -> int:
    """How many slices are denoised at once."""
    rows, columns = in_plane
    return settings.slices_per_batch or max(1, PIXELS_PER_BATCH.get(device.type, 2**18) // (rows * columns))


def data_step(draw: Draw, *, sweeps: int = 1) -> Any:
    """The data step of the method: conjugate gradient on the data with total variation across slices, or the one that
    the problem has.
    """
    if draw.problem.data_step is not None:
        return draw.problem.data_step(draw.settings.noise_weight)
    from ..operators import SliceDifference
    from ..operators.difference import Gradient
    from ..problems import inverse_spacing
    from ..solvers.cg import descend
    from ..solvers.consistency import ZTVConsistency
    from ..solvers.recycled import CirculantPreconditioner, RecycledGradient

    s, A, volumes = draw.settings, draw.problem.A, draw.problem.A.domain
    weights = inverse_spacing(draw.problem.grid) if s.weigh_spacing else (1.0, 1.0, 1.0)
    solver: Any = descend
    if s.preconditioner:
        mixed = mixes_slices(draw.problem.scan.geometry)
        approximate = CirculantPreconditioner(A, s.preconditioner, s.rho * weights[0] ** 2, mixed=mixed)
        solver = RecycledGradient(approximate)
    elif draw.problem.approximate:
        solver = RecycledGradient(draw.problem.approximate(s.rho * weights[0] ** 2 if s.lam else 0.0))
    across = SliceDifference(volumes, weight=weights[0])
    return ZTVConsistency(
        A,
        draw.problem.y,
        difference=Gradient(volumes, weights=weights) if s.tv_axes == "xyz" else across,
        rho=s.rho,
        lam=s.lam,
        cg_steps=s.cg_steps,
        sweeps=s.sweeps or sweeps,
        noise=s.noise_weight * draw.problem.noise,
        solver=solver,
        poll=draw.run.monitor.poll,
    )


def require_level(prior: Prior, sigma: float, what: str) -> None:
    """Raise InputError for a noise level above those that a prior has learnt."""
    if sigma > 1.001 * prior.sigma_max:
        raise InputError(
            f"{what} {sigma:g} is above the largest noise level of prior {prior.card.id!r}, {prior.sigma_max:g}"
        )


def _require_fitting(prior: Prior, scan: Scan) -> None:
    from ..models import MR_VALUE

    card, channels = prior.card, (1, 2) if scan.modality == "MR" else (1,)
    if card.modality not in (scan.modality, "any"):
        raise InputError(
            f"prior {card.id!r} is for {card.modality}, the measurement is {scan.modality}; choose another"
        )
    if card.channels not in channels:
        raise InputError(
            f"prior {card.id!r} works on {card.channels} channels (complex images), the measurement has "
            "one; choose another"
        )
    if scan.modality == card.modality == "MR" and card.value.unit != MR_VALUE.unit:
        raise InputError(
            f"prior {card.id!r} counts values in {card.value.unit!r}, MR images need {MR_VALUE.unit!r}; train or "
            "import it for MR"
        )


@dataclass
class _OfSample:
    """The checkpoint of one of several samples: adds to a state which sample it belongs to, what the others gave and
    what the network was asked.
    """

    checkpoint: Checkpoint
    number: int
    shared: dict[str, Tensor]
    counter: Counter

    def load(self, stage: str) -> dict[str, Tensor] | None:
        stored = self.checkpoint.load(stage)
        return stored if stored and int(stored["number"]) == self.number else None

    def save(self, stage: str, state: dict[str, Tensor]) -> None:
        import torch

        asked = {
            "evaluations": torch.tensor(self.counter.evaluations),
            "network_seconds": torch.tensor(self.counter.seconds, dtype=torch.float64),
        }
        self.checkpoint.save(stage, state | self.shared | asked | {"number": torch.tensor(self.number)})
