"""The engine on one page: measurement in, volume out."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .allocation import give_back_what_is_free, keep_what_is_free
from .checkpoints import AsReal
from .config import ReconSettings
from .devices import choose_device, device_text, is_device_failure, precision_name, volume_device
from .errors import EngineError
from .methods import method, require_fitting, require_slabs
from .methods.run import Run
from .models import find, sha256
from .monitor import Checkpoint, Monitor, NoCheckpoint, Silent
from .provenance import provenance
from .scans import Scan
from .slab_previews import preview_of_slabs, wants_previews
from .uncertainty.volumes import DoubtVolumes
from .usual import usual_settings
from .volume import Volume

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .denoisers import Counter
    from .models import ModelCard
    from .operators.slabs import Slabs, SlabsOfProcesses
    from .priors.base import Prior
    from .problems import Problem


_MOST_STEPS = 200  # of its convergence, in a result's record


@dataclass(frozen=True)
class Result:
    """A reconstruction: the volume on the input's own geometry, in HU or as the magnitude of MR, and how it came about.

    deviation: standard deviation of the posterior samples, where several were drawn; ``volume`` is then their mean.
    doubt: how far off the volume may be, where the settings ask for it.
    residual: |A x - y| / |y| of the final volume.  nfe: network evaluations a slice.  seconds: wall-clock time of the
    whole call; ``network_seconds`` is the part spent inside the prior.
    """

    volume: Volume
    method: str
    residual: float
    seconds: float
    nfe: int
    network_seconds: float = 0.0
    provenance: dict[str, Any] = field(default_factory=dict)
    deviation: Volume | None = None
    doubt: DoubtVolumes | None = None


def reconstruct(
    measurement: Scan,
    *,
    prior: str | Prior | None = None,
    settings: ReconSettings | None = None,
    device: str | None = None,
    precision: str | None = None,
    monitor: Monitor | None = None,
    checkpoint: Checkpoint | None = None,
    slabs: Slabs | None = None,
) -> Result:
    """Reconstruct a measurement.

    prior: installed id, file or an object that obeys the Prior contract; defaults to ``settings.prior``.
    settings: defaults to the preset that suits the measurement (:mod:`.usual`).
    device: 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.
    precision: of the network, as in the settings, which device and precision overrule where they are given.
    checkpoint: keeps the state of the run; with one that holds a state, the run goes on from there.
    slabs: which slices are reconstructed in this process, as :func:`.many.slabs_of` tells; the others of the group call
    this alike.  The first one gets the whole volume, the others their own slab.
    Raises InputError for what the user can mend, EngineError when the computation fails (no memory, a
    GPU that is lost).
    """
    started = time.perf_counter()
    settings = settings or usual_settings(measurement).settings
    require_fitting(measurement.task, settings, measurement.geometry)
    if slabs is not None and slabs.size > 1:
        require_slabs(measurement, settings)
    used = replace(settings, precision=precision or settings.precision)
    chosen = choose_device(device or settings.device)
    keep_what_is_free()
    try:
        keeper = checkpoint or NoCheckpoint()
        made = _compute(measurement, prior, used, chosen, monitor or Silent(), keeper, slabs)
    except (RuntimeError, MemoryError) as error:
        failure = _as_engine_error(error, chosen, measurement.name)
        if failure is None:
            raise
        raise failure from error
    finally:
        give_back_what_is_free()
    record = _record(measurement, settings, made.card, prior, chosen, made.precision)
    if slabs is not None and slabs.size > 1:
        record["devices"] = slabs.size
    if made.remarks:
        record["remarks"] = list(made.remarks)
    if made.doubt:
        record["doubt"] = made.doubt.numbers
    if made.convergence:
        record["convergence"] = made.convergence
    return Result(
        replace(made.volume, metadata={**made.volume.metadata, "provenance": json.dumps(record)}),
        settings.method,
        made.residual,
        time.perf_counter() - started,
        made.counter.evaluations,
        made.counter.seconds,
        record,
        made.deviation,
        made.doubt,
    )


@dataclass(frozen=True)
class _Made:
    """What the computation gave."""

    volume: Volume
    deviation: Volume | None
    doubt: DoubtVolumes | None
    residual: float
    counter: Counter
    card: ModelCard | None
    precision: str
    remarks: tuple[str, ...]
    convergence: list[tuple[int, float]]


def _compute(
    scan: Scan,
    prior: str | Prior | None,
    settings: ReconSettings,
    device: torch.device,
    monitor: Monitor,
    checkpoint: Checkpoint,
    slabs: Slabs | None,
) -> _Made:
    """The method's network, the problem, the run, and its estimate as volumes for the user."""
    import torch

    from .denoisers import Counter
    from .operators.slabs import WHOLE
    from .problems import build_problem
    from .uncertainty.doubt import require_calibrated

    way, counter, slabs = method(settings.method), Counter(), slabs or WHOLE
    with torch.inference_mode():
        network, card = way.load(settings, prior, scan, device)
        if settings.uncertainty:
            require_calibrated(scan, settings, card)
        problem = build_problem(scan, settings, card.value if card else None, volume_device(device), slabs)
        watcher = _Watcher(scan, problem, monitor, slabs, slabs.size == 1 or wants_previews(monitor, slabs))
        run = Run(watcher, AsReal(checkpoint), counter, network)
        estimate = way.run(problem, settings, run)
        residual = problem.residual(estimate.volume)
        _require_finite(estimate.volume, residual, scan, slabs)
        volume = problem.to_volume(estimate.volume, f"{settings.method} of {scan.name}", False)
        volume, name = _whole(scan, volume, slabs), f"standard deviation of {volume.name}"
        deviation = None
        if estimate.deviation is not None:
            deviation = _whole(scan, problem.to_volume(estimate.deviation, name, True), slabs)
        doubt, doubts = None, list[str]()
        if settings.uncertainty and card is not None:
            doubt, doubts = _doubt(problem, settings, run, card, estimate.volume, volume)
    precision = precision_name(getattr(network, "precision", torch.float32))
    unlike = card.remark_on_pixels(math.prod(problem.grid.spacing_mm[:2]) ** 0.5) if card else ""
    remarks = (*problem.remarks, *estimate.remarks, *([unlike] if unlike else []), *doubts)
    return _Made(volume, deviation, doubt, residual, counter, card, precision, remarks, watcher.convergence())


def _doubt(
    problem: Problem, settings: ReconSettings, run: Run, card: ModelCard, x: Tensor, result: Volume
) -> tuple[DoubtVolumes, list[str]]:
    """The doubt of an estimate as volumes for the user, and remarks."""
    from .methods.diffusion import denoiser_of
    from .uncertainty.doubt import doubt_about

    doubt = doubt_about(problem, settings, denoiser_of(problem, settings, run), card, x, run.monitor)
    intervals = {
        share: problem.to_volume(width, f"{share} % interval of {result.name}", True)
        for share, width in doubt.intervals.items()
    }
    filled = problem.to_volume(doubt.filled, f"filled-in share of {result.name}", True)
    largest = float(doubt.filled.max())
    share = filled.array * np.float32(largest / max(float(filled.array.max()), 1e-30)) if largest else filled.array
    filled = replace(filled, array=share, unit="")
    part = _signed(problem, doubt.part, f"prior's part of {result.name}")
    against = _signed(problem, doubt.against_tv, f"{result.name} less total variation")
    return DoubtVolumes.of(result, intervals, filled, part, against, doubt.numbers()), doubt.remarks


def _signed(problem: Problem, x: Tensor, name: str) -> Volume:
    """A difference of both signs in the user's unit, also where volumes are told by their magnitude."""
    above = problem.to_volume(x.clamp(min=0), name, True)
    return replace(above, array=above.array - problem.to_volume(-x.clamp(max=0), name, True).array)


def _as_engine_error(error: RuntimeError | MemoryError, device: torch.device, name: str) -> EngineError | None:
    """What a failure of the device or of its memory is told as; None for any other error."""
    from .priors.base import is_out_of_memory

    if is_device_failure(error):
        reason = str(error).strip().splitlines()[0]
        return EngineError(f"device {device} failed ({reason}); try again, or --device cpu")
    if is_out_of_memory(error):
        return EngineError(f"no memory on {device} for {name}; use a coarser grid, fewer views or --device cpu")
    return None


def _whole(scan: Scan, part: Volume, slabs: Slabs) -> Volume:
    """The volume of a scan, of which ``part`` is a slab, in the first process; in the others that slab."""
    gathered = slabs.gathered(part.array) if slabs.size > 1 else None
    return part if gathered is None else scan.volume(gathered, part.name)


def _require_finite(volume: Tensor, residual: float, scan: Scan, slabs: Slabs) -> None:
    """Raise EngineError where the computation left the range of its numbers: nothing of it is to be saved."""
    bad = int(slabs.total(volume.isfinite().logical_not_().sum()))
    if bad or not math.isfinite(residual):
        raise EngineError(
            f"{scan.name}: {bad} of {scan.grid.voxels} values of the result are not finite (residual {residual:g}); "
            "check units and scale of the data, or use milder settings or --precision float32"
        )


@dataclass
class _Watcher:
    """Passes on what happens, with previews made into volumes for the user."""

    measurement: Scan
    problem: Problem
    monitor: Monitor
    slabs: Slabs
    previews: bool
    _residuals: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  # by stage

    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        if math.isfinite(metrics.get("residual", math.nan)):
            self._residuals.setdefault(stage, []).append((done, float(f"{metrics['residual']:.4g}")))
        self.monitor.tick(stage, done, total, **metrics)

    def convergence(self) -> list[tuple[int, float]]:
        """(step, residual) of the last stage that told any, some hundred of them at most."""
        last = next(reversed(self._residuals.values()), [])
        return last[:: -(-len(last) // _MOST_STEPS) or 1]

    def preview(self, estimate: Callable[[], Tensor], step: int) -> None:
        if not self.previews:
            return
        name = f"preview of {self.measurement.name}"

        def volume() -> Volume:
            return self.problem.to_volume(estimate(), name, False)

        if self.slabs.size == 1:
            self.monitor.preview(volume, step)
        else:
            whole = partial(self.measurement.volume, name=name)
            preview_of_slabs(self.monitor, cast("SlabsOfProcesses", self.slabs), lambda: volume().array, whole, step)

    def poll(self) -> None:
        self.monitor.poll()


def _record(
    scan: Scan, settings: ReconSettings, card: ModelCard | None, prior: Any, device: torch.device, precision: str
) -> dict[str, Any]:
    named = settings.prior if prior is None else prior
    digest = sha256(find(named)) if card and isinstance(named, str) else ""
    return provenance(
        settings,
        prior=card,
        prior_sha256=digest,
        device=device_text(device),
        precision=precision,
        measurement=scan.provenance,
    )
