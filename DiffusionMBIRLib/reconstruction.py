"""The engine on one page: measurement in, volume out."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .allocation import give_back_what_is_free, keep_what_is_free
from .checkpoints import AsReal
from .config import ReconSettings
from .devices import choose_device, device_text, is_device_failure, precision_name, volume_device
from .errors import EngineError
from .methods import method, require_fitting
from .methods.run import Run
from .models import find, sha256
from .monitor import Checkpoint, Monitor, NoCheckpoint, Silent
from .provenance import provenance
from .scans import Scan
from .tasks import task_info
from .volume import Volume

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .models import ModelCard
    from .priors.base import Prior
    from .problems import Problem


@dataclass(frozen=True)
class Result:
    """A reconstruction: the volume on the input's own geometry, in HU or as the magnitude of MR, and how it came about.

    deviation: standard deviation of the posterior samples, where several were drawn; ``volume`` is then their mean.
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


def reconstruct(
    measurement: Scan,
    *,
    prior: str | Prior | None = None,
    settings: ReconSettings | None = None,
    device: str | None = None,
    precision: str | None = None,
    monitor: Monitor | None = None,
    checkpoint: Checkpoint | None = None,
) -> Result:
    """Reconstruct a measurement.

    prior: installed id, file or an object that obeys the Prior contract; defaults to ``settings.prior``.
    settings: defaults to the preset of the measurement's task.  device: 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.
    precision: of the network, as in the settings, which device and precision overrule where they are given.
    checkpoint: keeps the state of the run; with one that holds a state, the run goes on from there.
    Raises InputError for what the user can mend, EngineError when the computation fails (no memory, a
    GPU that is lost).
    """
    import torch

    from .denoisers import Counter
    from .priors.base import is_out_of_memory
    from .problems import build_problem

    started = time.perf_counter()
    settings = settings or ReconSettings.preset(task_info(measurement.task).preset)
    require_fitting(measurement.task, settings)
    chosen, way = choose_device(device or settings.device), method(settings.method)
    watched, counter = monitor or Silent(), Counter()
    keep_what_is_free()
    try:
        with torch.inference_mode():
            used = replace(settings, precision=precision or settings.precision)
            network, card = way.load(used, prior, measurement, chosen)
            value = card.value if card else None
            problem = build_problem(measurement, settings, value, volume_device(chosen))
            run = Run(_Watcher(problem, watched), AsReal(checkpoint or NoCheckpoint()), counter, network)
            estimate = way.run(problem, settings, run)
            residual = problem.residual(estimate.volume)
            _require_finite(estimate.volume, residual, measurement)
            volume = problem.to_volume(estimate.volume, f"{settings.method} of {measurement.name}", False)
            spread, name = estimate.deviation, f"standard deviation of {volume.name}"
            deviation = None if spread is None else problem.to_volume(spread, name, True)
    except (RuntimeError, MemoryError) as error:
        if is_device_failure(error):
            reason = str(error).strip().splitlines()[0]
            raise EngineError(f"device {chosen} failed ({reason}); try again, or --device cpu") from error
        if not is_out_of_memory(error):
            raise
        raise EngineError(
            f"no memory on {chosen} for {measurement.name}; use a coarser grid, fewer views or --device cpu"
        ) from error
    finally:
        give_back_what_is_free()
    computed_in = precision_name(getattr(network, "precision", torch.float32))
    record = _record(measurement, settings, card, prior, chosen, computed_in)
    volume = replace(volume, metadata={**volume.metadata, "provenance": json.dumps(record)})
    return Result(
        volume,
        settings.method,
        residual,
        time.perf_counter() - started,
        counter.evaluations,
        counter.seconds,
        record,
        deviation,
    )


def _require_finite(volume: Tensor, residual: float, scan: Scan) -> None:
    """Raise EngineError where the computation left the range of its numbers: nothing of it is to be saved."""
    bad = volume.numel() - int(volume.isfinite().sum())
    if bad or not math.isfinite(residual):
        raise EngineError(
            f"{scan.name}: {bad} of {volume.numel()} values of the result are not finite (residual {residual:g}); "
            "check units and scale of the data, or use milder settings or --precision float32"
        )


@dataclass
class _Watcher:
    """Passes on what happens, with previews made into volumes for the user."""

    problem: Problem
    monitor: Monitor

    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        self.monitor.tick(stage, done, total, **metrics)

    def preview(self, estimate: Callable[[], Tensor], step: int) -> None:
        name = f"preview of {self.problem.scan.name}"
        self.monitor.preview(lambda: self.problem.to_volume(estimate(), name, False), step)

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
