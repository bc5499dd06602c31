"""The engine on one page: measurement in, volume out."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .allocation import give_back_what_is_free, keep_what_is_free
from .config import ReconSettings
from .devices import choose_device, device_text, is_device_failure, precision_name
from .errors import EngineError
from .models import find, sha256
from .monitor import Checkpoint, Monitor, NoCheckpoint, Silent
from .provenance import provenance
from .scans import KSpace, Measurement
from .tasks import MR_TASK
from .volume import Volume

if TYPE_CHECKING:
    import torch

    from .priors.base import Prior
    from .problem import Problem


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


def preset_for(task: str) -> str:
    """The name of the preset of a task."""
    return {"sparse-view-ct": "sparse-view", "limited-angle-ct": "limited-angle", MR_TASK: "mri"}[task]


def reconstruct(
    measurement: Measurement | KSpace,
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

    from .priors.base import is_out_of_memory
    from .problem import Problem

    started = time.perf_counter()
    settings = settings or ReconSettings.preset(preset_for(measurement.task))
    chosen = choose_device(device or settings.device)
    monitor = monitor or Silent()
    keep_what_is_free()
    try:
        with torch.inference_mode():
            used = replace(settings, precision=precision or settings.precision)
            problem = Problem.build(measurement, used, prior, chosen)
            x = problem.solve(settings, monitor, checkpoint or NoCheckpoint())
            residual = problem.residual(x)
            volume = problem.volume(x, f"{settings.method} of {measurement.name}")
            spread = problem.deviation
            name = f"standard deviation of {volume.name}"
            deviation = None if spread is None else problem.volume(spread, name, difference=True)
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
    record = _record(measurement, settings, problem, prior, chosen)
    volume = replace(volume, metadata={**volume.metadata, "provenance": json.dumps(record)})
    denoiser = problem.denoiser
    return Result(
        volume,
        settings.method,
        residual,
        time.perf_counter() - started,
        denoiser.evaluations if denoiser else 0,
        denoiser.seconds if denoiser else 0.0,
        record,
        deviation,
    )


def _record(
    measurement: Measurement | KSpace,
    settings: ReconSettings,
    problem: Problem,
    prior: str | Prior | None,
    device: torch.device,
) -> dict[str, Any]:
    card = problem.prior.card if problem.prior else None
    named = settings.prior if prior is None else prior
    digest = sha256(find(named)) if card and isinstance(named, str) else ""
    return provenance(
        settings,
        prior=card,
        prior_sha256=digest,
        device=device_text(device),
        precision=precision_name(problem.precision),
        measurement=measurement.provenance,
    )
