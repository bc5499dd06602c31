"""What a reconstruction will need, before it runs: memory and time.  Needs no torch.

Costs are relative, in a unit of their own: only their ratios count.  How long a unit takes, and how long the network,
is measured on the machine (:mod:`.pace`) and remembered (:mod:`.rates`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .config import ReconSettings
from .geometry import ParallelBeam, RayGeometry, TrajectoryMRI, geometry_kind
from .methods import method
from .rates import Pace
from .simulation.settings import CTScan, scan_settings
from .starts import coarse_start, part_for_strength
from .streaming import AT_ONCE_BYTES, lie_on_host, views_at_once
from .tasks import MR_TASK, SLICE_TASKS, SPARSE_VIEW
from .tiling import tiled_pixels
from .uncertainty import cost

# Relative costs a voxel: as it is, and for each view of CT or transform of MRI.
_SWEEP = (60.0, 6.0)  # of a sweep of ADMM-TV
_CG_STEP = (6.0, 1.15)  # of conjugate gradient
_SIRT = (6.0, 1.25)
_MR_SWEEP = (115.0, 84.0)
_MR_CG_STEP = (4.3, 13.3)
_MR_SIMULATION = (50.0, 150.0)  # for each coil
_PATH_SWEEP = (490.0, 555.0)  # along trajectories, for each coil: transforms of twice the side
_PATH_CG_STEP = (75.0, 130.0)
_PATH_PIXEL = 5e4  # to prepare kernel, gridding and weights, a pixel of one slice, which stands for a sample
_PATH_BYTES = 900  # of the gridding, likewise
_PRECONDITIONING = 25.0  # of a step of conjugate gradient
_SLICES_STEP = 4.0  # of a projection onto thick slices
_SLICES_SWEEP = 60.0
_MAPS = 400.0  # of several coils, for each coil
_FINER = 4  # times the pixels of the grid: those that a scan of CT is usually simulated on
_STEPS_OF_NORM = 3  # of conjugate gradient, to prepare CT of stacked slices
_STEPS_OF_WHOLE_NORM = 13  # likewise where slices mix in the data
_STEPS_OF_SCALE = 10  # likewise MRI
_MATRIX = 600.0  # to build the projector, a pixel and view, whatever the number of slices
_COIL_BYTES = 32  # of maps and data, a voxel and coil
_VOLUMES_OF_PRECONDITIONER = 1
_VOLUMES_OF_SAMPLES = 3  # where there are several: start, mean, spread
_VOLUMES_OF_DOUBT = 17  # at the peak: result, measured part and five maps while total variation runs
_CONE = 12.0  # times what a view of slices takes: shadows of voxels are found anew in each product
_SHADOW = 13.5  # slices: what finding a pixel's shadow takes in each view, also in those that see few of its voxels
_RAYS_A_VOXEL = 1.6  # and view of a detector that sees a whole volume from a point
_COPIES_OF_DATA = 4  # measured, projected, their weights and difference
_MATRIX_BYTES = 65  # of the projector and its transpose while they are built, a pixel and view
CLEAR = 1.25  # an estimate with less doubt is told as one number
_BASE_BYTES = 330e6  # Python with torch
_NETWORK_BYTES_PER_PIXEL = 700.0  # working set of the bundled prior, for each pixel of a sub-batch
_PIXELS_PER_BATCH = 2**18  # on a GPU more are taken where there is room


@dataclass(frozen=True)
class Needs:
    """memory_bytes: on the device at the peak.  seconds: until the result is there, with the engine's start; None where
    the pace is not known.  doubt: the time lies between the ``doubt``-th part of that and ``doubt`` times as much.

    text: one line for the user, such as "256 x 256 x 180, needs 2.1 of 8.0 GB, about 3 min on this machine".
    """

    memory_bytes: int
    seconds: float | None
    text: str
    doubt: float = 1.0

    @property
    def between(self) -> tuple[float, float] | None:
        """Shortest and longest time that is thought to be likely; None where no time is known, or one is known well."""
        if self.seconds is None or self.doubt < CLEAR:
            return None
        return self.seconds / self.doubt, self.seconds * self.doubt


def estimate(
    shape: tuple[int, int, int],
    settings: ReconSettings,
    task: str,
    *,
    views: int | None = None,
    coils: int = 1,
    scanner: str = ParallelBeam.KIND,
    views_in_all: int | None = None,
    pace: Pace | None = None,
    device_memory: int | None = None,
    simulated: bool = False,
    devices: int = 1,
    own_memory: int = 0,
) -> Needs:
    """Memory and time of a reconstruction on a grid (slices, rows, columns).

    views: that see a point in a CT scan, the task's usual number by default.  coils: of an MR scan.  scanner: kind of
    geometry; empty: of stacked slices, or Cartesian.  views_in_all: of a CT scan whose points are seen by a part of its
    views; what is usual for the scanner by default.  pace: of the machine, as
    :func:`.pace.pace_of` measures it; without one there is no time.  device_memory: bytes that the device has in all.
    simulated: the scan is simulated first.  devices: that each take a slab of slices; memory and time are then of one.
    own_memory: bytes that the device has beside the host's, 0 for none.
    """
    whole, shape = shape, (-(-shape[0] // devices), *shape[1:])
    data_bytes = 0.0 if task == MR_TASK or _is_stacked(scanner) else _data_bytes(whole, _views(task, views))
    on_host = lie_on_host(data_bytes, own_memory)
    needed = _memory(shape, settings, task, views, coils, scanner)
    needed += int(2 * AT_ONCE_BYTES if on_host else _COPIES_OF_DATA * data_bytes)
    known = pace is not None and pace.solver and (pace.network or not _uses(settings))
    of_scan: dict[str, Any] = {"views": views, "coils": coils, "scanner": scanner, "views_in_all": views_in_all}
    seconds = None
    if pace is not None and known:
        parts = stages(shape, settings, task, pace=pace, simulated=simulated, **of_scan)
        seconds = pace.start_s + sum(parts.values())
    found = Needs(needed, seconds, "", pace.doubt if pace is not None else 1.0)
    slices, rows, columns = whole
    of = f" of {device_memory / 1e9:.1f}" if device_memory else ""
    short = " - more than there is" if device_memory and needed > device_memory else ""
    each = " a device" if devices > 1 else ""
    text = f"{columns} x {rows} x {slices}, needs {needed / 1e9:.1f}{of} GB{each}{short}, {_time_text(found)}"
    if devices > 1:
        text += f"; {devices} devices, slabs of {shape[0]} slices"
    count = _views(task, views)
    if on_host or views_at_once(count, data_bytes) < count:
        place = "on the host, " if on_host else ""
        text += f"; data {place}{views_at_once(count, data_bytes)} views at a time"
    return replace(found, text=text)


def _data_bytes(shape: tuple[int, int, int], views: int) -> float:
    """Of the data of a detector of many rows that sees the whole volume."""
    slices, rows, columns = shape
    return 4 * _RAYS_A_VOXEL * slices * max(rows, columns) * views


def _time_text(found: Needs) -> str:
    if found.seconds is None:
        return "time not known before the first run"
    low, high = map(duration, found.between or (found.seconds, found.seconds))
    return f"about {low} on this machine" if low == high else f"{low} to {high} on this machine"


# --- time


def stages(
    shape: tuple[int, int, int],
    settings: ReconSettings,
    task: str,
    *,
    pace: Pace,
    views: int | None = None,
    coils: int = 1,
    scanner: str = ParallelBeam.KIND,
    views_in_all: int | None = None,
    simulated: bool = False,
) -> dict[str, float]:
    """Predicted seconds of each stage that a run goes through, in order.  A pace that is not known counts as 0."""
    voxels, mr, unit = float(np.prod(shape)), task == MR_TASK, pace.solver or 0.0
    path = mr and scanner == TrajectoryMRI.KIND
    seen, matrix_free = _views(task, views), not mr and not _is_stacked(scanner)
    count = _transforms(settings, coils) if mr else float(seen)
    if path:
        count = float(min(coils, settings.virtual_coils or coils))
    if matrix_free:
        count = _CONE * (seen + _SHADOW / shape[0] * (views_in_all or _views_in_all(scanner, seen, shape[0])))
    costs = (_PATH_SWEEP, _PATH_CG_STEP) if path else (_MR_SWEEP, _MR_CG_STEP) if mr else (_SWEEP, _CG_STEP)
    sweep, step = (_cost(c, count) * voxels * unit for c in costs)
    maps = (_MAPS * coils * voxels if coils > 1 else 0.0) + (_PATH_PIXEL * shape[1] * shape[2] if path else 0.0)
    matrix = 0.0 if matrix_free else _MATRIX * shape[1] * shape[2] * count
    if task in SLICE_TASKS:
        sweep, step, matrix = _SLICES_SWEEP * voxels * unit, _SLICES_STEP * voxels * unit, 0.0
    parts = {}
    if simulated:
        of_ct = _FINER * ((2 if matrix_free else 1) * step + matrix * unit)  # twice as many slices as well
        parts["simulate"] = _cost(_MR_SIMULATION, coils) * voxels * unit if mr else of_ct
    prepared = _STEPS_OF_SCALE if mr else (_STEPS_OF_WHOLE_NORM if matrix_free else _STEPS_OF_NORM)
    parts["prepare"] = prepared * step + (maps if mr else matrix) * unit
    by = _binned(settings)
    if by > 1:
        coarse, alone = (shape[0], shape[1] // by, shape[2] // by), replace(settings, bin_pixels=1)
        of_scan: dict[str, Any] = {"views": views, "coils": coils, "scanner": scanner, "views_in_all": views_in_all}
        of_coarse = stages(coarse, alone, task, pace=pace, **of_scan)
        return parts | of_coarse | {"prepare": parts["prepare"] + of_coarse["prepare"]}
    units = {"sweep": sweep, "step": step, "sirt": _cost(_SIRT, count) * voxels * unit, "projector": matrix * unit}
    held, by = part_for_strength(shape, not matrix_free)
    units["sweep for strength"] = sweep * (held.stop - held.start) / shape[0] / by**2
    units["preconditioned step"] = step + _PRECONDITIONING * voxels * unit
    if method(settings.method).network == "prior" and settings.start == "admm-tv" and not settings.published:
        stride, factor = (1, 1) if mr else coarse_start(seen, (shape[1], shape[2]))
        fewer = _cost(_SWEEP, count / stride) * voxels / factor**2 * unit
        parts["ADMM-TV"] = settings.start_sweeps * (sweep if stride == 1 else fewer)
    asked = evaluations(settings, task, views=views)
    evaluation = pixels_seen(shape, settings) * (pace.network or 0.0)
    doubts = settings.uncertainty and method(settings.method).network == "prior"
    of_doubt = asked - evaluations(replace(settings, uncertainty=False), task, views=views)
    network, work = (asked - of_doubt) * evaluation, method(settings.method).work(settings)
    parts |= {stage: number * units[what] + network / len(work) for stage, (what, number) in work.items()}
    if doubts:
        sweeps = cost.TV_SWEEPS["MR" if mr else "CT"]
        parts[cost.STAGE] = cost.PRODUCTS / 2 * step + sweeps * sweep + of_doubt * evaluation
    return parts


def _is_stacked(scanner: str) -> bool:
    """Whether one matrix serves all slices of a scanner of this kind."""
    return not scanner or bool(getattr(geometry_kind(scanner), "STACKED", True))


def _views_in_all(scanner: str, seen: int, slices: int) -> int:
    kind = geometry_kind(scanner)
    return kind.views_in_all(seen, slices) if issubclass(kind, RayGeometry) else seen


def _cost(relative: tuple[float, float], count: float) -> float:
    return relative[0] + relative[1] * count


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
    return method(settings.method).evaluations(settings, task, _views(task, views))


def pixels_seen(shape: tuple[int, int, int], settings: ReconSettings) -> int:
    """Pixels that the network sees in one evaluation of a volume: of tiles, those that they share count twice."""
    slices, rows, columns = shape
    by = _binned(settings)
    return slices * tiled_pixels((rows // by, columns // by), _tile(settings))


def duration(seconds: float) -> str:
    """As a person says it: '20 s', '3 min', '1.5 h'."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _tile(settings: ReconSettings) -> int:
    return settings.tile if "tile" in method(settings.method).settings else 0


def _binned(settings: ReconSettings) -> int:
    """How many pixels, along each side, the samples of a diffusion prior have for one."""
    return settings.bin_pixels if "bin_pixels" in method(settings.method).settings else 1


def _uses(settings: ReconSettings) -> bool:
    return bool(method(settings.method).network)


# --- memory


def _memory(
    shape: tuple[int, int, int], settings: ReconSettings, task: str, views: int | None, coils: int, scanner: str
) -> int:
    slices, rows, columns = shape
    volume = 4.0 * slices * rows * columns * (2 if task == MR_TASK else 1)
    volumes = method(settings.method).volumes
    volumes += _VOLUMES_OF_PRECONDITIONER if _uses(settings) and settings.preconditioner else 0
    volumes += _VOLUMES_OF_SAMPLES if _uses(settings) and settings.samples > 1 else 0
    volumes = max(volumes, _VOLUMES_OF_DOUBT) if _uses(settings) and settings.uncertainty else volumes
    total = _BASE_BYTES + volume * volumes
    pixels = rows * columns
    if task == MR_TASK:
        total += _COIL_BYTES * slices * pixels * coils + (_PATH_BYTES * pixels if scanner == TrajectoryMRI.KIND else 0)
    elif _is_stacked(scanner):
        total += _MATRIX_BYTES * pixels * _views(task, views)
    if _uses(settings):
        tile = _tile(settings)
        at_once = min(rows, tile or rows) * min(columns, tile or columns)
        batch = settings.slices_per_batch or max(1, _PIXELS_PER_BATCH // at_once)
        total += _NETWORK_BYTES_PER_PIXEL * at_once * min(slices, batch)
    return int(total)
