"""What a reconstruction will need, before it runs: memory and time.  Needs no torch.

Constants were measured on two CPU cores (float32, the bundled prior).  Workers note the pace of the network that they
saw for each device and prior in the user's data folder, and later estimates follow it.
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .config import ReconSettings
from .geometry import coarse_start
from .methods import NETWORK_METHODS, SUPERVISED_METHODS
from .models import user_data
from .tasks import MR_TASK

USUAL_VIEWS = {"sparse-view-ct": 8, "limited-angle-ct": 90, MR_TASK: 0}
NETWORK_RATE = 5.2e-7  # seconds a pixel and evaluation: ct-compact-v1 on two cores
_SWEEP = (5e-9, 6e-10)  # seconds a voxel of an ADMM-TV sweep: as it is, and for each view
_CG_STEP = (1.2e-9, 1.2e-10)  # the same of a step of conjugate gradient
_SIRT = (2e-9, 4e-10)
_SIMULATION = (2e-7, 2e-8)  # of a scan on the finer grid
_MR_SWEEP = (4.6e-8, 4e-9)  # seconds a voxel of MRI: as it is, and for each coil
_MR_CG_STEP = (3e-9, 1.2e-9)  # of conjugate gradient, likewise
_MR_SIMULATION = (5e-8, 1e-7)
_COIL_BYTES = 32  # of maps and data, a voxel and coil
_VOLUMES = {"fbp": 4, "sirt": 8, "admm-tv": 10}  # float32 volumes held at once
_VOLUMES_OF_DIFFUSION = 9
_VOLUMES_OF_PRECONDITIONER = 1
_VOLUMES_OF_SAMPLES = 3  # where there are several: start, mean, spread
_MATRIX_BYTES = 65  # of the projector and its transpose while they are built, a pixel and view
_BASE_BYTES = 330e6  # Python with torch
_NETWORK_BYTES_PER_PIXEL = 700.0  # working set of the bundled prior, for each pixel of a sub-batch
_PIXELS_PER_BATCH = 2**18  # on a GPU more are taken where there is room


@dataclass(frozen=True)
class Estimate:
    """memory_bytes: on the device at the peak.  seconds: None where nothing is known of the prior's pace.

    text: one line for the user, such as "256 x 256 x 180, needs 2.1 of 8.0 GB, about 3 min".
    """

    memory_bytes: int
    seconds: float | None
    text: str


def estimate(
    shape: tuple[int, int, int],
    settings: ReconSettings,
    task: str,
    *,
    views: int | None = None,
    coils: int = 1,
    device: str = "cpu",
    device_memory: int | None = None,
    rate: float | None = None,
) -> Estimate:
    """Memory and time of a reconstruction on a grid (slices, rows, columns).

    views: of a CT scan, the task's usual number by default.  coils: of an MR scan.  device_memory: bytes that the
    device has in all.  rate: seconds a pixel and evaluation of the network, as :func:`known_rate` gives it; on the CPU
    the bundled prior's by default, while of a GPU nothing is known before it was used.
    """
    needed = _memory(shape, settings, task, views, coils)
    parts = stages(shape, settings, task, views=views, coils=coils, rate=rate)
    usual = "-compact-" in settings.prior or settings.method in SUPERVISED_METHODS
    known = rate or not _uses(settings) or (device == "cpu" and usual)
    seconds = sum(parts.values()) if known else None
    slices, rows, columns = shape
    of = f" of {device_memory / 1e9:.1f}" if device_memory else ""
    pace = f"about {duration(seconds)}" if seconds is not None else "time not known before the first run"
    short = " - more than there is" if device_memory and needed > device_memory else ""
    return Estimate(needed, seconds, f"{columns} x {rows} x {slices}, needs {needed / 1e9:.1f}{of} GB{short}, {pace}")


def stages(
    shape: tuple[int, int, int],
    settings: ReconSettings,
    task: str,
    *,
    views: int | None = None,
    coils: int = 1,
    rate: float | None = None,
    simulated: bool = False,
) -> dict[str, float]:
    """Predicted seconds of each stage that a run goes through, in order."""
    voxels, mr = float(np.prod(shape)), task == MR_TASK
    count = coils if mr else USUAL_VIEWS.get(task, 8) if views is None else views

    def cost(constants: tuple[float, float]) -> float:
        return voxels * (constants[0] + constants[1] * count)

    sweep = cost(_MR_SWEEP if mr else _SWEEP)
    parts = {"simulate": cost(_MR_SIMULATION if mr else _SIMULATION)} if simulated else {}
    if settings.method == "sirt":
        return parts | {"SIRT": settings.sirt_iterations * cost(_SIRT)}
    if settings.method == "admm-tv":
        return parts | {"ADMM-TV": settings.tv_sweeps * sweep}
    if not _uses(settings):
        step = cost(_MR_CG_STEP if mr else _SWEEP)
        return parts | {settings.method: step * (settings.cg_iterations if "-" in settings.method else 1)}
    network = evaluations(settings) * voxels * (rate or NETWORK_RATE)
    if settings.method in SUPERVISED_METHODS:
        return parts | {settings.method: network + sweep * (10 if settings.method == "lahiri" else 1)}
    if settings.start == "admm-tv" and not settings.published:
        stride, factor = (1, 1) if mr else coarse_start(count, shape[1:])
        fewer = voxels / factor**2 * (_SWEEP[0] + _SWEEP[1] * count / stride)
        parts["ADMM-TV"] = settings.start_sweeps * (sweep if stride == 1 else fewer)
    sweeps = settings.sweeps or (10 if settings.method == "mbir-slow" else 1)
    step = cost(_MR_CG_STEP if mr else _CG_STEP)
    consistency = (settings.cg_steps + 2) * step
    return parts | {"diffusion": network + settings.samples * settings.steps * sweeps * consistency}


def evaluations(settings: ReconSettings) -> int:
    """Network evaluations a slice."""
    if not _uses(settings):
        return 0
    if settings.method in SUPERVISED_METHODS:
        return 2 if settings.method == "lahiri" else 1
    once = settings.steps if settings.method == "dds" else 2 * settings.steps + 1
    return once * settings.samples


def duration(seconds: float) -> str:
    """As a person says it: '20 s', '3 min', '1.5 h'."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _uses(settings: ReconSettings) -> bool:
    return settings.method in NETWORK_METHODS


def _memory(shape: tuple[int, int, int], settings: ReconSettings, task: str, views: int | None, coils: int) -> int:
    slices, rows, columns = shape
    volume = 4.0 * slices * rows * columns * (2 if task == MR_TASK else 1)
    count = USUAL_VIEWS.get(task, 8) if views is None else views
    volumes = _VOLUMES.get(settings.method, _VOLUMES_OF_DIFFUSION)
    volumes += _VOLUMES_OF_PRECONDITIONER if _uses(settings) and settings.preconditioner else 0
    volumes += _VOLUMES_OF_SAMPLES if _uses(settings) and settings.samples > 1 else 0
    total = _BASE_BYTES + volume * volumes
    pixels = rows * columns
    total += _COIL_BYTES * slices * pixels * coils if task == MR_TASK else _MATRIX_BYTES * pixels * count
    if _uses(settings):
        batch = settings.slices_per_batch or max(1, _PIXELS_PER_BATCH // pixels)
        total += _NETWORK_BYTES_PER_PIXEL * pixels * min(slices, batch)
    return int(total)


# --- the pace that workers saw


def known_rate(device: str, prior: str) -> float | None:
    """Seconds a pixel and evaluation of a prior on a device, None where no run was seen yet."""
    value = _rates().get(_key(device, prior))
    return value if isinstance(value, float) and value > 0 else None


def note_rate(device: str, prior: str, rate: float) -> None:
    """Remember the pace of a run, half of it the newest; a folder that cannot be written to is left alone."""
    rates = _rates()
    before = known_rate(device, prior)
    rates[_key(device, prior)] = rate if before is None else (before + rate) / 2
    path = _rates_file()
    temporary = path.with_name(f".{secrets.token_hex(4)}.json")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(rates, indent=1, sort_keys=True), encoding="utf-8")
        os.replace(temporary, path)


def _key(device: str, prior: str) -> str:
    return f"{device}|{Path(prior).stem if '/' in prior or os.sep in prior else prior}"


def _rates_file() -> Path:
    return user_data() / "rates.json"


def _rates() -> dict[str, object]:
    try:
        entries = json.loads(_rates_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}
