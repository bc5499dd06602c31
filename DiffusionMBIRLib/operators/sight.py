"""How each view of a point source sees a grid: the numbers that projection kernels compute with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..geometry import Grid, PointSource

# Of a row of ``Sight.numbers``: a point p has u = U . p + U0 along columns, v along rows and n ahead, all in mm from
# the source; it appears at column KU u / n + C0 and row KV v / n + R0 (of an arc KU atan(u / n) + C0 and
# KV v / |(u, n)| + R0), in cells from the detector's first edge.
UX, UY, UZ, U0, VX, VY, VZ, V0, NX, NY, NZ, N0, KU, KV, C0, R0 = range(16)
# Of the shadows of detector cells on layers of a volume, in voxels: what is wider by less is as wide; the least width.
EQUAL, LEAST = 1 + 1e-9, 1e-9
_UPRIGHT = 1e-9


@dataclass(frozen=True)
class Sight:
    """numbers: float64 (views, 16).  first: (x, y, z) of the first voxel's middle, in mm; step: from voxel to voxel.

    upright: detector rows run along z in every view, so that all voxels above each other have one column.
    """

    numbers: np.ndarray
    first: tuple[float, float, float]
    step: tuple[float, float, float]
    arc: bool
    upright: bool

    @classmethod
    def of(cls, geometry: PointSource, grid: Grid) -> Sight:
        poses, (rows, columns) = geometry.poses(), geometry.detector
        assert poses.source is not None
        middle = poses.centre - poses.source
        pu, pv = (np.linalg.norm(axis, axis=1, keepdims=True) for axis in (poses.u, poses.v))
        u, v = poses.u / pu, poses.v / pv
        ahead = np.cross(u, v)
        ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
        ahead *= np.sign(_dot(ahead, middle))
        if poses.arc:  # the middle column lies straight ahead, whatever rounding says
            ahead = middle - _dot(middle, v) * v
            ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
            u = u - _dot(u, ahead) * ahead
            u /= np.linalg.norm(u, axis=1, keepdims=True)
        distance = _dot(middle, ahead)
        axes = [np.hstack([axis, -_dot(axis, poses.source)]) for axis in (u, v, ahead)]
        zero = columns / 2 - _dot(middle, u) / pu, rows / 2 - _dot(middle, v) / pv
        numbers = np.hstack([*axes, distance / pu, distance / pv, *zero])
        tilt = np.abs(numbers[:, [UZ, NZ, VX, VY]]).max()
        half = (np.asarray(grid.shape[::-1]) - 1) / 2
        first = np.asarray(grid.off_isocentre_mm) - half * grid.spacing_mm
        return cls(numbers, _three(first), grid.spacing_mm, poses.arc, bool(tilt < _UPRIGHT))


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1, keepdims=True)


def _three(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return x, y, z
