"""Thin slices that fit thick ones: the cubic spline through them, and the nearest volume that has their means."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ..geometry import Grid
from ..geometry.slices import SliceProfiles
from ..operators.base import LinearOperator
from ..operators.slices import SliceMeans, along_z
from .consistency import DataFit

LEAST_RIDGE = 1e-6  # of S S^T, over its largest eigenvalue: means of much overlapping slices hardly tell some patterns
_MIRRORED = 4  # thick slices that stand for what lies beyond the ends


class SliceProjection(DataFit):
    """x + S^T (S S^T + r)^-1 (y - S x): the nearest volume whose means over the thick slices are y.

    With noise in y, of standard deviation ``noise``, r = (noise / sigma)^2 at noise level sigma: the minimum of
    |y - S x|^2 / noise^2 + |x - x0|^2 / sigma^2, which leaves the data off by no more than their noise.

    A: a multiple of ``means`` that y is in the range of.
    """

    def __init__(self, A: LinearOperator, y: Tensor, means: SliceMeans, *, noise: float = 0.0) -> None:
        super().__init__(A, y)
        self._means, self.noise = means, noise
        self._scale = 1 / means.norm()
        self._back: tuple[float, Tensor] | None = None

    def __call__(self, x: Tensor, sigma: float | None = None) -> Tensor:
        ridge = (self.noise / sigma) ** 2 if sigma else 0.0
        return along_z(self._way_back(ridge), self.A.forward(x).neg_().add_(self.y)).add_(x)

    def _way_back(self, ridge: float) -> Tensor:
        if self._back is None or self._back[0] != ridge:
            shares = self._means.shares * self._scale  # of norm 1
            gram = shares @ shares.T + max(ridge, LEAST_RIDGE) * np.eye(len(shares))
            self._back = ridge, self._means.small(np.linalg.solve(gram, shares).T)
        return self._back[1]


def spline(geometry: SliceProfiles, grid: Grid) -> np.ndarray:
    """The cubic spline through the middles of the thick slices, at those of thin ones: float64 (thin, thick).

    Beyond the ends the slices are mirrored.
    """
    places, distance, thick = np.asarray(geometry.places_mm), geometry.distance_mm, len(geometry.places_mm)
    if thick == 1:
        return np.ones((grid.shape[0], 1))
    index = np.arange(-_MIRRORED, thick + _MIRRORED)
    mirrored = np.mod(index, 2 * thick)
    mirrored = np.minimum(mirrored, 2 * thick - 1 - mirrored)
    wanted = (np.arange(grid.shape[0]) - (grid.shape[0] - 1) / 2) * grid.spacing_mm[2]
    t = (wanted - places[0]) / distance + _MIRRORED
    weights = _natural_spline(np.clip(t, 0, len(index) - 1), len(index))
    folded = np.zeros((grid.shape[0], thick))
    np.add.at(folded.T, mirrored, weights.T)
    return folded


def _natural_spline(t: np.ndarray, count: int) -> np.ndarray:
    """Weights (len(t), count) of values at 0 to count - 1 in the spline without curvature at the ends, at t."""
    inner = np.eye(count)
    second = np.zeros((count, count))  # curvatures from values
    system = 4 * np.eye(count - 2) + np.eye(count - 2, k=1) + np.eye(count - 2, k=-1)
    second[1:-1] = np.linalg.solve(system, 6 * (inner[:-2] - 2 * inner[1:-1] + inner[2:]))
    low = np.minimum(t.astype(int), count - 2)
    b = (t - low)[:, None]
    a = 1 - b
    curved = ((a**3 - a) * second[low] + (b**3 - b) * second[low + 1]) / 6
    return a * inner[low] + b * inner[low + 1] + curved
