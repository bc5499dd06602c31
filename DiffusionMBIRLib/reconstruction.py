"""The engine on one page: measurement in, volume out."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .allocation import give_back_what_is_free, keep_what_is_free
from .config import ReconSettings
from .errors import EngineError, InputError
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
    monitor: Monitor | None = None,
    checkpoint: Checkpoint | None = None,
) -> Result:
    """Reconstruct a measurement.

    prior: installed id, file or an object that obeys the Prior contract; defaults to ``settings.prior``.
    settings: defaults to the preset of the measurement's task.  device: 'auto', 'cpu', 'cuda' or 'cuda:N'.
    checkpoint: keeps the state of the run; with one that holds a state, the run goes on from there.
    Raises InputError for what the user can mend, EngineError when the computation fails (no memory).
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
            problem = Problem.build(measurement, settings, prior, chosen)
            x = problem.solve(settings, monitor, checkpoint or NoCheckpoint())
            residual = problem.residual(x)
            volume = problem.volume(x, f"{settings.method} of {measurement.name}")
            spread = problem.deviation
            name = f"standard deviation of {volume.name}"
            deviation = None if spread is None else problem.volume(spread, name, difference=True)
    except (RuntimeError, MemoryError) as error:
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
    return provenance(settings, prior=card, prior_sha256=digest, device=device, measurement=measurement.provenance)


def choose_device(name: str) -> torch.device:
    """'auto' (CUDA where it is, else CPU), 'cpu', 'cuda' or 'cuda:N' as a torch device."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r} is not known; use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InputError(f"device {name!r} is not there: {count} CUDA device(s) found; use --device auto")
    return device
