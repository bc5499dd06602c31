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

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..geometry import Grid, PointSource, RayGeometry, view_angles
from ..host_memory import require_room
from ..hounsfield import remarks_on
from ..monitor import Monitor, Silent
from ..operators import projector
from ..scans import Measurement
from ..volume import Volume, hu_to_attenuation
from .record import record, scan_name
from .settings import CTScan, scanner_settings

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
    geometry = scanner_of(settings, grid)
    require_room(f"{volume.name}: the scan", geometry.data_shape(grid.shape[0]), 4)
    attenuation = np.maximum(hu_to_attenuation(turned.array, mu_water), np.float32(0.0))
    standing = shifted(geometry, settings.axis_error_mm)
    data = _project(attenuation, turned.grid, standing, settings.coarsen, device=device, monitor=monitor or Silent())
    if settings.photons > 0:
        data = _count_photons(data, settings.photons, settings.electronic_noise, seed)
        data = _with_dead_pixels(data, settings, seed)
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


def scanner_of(settings: CTScan, grid: Grid) -> RayGeometry:
    """The scanner that the settings ask for, around a grid."""
    turned_by = 360.0 if settings.kind.WHOLE_TURNS else settings.angle_range_deg
    angles = view_angles(settings.views, turned_by)
    own = {name: getattr(settings, name) or None for name in scanner_settings(settings.scanner)}
    return settings.kind.covering(grid, angles, **own)


def shifted(geometry: RayGeometry, distance_mm: float) -> RayGeometry:
    """The scanner with its detector moved along its columns; raises InputError for one that knows no such shift."""
    if not distance_mm:
        return geometry
    if not hasattr(geometry, "offset_mm"):
        raise InputError(
            f"setting axis_error_mm: the detector of the scanner {geometry.KIND!r} cannot be shifted; use 0, or "
            "another scanner"
        )
    return replace(geometry, **{"offset_mm": geometry.offset_mm + distance_mm})


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
    deep = 2 if isinstance(geometry, PointSource) else 1  # what a detector row sees mixes slices
    fine = grid.divided(split)
    slices, rows, columns = fine.shape
    parts = (deep, max(2, coarsen))
    data = np.empty(geometry.data_shape(slices), dtype=np.float32)
    done, total = 0, slices * geometry.views
    # Where slices mix in the data, all of them go at once.
    for chunk in _spans(slices, _PIXELS_AT_ONCE // (rows * columns) if geometry.STACKED else slices):
        body = torch.from_numpy(attenuation[chunk]).to(device)
        body = split_pixels(body) if split == 2 else body
        body = split_slices(body) if deep == 2 else body
        part = replace(fine, shape=(len(body), rows, columns)) if geometry.STACKED else _deeper(fine, deep)
        for batch in _spans(geometry.views, _ENTRIES_AT_ONCE // (rows * columns * _ENTRIES_PER_PIXEL)):
            operator = projector(_finer(geometry.take(batch), parts), part, device=device)
            rays = _merged(operator.forward(body), parts).cpu().numpy()
            data[chunk if geometry.STACKED else slice(None), batch] = rays
            done += (chunk.stop - chunk.start) * (batch.stop - batch.start)
            monitor.tick("simulate", done, total)
    return data


def _finer(geometry: RayGeometry, parts: tuple[int, int]) -> RayGeometry:
    """The scanner with each detector pixel divided into so many (along rows, along columns)."""
    fine = geometry.divided(parts[1])
    return fine.divided_rows(parts[0]) if isinstance(fine, PointSource) else fine


def _deeper(grid: Grid, parts: int) -> Grid:
    """The grid whose slices are a ``parts``-th of these; same field of view."""
    (slices, rows, columns), (x, y, z) = grid.shape, grid.spacing_mm
    shift = grid.matrix[:, 2] * ((1 / parts - 1) / 2 * z)
    origin = tuple(np.asarray(grid.origin_mm) + shift)
    return replace(grid, shape=(slices * parts, rows, columns), spacing_mm=(x, y, z / parts), origin_mm=origin)


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


def split_slices(x: Tensor) -> Tensor:
    """Twice as many slices: each becomes two that follow its slope and keep its mean.  x: as in split_pixels."""
    slope = _quarter_slope(x, 0)
    slope = torch.minimum(slope.abs(), x) * slope.sign()
    return torch.stack((x - slope, x + slope), dim=1).flatten(0, 1)


def _quarter_slope(x: Tensor, axis: int) -> Tensor:
    """How much the centre of half a pixel differs from that of the whole: a quarter of the central difference."""
    count = x.shape[axis]
    index = torch.arange(count, device=x.device)
    after = x.index_select(axis, (index + 1).clamp_max(count - 1))
    before = x.index_select(axis, (index - 1).clamp_min(0))
    return (after - before) / 8


def _merged(fine: Tensor, parts: tuple[int, int]) -> Tensor:
    """Line integrals of whole detector pixels from those of their parts: -log of the mean of exp(-p).

    fine: (rows, views, columns), of so many parts along rows and along columns.
    """
    rows, views, columns = (n // k for n, k in zip(fine.shape, (parts[0], 1, parts[1]), strict=True))
    split = fine.reshape(rows, parts[0], views, columns, parts[1])
    least = split.amin(dim=(1, 4), keepdim=True)  # taken out, so that dense objects do not underflow
    return least.squeeze(4).squeeze(1) - torch.exp(least - split).mean(dim=(1, 4)).log()


def _count_photons(data: np.ndarray, photons: float, electronic_noise: float, seed: int) -> np.ndarray:
    """Line integrals from Poisson counts plus Gaussian detector noise; each slice has a random stream of its own."""
    noisy = np.empty_like(data)
    for k, clean in enumerate(data):
        generator = np.random.default_rng([seed, k])
        counts = generator.poisson(photons * np.exp(-clean.astype(np.float64))).astype(np.float64)
        counts += electronic_noise * generator.standard_normal(counts.shape)
        noisy[k] = -np.log(np.maximum(counts, FEWEST_PHOTONS) / photons)
    return noisy


def _with_dead_pixels(data: np.ndarray, settings: CTScan, seed: int) -> np.ndarray:
    """The same data with pixels of the detector that count nothing; their places are drawn by the seed."""
    if not settings.dead_pixels:
        return data
    rows, _, columns = data.shape
    drawn = np.random.default_rng([seed, 1, 0]).random((rows, columns))
    nothing = np.float32(-np.log(FEWEST_PHOTONS / settings.photons))
    return np.where((drawn < settings.dead_pixels)[:, None], nothing, data)
