"""Every so many-th voxel of a volume, for previews, and what lies between them.  Needs numpy only."""

from __future__ import annotations

import numpy as np

Factors = tuple[int, int, int]


def voxels_left(shape: tuple[int, ...], factors: Factors) -> int:
    """How many voxels are left of a volume (slices, rows, columns)."""
    return int(np.prod([-(-n // f) for n, f in zip(shape, factors, strict=True)]))


def coarser(shape: tuple[int, ...], factors: Factors) -> Factors:
    """One more along the axes that have the most voxels left; rows and columns stay alike."""
    slices, rows, columns = factors
    if shape[0] / slices > max(shape[1] / rows, shape[2] / columns):
        return slices + 1, rows, columns
    return slices, rows + 1, columns + 1


def factors_within(shape: tuple[int, ...], voxels: float, factors: Factors = (1, 1, 1)) -> Factors:
    """The first that leave at most so many voxels."""
    while voxels_left(shape, factors) > voxels:
        factors = coarser(shape, factors)
    return factors


def between(coarse: np.ndarray, shape: tuple[int, ...], factors: Factors) -> np.ndarray:
    """The volume of that shape, float32, of which every so many-th voxel is known: linear between them."""
    volume = coarse.astype(np.float32, copy=False)
    for axis, (count, factor) in enumerate(zip(shape, factors, strict=True)):
        if factor > 1:
            volume = _along(volume, axis, count, factor)
    return volume


def _along(volume: np.ndarray, axis: int, count: int, factor: int) -> np.ndarray:
    place = np.minimum(np.arange(count) / factor, volume.shape[axis] - 1)
    below = np.minimum(place.astype(np.intp), max(0, volume.shape[axis] - 2))
    above = np.minimum(below + 1, volume.shape[axis] - 1)
    shape = [1, 1, 1]
    shape[axis] = count
    weight = (place - below).astype(np.float32).reshape(shape)
    found: np.ndarray = volume.take(below, axis) * (1 - weight)
    found += volume.take(above, axis) * weight
    return found
