"""Separable footprints on CPUs, compiled by numba; see :mod:`..footprints` for what they compute.

Volumes are (y, x, z) and data (views, columns, rows), both contiguous.  All voxels above each other go through the
same detector columns with the same shares, where the detector is upright: they are first laid onto detector rows, by
differences of their running sum, then added to each column.  No kernel writes where another thread does: the
projection divides the views, its adjoint the rows of the volume.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from ..sight import C0, EQUAL, KU, KV, LEAST, N0, NX, NY, R0, U0, UX, UY, V0, VX, VZ, Sight

_VIEWS_AT_ONCE = 8  # of the projection: they share the running sums of a volume that is read once for all of them
_PARTS = 4  # that each thread does of the layers of a volume
_CELLS_AT_ONCE = 2**23  # of the data, lengthened by their slant before they are projected back


def compiled(function: Any) -> Any:
    """Compiled at the first call, and kept on disk where there is a place for it."""
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder that could be written to
        return numba.njit(nogil=True, error_model="numpy")(function)


# --- trapezoids


@compiled
def _share_below(t, t0, t1, t2, t3):
    """Share of a trapezoid, with its corners at t0 <= t1 <= t2 <= t3, that lies below t."""
    height = 2.0 / ((t3 - t0) + (t2 - t1))
    if t <= t0:
        return 0.0
    if t < t1:
        return height * (t - t0) ** 2 / (2.0 * (t1 - t0))
    if t <= t2:
        return height * ((t1 - t0) / 2.0 + t - t1)
    if t < t3:
        return 1.0 - height * (t3 - t) ** 2 / (2.0 * (t3 - t2))
    return 1.0


@compiled
def _sorted(a, b, c, d):
    a, b = min(a, b), max(a, b)
    c, d = min(c, d), max(c, d)
    a, c = min(a, c), max(a, c)
    b, d = min(b, d), max(b, d)
    return a, min(b, c), max(b, c), d


@compiled
def _cells(low, high, cells):
    """The detector cells that the interval from low to high meets: from the first to before the second."""
    if high <= 0.0 or low >= cells:
        return 0, 0
    return max(0, math.floor(low)), min(cells, math.ceil(high))


# --- upright detectors


@compiled
def _edge_columns(s, arc, y, x0, dx, out):
    """Detector columns of the points (x0 + i dx, y)."""
    for i in range(out.shape[0]):
        x = x0 + i * dx
        u = s[UX] * x + s[UY] * y + s[U0]
        n = s[NX] * x + s[NY] * y + s[N0]
        out[i] = s[C0] + s[KU] * (math.atan2(u, n) if arc else u / n)


@compiled
def _axial(s, arc, x, y, z_edge, dz):
    """(row of the lowest edge of the voxels above (x, y), rows that each takes, one over their distance)."""
    n = s[NX] * x + s[NY] * y + s[N0]
    if arc:
        n = math.hypot(n, s[UX] * x + s[UY] * y + s[U0])
    scale = s[KV] / n
    return s[R0] + scale * (s[VZ] * z_edge + s[V0]), scale * s[VZ] * dz, 1.0 / n


@compiled
def _sum_up(x, running, plain):
    """running[k] = x[0] + ... + x[k - 1]; plain: x, then a 0."""
    total = 0.0
    for k in range(x.size):
        running[k], plain[k] = total, x[k]
        total += x[k]
    running[x.size], plain[x.size] = total, 0.0


@compiled
def _lay_on_rows(running, plain, a, b, low, high, edges, out):
    """out[r - low] = sum over voxels k of x[k] times the part of row r between a + b k and a + b (k + 1)."""
    most, step, at = float(plain.size - 1), 1.0 / b, (low - a) / b
    edges = edges[: high - low + 1]
    for r in range(edges.size):
        p = min(max(at + r * step, 0.0), most)
        k = np.uint64(np.int64(p))
        edges[r] = (running[k] + (p - np.int64(p)) * plain[k]) * b
    for r in range(out.size):
        out[r] = edges[r + 1] - edges[r]


@compiled
def _lift_from_rows(y, a, b, low, running, plain):
    """The transpose of :func:`_lay_on_rows`: adds to running and plain what y gives them."""
    most, step, at = float(plain.size - 1), 1.0 / b, (low - a) / b
    last = 0.0
    for r in range(y.size + 1):
        now = b * y[r] if r < y.size else 0.0
        p = min(max(at + r * step, 0.0), most)
        k = np.uint64(np.int64(p))
        running[k] += last - now
        plain[k] += (last - now) * (p - np.int64(p))
        last = now


@compiled
def _sum_down(running, plain, out):
    """The transpose of :func:`_sum_up`, added to out."""
    total = 0.0
    for k in range(out.size - 1, -1, -1):
        total += running[k + 1]
        out[k] += plain[k] + total


@compiled
def project_upright(numbers, arc, first, step, factor, volume, out):
    """Some views; out (views, columns, rows) is overwritten.  numbers: theirs; factor: of every weight."""
    (ny, nx, nz), (views, columns, rows) = volume.shape, out.shape
    (dx, dy, dz), x_edge, z_edge = step, first[0] - step[0] / 2, first[2] - step[2] / 2
    ends, running, plain = np.empty((views, 2, nx + 1)), np.empty(nz + 1), np.empty(nz + 1)
    edges, laid = np.empty(rows + 1), np.empty(rows, volume.dtype)
    out[:] = 0
    for view in range(views):
        _edge_columns(numbers[view], arc, first[1] - dy / 2, x_edge, dx, ends[view, 1])
    for i in range(ny):
        x, y, near, far = first[0], first[1] + i * dy, (i + 1) % 2, i % 2
        for view in range(views):
            _edge_columns(numbers[view], arc, y + dy / 2, x_edge, dx, ends[view, far])
        for j in range(nx):
            _sum_up(volume[i, j], running, plain)
            for view in range(views):
                t = ends[view]
                t0, t1, t2, t3 = _sorted(t[near, j], t[near, j + 1], t[far, j], t[far, j + 1])
                start, stop = _cells(t0, t3, columns)
                a, b, m = _axial(numbers[view], arc, x + j * dx, y, z_edge, dz)
                low, high = _cells(min(a, a + b * nz), max(a, a + b * nz), rows)
                if start >= stop or low >= high:
                    continue
                some = laid[: high - low]
                _lay_on_rows(running, plain, a, b, low, high, edges, some)
                mass, below = factor * dx * dy * m * numbers[view, KU], _share_below(float(start), t0, t1, t2, t3)
                for c in range(start, stop):
                    above = _share_below(c + 1.0, t0, t1, t2, t3)
                    weight, below = volume.dtype.type(mass * (above - below)), above
                    column = out[view, c, low:high]
                    for r in range(column.size):
                        column[r] += weight * some[r]


@compiled
def back_project_upright(numbers, arc, first, step, factor, data, i, out):
    """All views of ``data`` (views, columns, rows) onto row i of the volume; added to out (x, z)."""
    (nx, nz), (views, columns, rows) = out.shape, data.shape
    (dx, dy, dz), x_edge, z_edge = step, first[0] - step[0] / 2, first[2] - step[2] / 2
    ends, running, plain = np.empty((views, 2, nx + 1)), np.empty(nz + 1), np.empty(nz + 1)
    laid = np.empty(rows, data.dtype)
    x, y = first[0], first[1] + i * dy
    for view in range(views):
        for edge in range(2):
            _edge_columns(numbers[view], arc, y + (edge - 0.5) * dy, x_edge, dx, ends[view, edge])
    for j in range(nx):
        running[:], plain[:] = 0, 0
        for view in range(views):
            t = ends[view]
            t0, t1, t2, t3 = _sorted(t[0, j], t[0, j + 1], t[1, j], t[1, j + 1])
            start, stop = _cells(t0, t3, columns)
            a, b, m = _axial(numbers[view], arc, x + j * dx, y, z_edge, dz)
            low, high = _cells(min(a, a + b * nz), max(a, a + b * nz), rows)
            if start >= stop or low >= high:
                continue
            some = laid[: high - low]
            some[:] = 0
            mass, below = factor * dx * dy * m * numbers[view, KU], _share_below(float(start), t0, t1, t2, t3)
            for c in range(start, stop):
                above = _share_below(c + 1.0, t0, t1, t2, t3)
                weight, below = data.dtype.type(mass * (above - below)), above
                column = data[view, c, low:high]
                for r in range(column.size):
                    some[r] += weight * column[r]
            _lift_from_rows(some, a, b, low, running, plain)
        _sum_down(running, plain, out[j])


# --- any detector


@compiled
def _ray(s, arc, c, r, ray, wide, high):
    """The ray to the middle of cell (c, r), and the cell's edges there, in mm along (x, y, z)."""
    u, v = (c + 0.5 - s[C0]) / s[KU], (r + 0.5 - s[R0]) / s[KV]
    cos, sin = (math.cos(u), math.sin(u)) if arc else (1.0, u)
    turn = sin if arc else 0.0
    for axis in range(3):
        along, up, ahead = s[UX + axis], s[VX + axis], s[NX + axis]
        ray[axis] = ahead * cos + along * sin + up * v
        wide[axis] = (along * cos - ahead * turn) / s[KU]
        high[axis] = up / s[KV]


@compiled
def _steepest(ray, step):
    """The axis that the ray crosses most voxels along."""
    x, y, z = abs(ray[0]) / step[0], abs(ray[1]) / step[1], abs(ray[2]) / step[2]
    return 2 if z > max(x, y) else (0 if x > y else 1)


@compiled
def _beam(source, ray, wide, high, main, axis, first, step):
    """Of the beam where it has come to the layers along ``main``: (place along another axis at depth 0, its change per
    unit of depth, the cell's two edges there per unit of depth, way of the ray within a layer).

    Places in voxels from the grid's edge; depth in multiples of ``ray``.
    """
    slope = ray[axis] / ray[main]
    one = (wide[axis] - slope * wide[main]) / step[axis]
    other = (high[axis] - slope * high[main]) / step[axis]
    start = (source[axis] - first[axis]) / step[axis] + 0.5
    return start, ray[axis] / step[axis], one, other, slope * step[main] / step[axis]


@compiled
def _source(s, out):
    """Where the rays of a view come from."""
    for axis in range(3):
        out[axis] = -(s[U0] * s[UX + axis] + s[V0] * s[VX + axis] + s[N0] * s[NX + axis])


@compiled
def _layers(numbers, arc, first, step, shape, strides, main, low, high, factor, volume, data, back):
    """The rays of all views that cross layers ``low`` to ``high`` along axis ``main`` more steeply than others.

    Adds what they meet to data (views, columns, rows) or, back, what they bring to volume, which is flat.
    """
    (views, columns, rows), source = data.shape, np.empty(3)
    ray, wide, tall = np.empty(3), np.empty(3), np.empty(3)
    a, b = (1 if main == 0 else 0), (1 if main == 2 else 2)
    for view in range(views):
        s = numbers[view]
        _source(s, source)
        for c in range(columns):
            for r in range(rows):
                _ray(s, arc, c, r, ray, wide, tall)
                if _steepest(ray, step) != main:
                    continue
                length = factor * step[main] / abs(ray[main]) * math.sqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
                value, total = length * data[view, c, r], 0.0
                a0, a1, a2, a3, a4 = _beam(source, ray, wide, tall, main, a, first, step)
                b0, b1, b2, b3, b4 = _beam(source, ray, wide, tall, main, b, first, step)
                shadow, travel = (a2 * a2 + a3 * a3, b2 * b2 + b3 * b3, a2 * b2 + a3 * b3), (a4 * a4, b4 * b4, a4 * b4)
                for layer in range(low, high):
                    t = (first[main] + layer * step[main] - source[main]) / ray[main]
                    aa, bb = shadow[0] * t * t + travel[0], shadow[1] * t * t + travel[1]
                    ab = shadow[2] * t * t + travel[2]
                    at, bt = a0 + a1 * t, b0 + b1 * t
                    o, n = a, b  # the wider of the two goes outside
                    if bb > aa * EQUAL:
                        o, n, aa, bb, at, bt = b, a, bb, aa, bt, at
                    half, lean = math.sqrt(aa) / 2 + LEAST, ab / max(aa, LEAST)
                    rest = max(bb - lean * ab, 0.0)
                    start, stop = _cells(at - half, at + half, shape[o])
                    for i in range(start, stop):
                        left, right = max(float(i), at - half), min(i + 1.0, at + half)
                        middle, lean_here = bt + lean * ((left + right) / 2 - at), lean * (right - left)
                        tail = math.sqrt(rest + lean_here * lean_here) / 2 + LEAST
                        part = (right - left) / (4.0 * half * tail)
                        place = layer * strides[main] + i * strides[o]
                        down, up = _cells(middle - tail, middle + tail, shape[n])
                        for k in range(down, up):
                            share = part * (min(k + 1.0, middle + tail) - max(float(k), middle - tail))
                            if back:
                                volume[place + k * strides[n]] += share * value
                            else:
                                total += share * volume[place + k * strides[n]]
                if not back:
                    data[view, c, r] += length * total


@compiled
def _slant(numbers, arc, data, out):
    """out = data (views, columns, rows) times by how much each ray is longer than one straight onto the detector."""
    views, columns, rows = data.shape
    for view in range(views):
        s = numbers[view]
        for c in range(columns):
            u = 0.0 if arc else (c + 0.5 - s[C0]) / s[KU]
            for r in range(rows):
                v = (r + 0.5 - s[R0]) / s[KV]
                out[view, c, r] = data[view, c, r] * math.sqrt(1.0 + u * u + v * v)


# --- by threads of this process: numba's own would fight with torch's


def project(sight: Sight, factor: float, volume: Tensor, out: Tensor) -> None:
    """factor times the line integrals of a volume (y, x, z), into out (views, columns, rows)."""
    x, y, views = volume.numpy(), out.zero_().numpy(), len(out)
    share = -(-views // torch.get_num_threads())
    step = -(-share // -(-share // _VIEWS_AT_ONCE))

    def some(start: int) -> None:
        part = slice(start, start + step)
        numbers, data = sight.numbers[part], y[part]
        if sight.upright:
            project_upright(numbers, sight.arc, sight.first, sight.step, factor, x, data)
            _slant(numbers, sight.arc, data, data)
            return
        for main, (shape, strides) in _along_each(x):
            ends = (0, shape[main])
            _layers(
                numbers, sight.arc, sight.first, sight.step, shape, strides, main, *ends, factor, x.ravel(), data, False
            )

    _each(some, range(0, views, step))


def back_project(sight: Sight, factor: float, data: Tensor, out: Tensor) -> None:
    """The transpose of :func:`project`, into out (y, x, z)."""
    y, x = data.numpy(), out.zero_().numpy()
    if sight.upright:
        return _back_project_upright(sight, factor, y, x)
    for main, (shape, strides) in _along_each(x):
        step = -(-shape[main] // (_PARTS * torch.get_num_threads()))

        def some(start: int, main: int = main, shape: Any = shape, strides: Any = strides, step: int = step) -> None:
            ends = (start, min(start + step, shape[main]))
            numbers, flat = sight.numbers, x.reshape(-1)
            _layers(numbers, sight.arc, sight.first, sight.step, shape, strides, main, *ends, factor, flat, y, True)

        _each(some, range(0, shape[main], step))


def _along_each(x: np.ndarray) -> Iterable[tuple[int, tuple[tuple[int, ...], tuple[int, ...]]]]:
    """(axis, ((voxels along x, y, z), (steps in memory))) of a volume (y, x, z) for axes x, y and z."""
    ny, nx, nz = x.shape
    return ((axis, ((nx, ny, nz), (nz, nx * nz, 1))) for axis in range(3))


def _back_project_upright(sight: Sight, factor: float, y: np.ndarray, x: np.ndarray) -> None:
    step = max(1, _CELLS_AT_ONCE // max(1, y[0].size))
    long = np.empty((min(step, len(y)), *y.shape[1:]), y.dtype)
    for start in range(0, len(y), step):
        numbers = sight.numbers[start : start + step]
        part = long[: len(numbers)]

        def lengthen(k: int, numbers: np.ndarray = numbers, part: np.ndarray = part, start: int = start) -> None:
            _slant(numbers[k : k + 1], sight.arc, y[start + k : start + k + 1], part[k : k + 1])

        def row(i: int, numbers: np.ndarray = numbers, part: np.ndarray = part) -> None:
            back_project_upright(numbers, sight.arc, sight.first, sight.step, factor, part, i, x[i])

        _each(lengthen, range(len(part)))
        _each(row, range(len(x)))


def _each(work: Callable[[int], None], items: Iterable[int]) -> None:
    threads = torch.get_num_threads()
    if threads == 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, items):
            pass
