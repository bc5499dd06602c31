"""The entries of a fan beam's matrix on CPUs, compiled by numba; see :mod:`..fan` for what they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .footprints_numba import compiled

Reals = NDArray[np.float64]


@compiled
def _share_beyond(t, wide, narrow):
    """As :func:`..slice_matrix.trapezoid_share`."""
    distance = abs(t)
    if distance >= wide + narrow:
        half = 0.5
    elif distance <= wide - narrow:
        half = distance / (2.0 * wide)
    else:
        half = 0.5 - (wide + narrow - distance) ** 2 / (8.0 * wide * narrow)
    return 0.5 + half if t > 0.0 else 0.5 - half


@compiled
def _fill(first, last, x, y, normal_x, normal_y, wide, narrow, area, least, ray, pixel, value):
    n = 0
    for i in range(first.size):
        c, stop = first[i], last[i]
        if c > stop:
            continue
        mass = 1.0 / math.sqrt(x[i] * x[i] + y[i] * y[i])
        before = _share_beyond(x[i] * normal_x[c] + y[i] * normal_y[c], wide[c], narrow[c])
        while c <= stop:
            beyond = _share_beyond(x[i] * normal_x[c + 1] + y[i] * normal_y[c + 1], wide[c + 1], narrow[c + 1])
            if before - beyond > least:
                ray[n], pixel[n], value[n] = c, i, (before - beyond) * area[c] * mass
                n += 1
            before = beyond
            c += 1
    return n


def entries(
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    x: Reals,
    y: Reals,
    edges: tuple[Reals, Reals, Reals, Reals],
    area: Reals,
    least: float,
    dtype: np.dtype[Any],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.floating]]:
    """(columns, pixels, values) of a view, pixel by pixel.

    first, last: columns that each pixel may lie in, none where first > last.  x, y: of pixels' centres, seen from the
    source.  edges: of each column's edge the unit normal (x, y) and the half-widths of a pixel along it.  area: of a
    pixel over each column's angle.
    """
    room = int(np.maximum(last - first + 1, 0).sum())
    ray, pixel, value = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, dtype)
    n = _fill(first, last, x, y, *edges, area, least, ray, pixel, value)
    return ray[:n], pixel[:n], value[:n]
