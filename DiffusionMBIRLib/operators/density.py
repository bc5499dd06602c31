"""How densely a trajectory samples k-space, as one weight a sample: the area of k-space that it stands for.

Areas are counted in cells of the grid, so that the weighted adjoint gives images of the scale of their data: weights of
a fully sampled grid are 1.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .gridding import Gridding

_ITERATIONS = 30
_STEP = 0.05  # within which the steps along straight spokes through the centre count as even


def density_weights(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """float64 (readouts, samples): by the ramp of radial scans where all readouts are such, else after Pipe and Menon.

    points: (readouts, samples, 2) in cycles per field of view of a grid of ``shape`` (rows, columns).
    """
    ramp = radial_weights(points)
    return pipe_menon(points, shape) if ramp is None else ramp


def radial_weights(points: np.ndarray) -> np.ndarray | None:
    """The ramp of straight spokes through the centre that turn evenly enough; None of other trajectories.

    A ring of radius r and width d has the area 2 pi r d, shared by the spokes that cross it; the centre a quarter step.
    """
    ends = points[:, -1] - points[:, 0]
    length = np.hypot(ends[:, 0], ends[:, 1])
    samples = points.shape[1]
    if samples < 3 or not length.min() > 0:
        return None
    step = length / (samples - 1)
    along = np.einsum("rsd,rd->rs", points, ends / length[:, None])
    even = points[:, :1] + ends[:, None] * (np.arange(samples) / (samples - 1))[None, :, None]
    radius = np.hypot(points[..., 0], points[..., 1])
    straight = np.abs(points - even).max() < _STEP * step.min()
    through = radius.min(axis=1).max() <= 1.01 * step.max()  # delays move spokes aside by less than a sample
    if not (straight and through and np.ptp(step) < _STEP * step.mean()):
        return None
    halves = (along.min(axis=1) < -step) & (along.max(axis=1) > step)
    crossings = 2 * np.count_nonzero(halves) + np.count_nonzero(~halves)
    width = step[:, None]
    weights = 2 * math.pi * np.maximum(np.abs(along), width / 8) * width / crossings
    return np.asarray(weights, np.float64)


def pipe_menon(points: np.ndarray, shape: tuple[int, int], iterations: int = _ITERATIONS) -> np.ndarray:
    """Weights that make the gridded density flat (Pipe and Menon 1999), scaled to the area that was sampled.

    The scale makes the weighted transform of a fully sampled disc the identity in the mean: the brightest pixel of its
    point spread is what it is of a grid.
    """
    gridding = Gridding(points, shape, dtype=torch.complex128, accuracy=(2.0, 5))
    weights = torch.ones(points.shape[0] * points.shape[1], dtype=torch.float64)
    for _ in range(iterations):
        weights /= gridding.smoothed(weights).clamp_min(1e-12)
    shares = weights.reshape(points.shape[:2]).numpy()
    return np.asarray(shares * (_sampled_area(points, shape) / shares.sum()), np.float64)


def _sampled_area(points: np.ndarray, shape: tuple[int, int]) -> float:
    """Cells that the trajectory spans: the ellipse or the rectangle around it, whichever its samples fill."""
    reach = np.abs(points).reshape(-1, 2).max(axis=0)
    scaled = points.reshape(-1, 2) / np.maximum(reach, 1e-12)
    corners = (np.abs(scaled) > 0.8).all(axis=1).any()
    return float((4 if corners else math.pi) * np.prod(np.maximum(reach, 0.5)))


def capped(weights: np.ndarray) -> Tensor:
    """Weights of at most one cell: what lies densely counts less, what lies far apart no more than on a grid.

    A weighted transform then has a norm near 1, and few steps of plain conjugate gradient solve for it.
    """
    return torch.from_numpy(np.minimum(weights, 1.0))
