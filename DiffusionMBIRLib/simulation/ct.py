"""CT of a known volume in HU: the measurement that a scanner would have taken, and the truth to judge results against.

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
from dataclasses import asdict, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..geometry import Grid, RayGeometry, geometry_kind, view_angles
from ..host_memory import require_room
from ..hounsfield import remarks_on
from ..monitor import Monitor, Silent
from ..operators import projector
from ..scans import Measurement
from ..volume import Volume, hu_to_attenuation
from .record import record, scan_name
from .settings import CTScan

FEWEST_PHOTONS = 0.5  # a ray that nothing came through is read as half a photon, so that its logarithm exists
_AIR_HU = -1000.0
_PIXELS_AT_ONCE = 1 << 24  # of the fine object, over slices: 64 MB for each array of a chunk
_ENTRIES_AT_ONCE = 1 << 24  # of the projector's matrix, over views: 256 MB
_ENTRIES_PER_PIXEL = 4  # at most about this many for each view when the sub-columns are as wide as the pixels


def coarse_truth(volume: Volume, coarsen: int) -> Volume:
    """What a reconstruction is judged against, in HU and the volume's own axis order; see :func:`.truth_for`."""
    _require_hu(volume)
    turned, order = volume.axial()
    clamped = replace(turned, array=np.maximum(turned.array.astype(np.float32), np.float32(_AIR_HU)))
    coarse = clamped.coarsened(coarsen)
    return replace(volume, array=order.undo(coarse.array), grid=order.inverse().apply_to_grid(coarse.grid))


def scan(
    volume: Volume,
    settings: CTScan,
    *,
    task: str,
    seed: int = 0,
    device: str = "cpu",
    monitor: Monitor | None = None,
) -> Measurement:
    """Line integrals of a volume in HU; see :func:`.simulate`."""
    _require_hu(volume)
    turned, order = volume.axial()
    grid, mu_water = turned.grid.coarsened(settings.coarsen), settings.mu_water_per_mm
    kind = cast(type[RayGeometry], geometry_kind(settings.geometry))
    geometry = kind.covering(grid, view_angles(settings.views, settings.angle_range_deg))
    require_room(f"{volume.name}: the scan", geometry.data_shape(grid.shape[0]), 4)
    attenuation = np.maximum(hu_to_attenuation(turned.array, mu_water), np.float32(0.0))
    data = _project(attenuation, turned.grid, geometry, settings.coarsen, device=device, monitor=monitor or Silent())
    if settings.photons > 0:
        data = _count_photons(data, settings.photons, settings.electronic_noise, seed)
    return Measurement(
        data,
        geometry,
        grid,
        task=task,
        stored_grid=order.inverse().apply_to_grid(grid),
        mu_water_per_mm=mu_water,
        photons=settings.photons,
        electronic_noise=settings.electronic_noise,
        provenance=record(volume, {"task": task, **asdict(settings)}, seed) | _remarks(volume),
        name=scan_name(volume),
    )


def _remarks(volume: Volume) -> dict[str, list[str]]:
    found = remarks_on(volume)
    return {"remarks": found} if found else {}


def _require_hu(volume: Volume) -> None:
    if volume.unit != "HU":
        raise InputError(f"{volume.name}: its unit is {volume.unit!r}; a CT volume in HU is needed")


def _project(
    attenuation: np.ndarray, grid: Grid, geometry: RayGeometry, coarsen: int, *, device: str, monitor: Monitor
) -> np.ndarray:
    """Line integrals, float32, of attenuation (slices, rows, columns) in 1/mm on ``grid``."""
    split = 2 if coarsen == 1 else 1
    fine = grid.divided(split)
    slices, rows, columns = fine.shape
    sub_columns = max(2, coarsen)
    data = np.empty(geometry.data_shape(slices), dtype=np.float32)
    done, total = 0, slices * geometry.views
    # Where slices mix in the data, all of them go at once.
    for chunk in _spans(slices, _PIXELS_AT_ONCE // (rows * columns) if geometry.STACKED else slices):
        body = torch.from_numpy(attenuation[chunk]).to(device)
        body = split_pixels(body) if split == 2 else body
        part = replace(fine, shape=(len(body), rows, columns)) if geometry.STACKED else fine
        for batch in _spans(geometry.views, _ENTRIES_AT_ONCE // (rows * columns * _ENTRIES_PER_PIXEL)):
            operator = projector(geometry.take(batch).divided(sub_columns), part, device=device)
            rays = _merge_columns(operator.forward(body), sub_columns).cpu().numpy()
            data[chunk if geometry.STACKED else slice(None), batch] = rays
            done += len(body) * (batch.stop - batch.start)
            monitor.tick("simulate", done, total)
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
