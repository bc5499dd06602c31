"""MR scans of a known magnitude volume: phase, coils, noise and undersampled k-space."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from ..errors import InputError
from ..geometry import CartesianMRI, Grid, TrajectoryMRI
from ..geometry.paths import radial, spiral, spoke_angles
from ..models import MR_PERCENTILE
from ..monitor import Monitor, Silent
from ..operators.masks import sampling_mask
from ..scans import KSpace, TrajectoryKSpace
from ..tasks import MR_TASK
from ..volume import Volume
from .record import record, scan_name
from .settings import MRScan

COIL_RING = 1.35  # radius of the ring of coils, in halves of the field of view
COIL_LOOP = 0.6  # radius of a coil's loop, likewise
PHASE_STD = 1.0  # radians
USUAL_SPOKES, USUAL_ARMS = 64, 16


def magnitude_of(volume: Volume) -> Volume:
    """The truth of an MR simulation: float32 without unit, on the volume's own grid.

    Raises InputError for negative values, which no magnitude has.
    """
    array = volume.array.astype(np.float32)
    if array.min() < 0:
        raise InputError(f"{volume.name}: holds values down to {array.min():g}; MRI is simulated from magnitudes >= 0")
    if not array.any():
        raise InputError(f"{volume.name}: is zero everywhere; nothing can be simulated from it")
    return Volume(array, volume.grid, unit="", name=volume.name)


def scan(
    volume: Volume,
    settings: MRScan,
    *,
    mask: np.ndarray | None = None,
    seed: int = 0,
    monitor: Monitor | None = None,
) -> KSpace:
    """k-space of a magnitude volume in its own planes; see :func:`.simulate`.

    mask: bool (rows, columns) in place of the one that the settings describe.
    """
    monitor = monitor or Silent()
    truth = magnitude_of(volume)
    if settings.trajectory != "cartesian":
        if mask is not None:
            raise InputError(f"setting mask: is of Cartesian k-space, not of a {settings.trajectory} trajectory")
        return _along_trajectory(volume, truth, settings, seed, monitor)
    sampled = mask
    if sampled is None:
        sampled = sampling_mask(
            truth.grid.in_plane, settings.mask, acceleration=settings.acceleration, acs=settings.acs, seed=seed
        )
    geometry = CartesianMRI(sampled, settings.coils)
    std = settings.noise * float(np.percentile(truth.array, MR_PERCENTILE))
    angles = smooth_phase(truth.grid, seed) if settings.phase else None
    maps = coil_maps(truth.grid, settings.coils) if settings.coils > 1 else None
    slices = truth.grid.shape[0]
    data = np.zeros(geometry.data_shape(slices), dtype=np.complex64)
    for k, magnitude in enumerate(truth.array):
        image = magnitude if angles is None else magnitude * np.exp(1j * angles[k])
        data[k] = _fft(image[None] if maps is None else image * maps[k])
        if std > 0:
            data[k] += _noise(data[k].shape, std, (seed, k))
        data[k] *= geometry.mask
        monitor.tick("simulate", k + 1, slices)
    described = {"task": MR_TASK, **asdict(settings), **({} if mask is None else {"mask": "given"})}
    name = scan_name(volume)
    return KSpace(data, geometry, truth.grid, noise_std=std, provenance=record(volume, described, seed), name=name)


def _along_trajectory(volume: Volume, truth: Volume, settings: MRScan, seed: int, monitor: Monitor) -> KSpace:
    """As :func:`scan`, at the points of a trajectory; the transform is exact to single precision and more."""
    import torch

    from ..operators.gridding import exact_samples

    geometry = trajectory_of(truth.grid, settings)
    angles = smooth_phase(truth.grid, seed) if settings.phase else None
    maps = coil_maps(truth.grid, settings.coils) if settings.coils > 1 else None
    std = settings.noise * float(np.percentile(truth.array, MR_PERCENTILE))
    slices = truth.grid.shape[0]
    data = np.zeros(geometry.data_shape(slices), dtype=np.complex64)
    transform = exact_samples(geometry.points, geometry.matrix)
    for k, magnitude in enumerate(truth.array):
        image = magnitude if angles is None else magnitude * np.exp(1j * angles[k])
        seen = image[None] if maps is None else image * maps[k]
        data[k] = transform(torch.from_numpy(seen.astype(np.complex128))).numpy().reshape(data[k].shape)
        if std > 0:
            data[k] += _noise(data[k].shape, std, (seed, k))
        monitor.tick("simulate", k + 1, slices)
    described = {"task": MR_TASK, **asdict(settings)}
    origin = record(volume, described, seed)
    return TrajectoryKSpace(data, geometry, truth.grid, noise_std=std, provenance=origin, name=scan_name(volume))


def trajectory_of(grid: Grid, settings: MRScan) -> TrajectoryMRI:
    """The trajectory that settings name, over the whole band of the grid's longer side in pixels."""
    rows, columns = grid.in_plane
    size = max(rows, columns)
    if settings.trajectory == "radial":
        points = radial(spoke_angles(settings.spokes or USUAL_SPOKES), 2 * size)
    else:
        points = spiral(settings.arms or USUAL_ARMS, (size - 1) / 2)
    points = points * (np.array([columns, rows]) / size)  # a field of view that is no square
    return TrajectoryMRI(points, (rows, columns), settings.coils, settings.trajectory)


def _noise(shape: tuple[int, ...], std: float, seed: tuple[int, int]) -> np.ndarray:
    """Complex Gaussian noise; each slice has a random stream of its own."""
    draws = np.random.default_rng(seed).standard_normal((*shape, 2), dtype=np.float32)
    return np.float32(std) * draws.view(np.complex64)[..., 0]


def _fft(images: np.ndarray) -> np.ndarray:
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes), norm="ortho"), axes)


def _unit_axes(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions along slices, rows and columns from the centre, in halves of the longest side of the volume."""
    lengths = [n * s for n, s in zip(grid.shape, grid.spacing_mm[::-1], strict=True)]
    longest = max(lengths[1:])
    axes = [
        (np.arange(n) - (n - 1) / 2) * (2 * length / n / longest) for n, length in zip(grid.shape, lengths, strict=True)
    ]
    return axes[0][:, None, None], axes[1][:, None], axes[2]


def smooth_phase(grid: Grid, seed: int) -> np.ndarray:
    """A random phase in radians (slices, rows, columns): waves of up to one and a half cycles across the volume."""
    generator = np.random.default_rng([seed, 2**31])
    z, y, x = _unit_axes(grid)
    out = np.zeros(grid.shape, dtype=np.float32)
    for _ in range(6):
        kz, ky, kx = generator.uniform(-0.75, 0.75, 3) * 2 * np.pi
        out += generator.normal() * np.cos(kz * z + ky * y + kx * x + generator.uniform(0, 2 * np.pi)).astype(
            np.float32
        )
    return (out * (PHASE_STD / max(float(out.std()), 1e-6))).astype(np.float32)


def coil_maps(grid: Grid, coils: int) -> np.ndarray:
    """Sensitivities complex64 (slices, coils, rows, columns) with sum |S|^2 = 1, of loops on a ring around the slices.

    The field of a loop falls with the distance to its centre like that on the axis of a loop (Biot and Savart), and
    its direction in the plane, whose angle is the map's phase, turns with that of the centre.
    """
    z, y, x = _unit_axes(grid)
    maps = np.empty((grid.shape[0], coils, *grid.in_plane), dtype=np.complex64)
    for c in range(coils):
        angle = 2 * np.pi * (c + 0.5) / coils
        dy, dx = y - COIL_RING * np.sin(angle), x - COIL_RING * np.cos(angle)
        distance = dy**2 + dx**2 + z**2
        maps[:, c] = (dx + 1j * dy) / np.sqrt(dx**2 + dy**2) * (distance + COIL_LOOP**2) ** -1.5
    return maps / np.sqrt(np.sum(np.abs(maps) ** 2, axis=1, keepdims=True))
