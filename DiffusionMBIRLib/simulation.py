"""Scans of a known volume: the measurement that a scanner would have taken, and the truth to judge results against.

The operator that reconstructs never makes the data (the "inverse crime").  They are projected from an image that is
finer than the grid to reconstruct on, to a detector that is finer than the one reported:

* coarsen > 1: the object is the volume on its own grid; the reconstruction grid has its in-plane block means as voxels.
* coarsen = 1: the object has twice the volume's resolution.  Each pixel is split in four that follow its slope, keep
  its mean and stay positive, so that the volume itself is the block mean of the object.  A replicated pixel would
  not do: its exact strip integrals are those of the coarse pixel.

Each detector column is the mean of its sub-columns' *intensities*, as a detector cell adds photons, not logarithms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import simulation_mr
from .errors import InputError
from .geometry import Grid, ParallelBeam, view_angles
from .monitor import Monitor, Silent
from .operators import projector
from .provenance import file_name, software_version
from .scans import KSpace, Measurement
from .tasks import MR_TASK, TASKS
from .volume import MU_WATER_PER_MM, Volume, hu_to_attenuation

SCANS = {"sparse-view-ct": (8, 180.0), "limited-angle-ct": (90, 90.0)}  # default views and range in degrees
FEWEST_PHOTONS = 0.5  # a ray that nothing came through is read as half a photon, so that its logarithm exists
MOST_PHOTONS = 1e15  # beyond it counts no longer fit and noise no longer matters
_AIR_HU = -1000.0
_PIXELS_AT_ONCE = 1 << 24  # of the fine object, over slices: 64 MB for each array of a chunk
_ENTRIES_AT_ONCE = 1 << 24  # of the projector's matrix, over views: 256 MB
_ENTRIES_PER_PIXEL = 4  # at most about this many for each view when the sub-columns are as wide as the pixels


def truth_for(volume: Volume, coarsen: int = 1, *, task: str | None = None) -> Volume:
    """What a reconstruction of the simulated scan is judged against: float32 in the volume's own axis order.

    Of MRI the magnitude, without unit: with ``task`` compressed-sensing-mri, and by default for a volume that is not
    in HU.  Of CT the volume in HU:

    Blocks of coarsen x coarsen voxels in the axial plane are averaged.  Values below -1000 HU, which mark what a
    scanner did not see, count as air here and in the scan.  Raises InputError where the factor does not divide the
    axial plane or the volume is not in HU.
    """
    if task == MR_TASK or (task is None and volume.unit == ""):
        _require_defaults(task or MR_TASK, coarsen=(coarsen, 1))
        return simulation_mr.magnitude_of(volume)
    _require_hu(volume)
    turned, order = volume.axial()
    clamped = replace(turned, array=np.maximum(turned.array.astype(np.float32), np.float32(_AIR_HU)))
    coarse = clamped.coarsened(coarsen)
    return replace(volume, array=order.undo(coarse.array), grid=order.inverse().apply_to_grid(coarse.grid))


def simulate(
    volume: Volume,
    *,
    task: str = "sparse-view-ct",
    views: int | None = None,
    angle_range_deg: float | None = None,
    coarsen: int = 1,
    photons: float = 0.0,
    electronic_noise: float = 0.0,
    seed: int = 0,
    mu_water_per_mm: float = MU_WATER_PER_MM,
    acceleration: float | None = None,
    acs: float | None = None,
    mask: str | np.ndarray | None = None,
    coils: int | None = None,
    phase: bool | None = None,
    noise: float | None = None,
    device: str = "cpu",
    monitor: Monitor | None = None,
) -> Measurement | KSpace:
    """Scan a volume: by task a CT of one in HU, or an MRI of one that holds magnitudes.

    seed: the same gives the same data, whatever the memory at hand.

    CT, slice by slice in axial order, with parallel beams.
    views, angle_range_deg: equidistant views from 0 degrees on; by default 8 over 180 for sparse views and 90 over 90
    for a limited angle.  coarsen: reconstruct on in-plane block means of this size.  photons: incident photons a ray,
    0 for noise-free data; electronic_noise: standard deviation of the detector's own noise in photons.  Besides the
    data and two float32 copies of the volume, memory holds a chunk of slices of the fine object and the matrix of a few
    views: about 1 GB for slices of up to 1024 x 1024.

    MRI, in the planes of the volume's own axes, with lines of k-space left out along its columns.  acceleration (2)
    and acs (0.15): positions over sampled ones, and the share of lines in the middle that are all sampled.  mask: one
    of ``config.MASKS`` (uniform1d), or bool (rows, columns) in place of the two.  coils (1): simulated
    receivers; their maps are not handed over, as they are not by a scanner.  phase: a smooth random phase, so that
    the volume is complex.  noise (0): standard deviation in real and imaginary part, in multiples of the volume's
    99.5th percentile.

    Raises InputError, naming the setting, for one that is out of range or belongs to the other kind of task, and what
    the monitor's tick raises.
    """
    of_mri = {"acceleration": acceleration, "acs": acs, "mask": mask, "coils": coils, "phase": phase, "noise": noise}
    given = {name: value for name, value in of_mri.items() if value is not None}
    if task == MR_TASK:
        _require_defaults(
            task,
            views=(views, None),
            angle_range_deg=(angle_range_deg, None),
            coarsen=(coarsen, 1),
            photons=(photons, 0.0),
            electronic_noise=(electronic_noise, 0.0),
            mu_water_per_mm=(mu_water_per_mm, MU_WATER_PER_MM),
        )
        (monitor or Silent()).tick("simulate", 0, 1)
        kspace = simulation_mr.scan(volume, seed=seed, **given)  # type: ignore[arg-type]
        (monitor or Silent()).tick("simulate", 1, 1)
        return kspace
    for name in given:
        raise InputError(f"setting {name} is for the task {MR_TASK} only, not for {task}; leave it out")
    _require_hu(volume)
    _check_noise(photons, electronic_noise, seed)
    views, angle_range_deg = _scan(task, views, angle_range_deg)
    turned, order = volume.axial()
    grid = turned.grid.coarsened(coarsen)
    geometry = ParallelBeam.covering(grid, view_angles(views, angle_range_deg))
    attenuation = np.maximum(hu_to_attenuation(turned.array, mu_water_per_mm), np.float32(0.0))
    data = _project(attenuation, turned.grid, geometry, coarsen, device=device, monitor=monitor or Silent())
    if photons > 0:
        data = _count_photons(data, photons, electronic_noise, seed)
    settings = {
        "task": task,
        "views": views,
        "angle_range_deg": angle_range_deg,
        "coarsen": coarsen,
        "photons": photons,
        "electronic_noise": electronic_noise,
        "mu_water_per_mm": mu_water_per_mm,
    }
    return Measurement(
        data,
        geometry,
        grid,
        task=task,
        stored_grid=order.inverse().apply_to_grid(grid),
        mu_water_per_mm=mu_water_per_mm,
        photons=photons,
        electronic_noise=electronic_noise,
        provenance=_provenance(volume, settings, seed),
        name=f"scan of {file_name(volume.name)}",
    )


def _require_defaults(task: str, **settings: tuple[Any, Any]) -> None:
    """Raise InputError for a setting (value, default) of CT that another task was given."""
    for name, (value, default) in settings.items():
        if value != default:
            raise InputError(f"setting {name} is for CT only, not for {task}; leave it out")


def _require_hu(volume: Volume) -> None:
    if volume.unit != "HU":
        raise InputError(f"{volume.name}: its unit is {volume.unit!r}; a CT volume in HU is needed")


def _check_noise(photons: float, electronic_noise: float, seed: int) -> None:
    if not (photons == 0 or 1 <= photons <= MOST_PHOTONS):
        raise InputError(f"photons must be 0 (noise-free) or from 1 to {MOST_PHOTONS:g}, not {photons}")
    if not 0 <= electronic_noise <= MOST_PHOTONS:
        raise InputError(f"electronic_noise must be from 0 to {MOST_PHOTONS:g} photons, not {electronic_noise}")
    if electronic_noise > 0 and photons == 0:
        raise InputError("electronic_noise is counted in photons: set photons as well, or electronic_noise to 0")
    if seed < 0:
        raise InputError(f"seed must be zero or positive, not {seed}")


def _scan(task: str, views: int | None, angle_range_deg: float | None) -> tuple[int, float]:
    if task not in TASKS:
        raise InputError(f"task {task!r} is not known; use one of {', '.join(TASKS)}")
    usual_views, usual_range = SCANS[task]
    return usual_views if views is None else views, usual_range if angle_range_deg is None else float(angle_range_deg)


def _provenance(volume: Volume, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    return {
        "software": "DiffusionMBIR",
        "version": software_version(),
        "kind": "simulated",
        "source": file_name(volume.name),
        "settings": settings,
        "seed": seed,
    }


def _project(
    attenuation: np.ndarray, grid: Grid, geometry: ParallelBeam, coarsen: int, *, device: str, monitor: Monitor
) -> np.ndarray:
    """Line integrals (slices, views, columns), float32, of attenuation (slices, rows, columns) in 1/mm on ``grid``."""
    split = 2 if coarsen == 1 else 1
    slices, rows, columns = grid.shape
    fine = replace(
        grid,
        shape=(1, rows * split, columns * split),
        spacing_mm=(grid.spacing_mm[0] / split, grid.spacing_mm[1] / split, grid.spacing_mm[2]),
    )
    sub_columns = max(2, coarsen)
    pixels = rows * columns * split**2
    data = np.empty(geometry.data_shape(slices), dtype=np.float32)
    done = 0
    for chunk in _spans(slices, _PIXELS_AT_ONCE // pixels):
        body = torch.from_numpy(attenuation[chunk]).to(device)
        body = split_pixels(body) if split == 2 else body
        for batch in _spans(geometry.views, _ENTRIES_AT_ONCE // (pixels * _ENTRIES_PER_PIXEL)):
            beams = ParallelBeam(
                geometry.angles_deg[batch],
                geometry.columns * sub_columns,
                geometry.pitch_mm / sub_columns,
                geometry.offset_mm,
            )
            operator = projector(beams, replace(fine, shape=(len(body), *fine.in_plane)), device=device)
            data[chunk, batch] = _merge_columns(operator.forward(body), sub_columns).cpu().numpy()
            done += (chunk.stop - chunk.start) * (batch.stop - batch.start)
            monitor.tick("simulate", done, slices * geometry.views)
    return data


def _spans(total: int, most: int) -> Iterator[slice]:
    step = max(1, most)
    return (slice(start, min(start + step, total)) for start in range(0, total, step))


def split_pixels(x: Tensor) -> Tensor:
    """Twice as many rows and columns: each pixel becomes four that follow its slope and keep its mean.

    x: (slices, rows, columns), non-negative.  The slopes are central differences, shrunk together where one of the four
    would fall below zero.
    """
    down, along = _quarter_slope(x, 1), _quarter_slope(x, 2)
    steepest = down.abs() + along.abs()
    share = torch.where(steepest > x, x / steepest.clamp_min(torch.finfo(x.dtype).tiny), torch.ones_like(x))
    down, along = down * share, along * share
    upper = torch.stack((x - down - along, x - down + along), dim=-1)
    lower = torch.stack((x + down - along, x + down + along), dim=-1)
    return torch.stack((upper, lower), dim=2).flatten(3, 4).flatten(1, 2)


def _quarter_slope(x: Tensor, axis: int) -> Tensor:
    """How much the centre of half a pixel differs from that of the whole: a quarter of the central difference."""
    count = x.shape[axis]
    index = torch.arange(count, device=x.device)
    after = x.index_select(axis, (index + 1).clamp_max(count - 1))
    before = x.index_select(axis, (index - 1).clamp_min(0))
    return (after - before) / 8


def _merge_columns(fine: Tensor, sub_columns: int) -> Tensor:
    """Line integrals of whole detector columns from those of their parts: -log of the mean of exp(-p)."""
    parts = fine.reshape(*fine.shape[:2], -1, sub_columns)
    least = parts.amin(dim=-1, keepdim=True)  # taken out, so that dense objects do not underflow
    return least.squeeze(-1) - torch.exp(least - parts).mean(dim=-1).log()


def _count_photons(data: np.ndarray, photons: float, electronic_noise: float, seed: int) -> np.ndarray:
    """Line integrals from Poisson counts plus Gaussian detector noise; each slice has a random stream of its own."""
    noisy = np.empty_like(data)
    for k, clean in enumerate(data):
        generator = np.random.default_rng([seed, k])
        counts = generator.poisson(photons * np.exp(-clean.astype(np.float64))).astype(np.float64)
        counts += electronic_noise * generator.standard_normal(counts.shape)
        noisy[k] = -np.log(np.maximum(counts, FEWEST_PHOTONS) / photons)
    return noisy
