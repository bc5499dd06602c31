"""What a reconstruction will need, before it runs: memory and time.  Needs no torch.

Costs are relative, in a unit of their own: only their ratios count.  How long a unit takes, and how long the network,
is measured on the machine (:mod:`.pace`) and remembered (:mod:`.rates`).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from .config import ReconSettings
from .errors import InputError
from .geometry import coarse_start
from .methods import NETWORK_METHODS, SUPERVISED_METHODS
from .models import find, read_card
from .rates import Pace
from .samplers.schedules import USUAL_LEVEL, published_dds_steps, usual_level
from .simulation.settings import CTScan, scan_settings
from .tasks import MR_TASK, SPARSE_VIEW

# Relative costs a voxel: as it is, and for each view of CT or transform of MRI.
_SWEEP = (60.0, 6.0)  # of a sweep of ADMM-TV
_CG_STEP = (6.0, 1.15)  # of conjugate gradient
_SIRT = (6.0, 1.25)
_MR_SWEEP = (115.0, 84.0)
_MR_CG_STEP = (4.3, 13.3)
_MR_SIMULATION = (50.0, 150.0)  # for each coil
_PRECONDITIONING = 25.0  # of a step of conjugate gradient
_MAPS = 400.0  # of several coils, for each coil
_FINER = 4  # times the pixels of the grid: those that a scan of CT is usually simulated on
_STEPS_OF_NORM = 3  # of conjugate gradient, to prepare CT
_STEPS_OF_SCALE = 10  # likewise MRI
_MATRIX = 600.0  # to build the projector, a pixel and view, whatever the number of slices
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
    """memory_bytes: on the device at the peak.  seconds: None where the pace is not known.

    text: one line for the user, such as "256 x 256 x 180, needs 2.1 of 8.0 GB, about 3 min on this machine".
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
    pace: Pace | None = None,
    device_memory: int | None = None,
) -> Estimate:
    """Memory and time of a reconstruction on a grid (slices, rows, columns).

    views: of a CT scan, the task's usual number by default.  coils: of an MR scan.  pace: of the machine, as
    :func:`.pace.pace_of` measures it; without one there is no time.  device_memory: bytes that the device has in all.
    """
    needed = _memory(shape, settings, task, views, coils)
    known = pace is not None and pace.solver and (pace.network or not _uses(settings))
    parts = stages(shape, settings, task, pace=pace, views=views, coils=coils) if pace and known else None
    seconds = sum(parts.values()) if parts else None
    slices, rows, columns = shape
    of = f" of {device_memory / 1e9:.1f}" if device_memory else ""
    time = "time not known before the first run" if seconds is None else f"about {duration(seconds)} on this machine"
    short = " - more than there is" if device_memory and needed > device_memory else ""
    return Estimate(needed, seconds, f"{columns} x {rows} x {slices}, needs {needed / 1e9:.1f}{of} GB{short}, {time}")


# --- time


def stages(
    shape: tuple[int, int, int],
    settings: ReconSettings,
    task: str,
    *,
    pace: Pace,
    views: int | None = None,
    coils: int = 1,
    simulated: bool = False,
) -> dict[str, float]:
    """Predicted seconds of each stage that a run goes through, in order.  A pace that is not known counts as 0."""
    voxels, mr, unit = float(np.prod(shape)), task == MR_TASK, pace.solver or 0.0
    count = _transforms(settings, coils) if mr else _views(task, views)
    sweep, step = (_cost(c, count) * voxels * unit for c in ((_MR_SWEEP, _MR_CG_STEP) if mr else (_SWEEP, _CG_STEP)))
    maps, matrix = (_MAPS * coils * voxels if coils > 1 else 0.0), _MATRIX * shape[1] * shape[2] * count
    parts = {}
    if simulated:
        of_ct = _FINER * (step + matrix * unit)
        parts["simulate"] = _cost(_MR_SIMULATION, coils) * voxels * unit if mr else of_ct
    prepared = _STEPS_OF_SCALE if mr else _STEPS_OF_NORM
    parts["prepare"] = prepared * step + (maps if mr else matrix) * unit
    if settings.method == "sirt":
        return parts | {"SIRT": settings.sirt_iterations * _cost(_SIRT, count) * voxels * unit}
    if settings.method == "admm-tv":
        return parts | {"ADMM-TV": settings.tv_sweeps * sweep}
    if not _uses(settings):
        return parts | {settings.method: step * (settings.cg_iterations if "-" in settings.method else 1)}
    network = evaluations(settings, task, views=views) * voxels * (pace.network or 0.0)
    if settings.method in SUPERVISED_METHODS:
        return parts | {settings.method: network + sweep * (10 if settings.method == "lahiri" else 1)}
    if settings.start == "admm-tv" and not settings.published:
        stride, factor = (1, 1) if mr else coarse_start(_views(task, views), (shape[1], shape[2]))
        fewer = _cost(_SWEEP, count / stride) * voxels / factor**2 * unit
        parts["ADMM-TV"] = settings.start_sweeps * (sweep if stride == 1 else fewer)
    if settings.preconditioner and not settings.published:
        step += _PRECONDITIONING * voxels * unit
    return parts | {"diffusion": network + _data_steps(settings, task, views) * step}


def _cost(relative: tuple[float, float], count: float) -> float:
    return relative[0] + relative[1] * count


def _data_steps(settings: ReconSettings, task: str, views: int | None) -> float:
    """What a diffusion method does beside the network, in steps of conjugate gradient."""
    if settings.method in ("score-ct", "score-mri"):
        return 2.0 * evaluations(settings, task, views=views)
    sweeps = settings.sweeps or (10 if settings.method == "mbir-slow" else 1)
    levels = settings.steps + (settings.method != "dds")
    return float(settings.samples * levels * sweeps * (settings.cg_steps + 2))


def _views(task: str, views: int | None) -> int:
    if views is not None:
        return views
    usual = scan_settings(task)
    return usual.views if isinstance(usual, CTScan) else 0


def _transforms(settings: ReconSettings, coils: int) -> float:
    """How many an operator of MRI takes: coils are combined into fewer, where lines are left out into half of them."""
    return (1 + min(coils, settings.virtual_coils or coils)) / 2


def evaluations(settings: ReconSettings, task: str = SPARSE_VIEW, *, views: int | None = None) -> int:
    """Network evaluations a slice: exactly what a run counts, but for a prior that has not learnt the first level."""
    if not _uses(settings):
        return 0
    if settings.method in SUPERVISED_METHODS:
        return 2 if settings.method == "lahiri" else 1
    return _of_a_sample(settings, task, views) * settings.samples * (2 if _sees_parts(settings, task) else 1)


def _of_a_sample(settings: ReconSettings, task: str, views: int | None) -> int:
    """Evaluations of the denoiser for one posterior sample."""
    steps = settings.steps
    if settings.method == "dds":
        return len(published_dds_steps(steps)) if settings.published else steps
    if settings.published:
        return 2 * steps
    usual = USUAL_LEVEL if task == MR_TASK else usual_level(_views(task, views))
    falling = (settings.sigma_start or usual) > settings.sigma_end
    # A predictor for each jump to a lower level, a corrector at each level, and the last evaluation.
    return (steps - 1 if falling else 0) + steps + 1


def _sees_parts(settings: ReconSettings, task: str) -> bool:
    """Whether the network is asked for real and imaginary part one after the other."""
    if task != MR_TASK or settings.complex_prior not in ("auto", "real-imaginary"):
        return False
    if settings.complex_prior == "real-imaginary":
        return True
    return settings.published and _channels(settings.prior) == 1


def _channels(prior: str) -> int:
    with suppress(InputError):
        return read_card(find(prior)).channels
    return 1


def duration(seconds: float) -> str:
    """As a person says it: '20 s', '3 min', '1.5 h'."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _uses(settings: ReconSettings) -> bool:
    return settings.method in NETWORK_METHODS


# --- memory


def _memory(shape: tuple[int, int, int], settings: ReconSettings, task: str, views: int | None, coils: int) -> int:
    slices, rows, columns = shape
    volume = 4.0 * slices * rows * columns * (2 if task == MR_TASK else 1)
    volumes = _VOLUMES.get(settings.method, _VOLUMES_OF_DIFFUSION)
    volumes += _VOLUMES_OF_PRECONDITIONER if _uses(settings) and settings.preconditioner else 0
    volumes += _VOLUMES_OF_SAMPLES if _uses(settings) and settings.samples > 1 else 0
    total = _BASE_BYTES + volume * volumes
    pixels = rows * columns
    total += _COIL_BYTES * slices * pixels * coils if task == MR_TASK else _MATRIX_BYTES * pixels * _views(task, views)
    if _uses(settings):
        batch = settings.slices_per_batch or max(1, _PIXELS_PER_BATCH // pixels)
        total += _NETWORK_BYTES_PER_PIXEL * pixels * min(slices, batch)
    return int(total)
