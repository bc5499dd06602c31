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

from ..sight import C0, KU, KV, N0, NX, NY, NZ, R0, U0, UX, UY, UZ, V0, VX, VY, VZ, Sight

_VIEWS_AT_ONCE = 8  # of the projection: they share the running sums of a volume that is read once for all of them
_CELLS_AT_ONCE = 2**23  # of the data, lengthened by their slant before they are projected back


def _compiled(function: Any) -> Any:
    """Compiled at the first call, and kept on disk where there is a place for it."""
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder that could be written to
        return numba.njit(nogil=True, error_model="numpy")(function)


# --- trapezoids


@_compiled
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


@_compiled
def _sorted(a, b, c, d):
    a, b = min(a, b), max(a, b)
    c, d = min(c, d), max(c, d)
    a, c = min(a, c), max(a, c)
    b, d = min(b, d), max(b, d)
    return a, min(b, c), max(b, c), d


@_compiled
def _cells(low, high, cells):
    """The detector cells that the interval from low to high meets: from the first to before the second."""
    if high <= 0.0 or low >= cells:
        return 0, 0
    return max(0, int(math.floor(low))), min(cells, int(math.ceil(high)))


# --- upright detectors


@_compiled
def _edge_columns(s, arc, y, x0, dx, out):
    """Detector columns of the points (x0 + i dx, y)."""
    for i in range(out.shape[0]):
        x = x0 + i * dx
        u = s[UX] * x + s[UY] * y + s[U0]
        n = s[NX] * x + s[NY] * y + s[N0]
        out[i] = s[C0] + s[KU] * (math.atan2(u, n) if arc else u / n)


@_compiled
def _axial(s, arc, x, y, z_edge, dz):
    """(row of the lowest edge of the voxels above (x, y), rows that each takes, one over their distance)."""
    n = s[NX] * x + s[NY] * y + s[N0]
    if arc:
        n = math.hypot(n, s[UX] * x + s[UY] * y + s[U0])
    scale = s[KV] / n
    return s[R0] + scale * (s[VZ] * z_edge + s[V0]), scale * s[VZ] * dz, 1.0 / n


@_compiled
def _sum_up(x, running, plain):
    """running[k] = x[0] + ... + x[k - 1]; plain: x, then a 0."""
    total = 0.0
    for k in range(x.size):
        running[k], plain[k] = total, x[k]
        total += x[k]
    running[x.size], plain[x.size] = total, 0.0


@_compiled
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


@_compiled
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


@_compiled
def _sum_down(running, plain, out):
    """The transpose of :func:`_sum_up`, added to out."""
    total = 0.0
    for k in range(out.size - 1, -1, -1):
        total += running[k + 1]
        out[k] += plain[k] + total


@_compiled
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


@_compiled
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


@_compiled
def _trapezoid(middle, a, b, c):
    """Corners of the trapezoid of boxes of widths a, b and c: the narrower two are taken as one of their variance."""
    if a < b:
        a, b = b, a
    if a < c:
        a, c = c, a
    d = math.sqrt(b * b + c * c)
    wide, narrow = (a + d) / 2, abs(a - d) / 2
    return middle - wide, middle - narrow, middle + narrow, middle + wide


@_compiled
def _extent(s, arc, axis, u, v, n, d):
    """Size of the derivatives of column and row along x, y or z, but for their factors."""
    du, dv, dn = s[UX + axis], s[VX + axis], s[NX + axis]
    along = (u * du + n * dn) / d if arc else dn
    return abs(du * n - dn * u), abs(dv - v * along / d)


@_compiled
def _shadow(s, arc, x, y, z, step):
    """(columns, rows, mass) of a voxel's shadow: the corners of two trapezoids, and its volume there, in cells."""
    u = s[UX] * x + s[UY] * y + s[UZ] * z + s[U0]
    v = s[VX] * x + s[VY] * y + s[VZ] * z + s[V0]
    n = s[NX] * x + s[NY] * y + s[NZ] * z + s[N0]
    d = math.hypot(u, n) if arc else n
    across = s[C0] + s[KU] * (math.atan2(u, n) if arc else u / n)
    ku, kv = s[KU] / (d * d), s[KV] / d
    wide_x, high_x = _extent(s, arc, 0, u, v, n, d)
    wide_y, high_y = _extent(s, arc, 1, u, v, n, d)
    wide_z, high_z = _extent(s, arc, 2, u, v, n, d)
    dx, dy, dz = step
    columns = _trapezoid(across, ku * wide_x * dx, ku * wide_y * dy, ku * wide_z * dz)
    rows = _trapezoid(s[R0] + kv * v, kv * high_x * dx, kv * high_y * dy, kv * high_z * dz)
    return columns, rows, dx * dy * dz * s[KU] * s[KV] / (d * d)


@_compiled
def _row_shares(corners, low, high, out):
    t0, t1, t2, t3 = corners
    below = _share_below(float(low), t0, t1, t2, t3)
    for r in range(low, high):
        above = _share_below(r + 1.0, t0, t1, t2, t3)
        out[r - low], below = above - below, above


@_compiled
def project_tilted(numbers, arc, first, step, factor, volume, out):
    """As :func:`project_upright`, for any poses."""
    (ny, nx, nz), (views, columns, rows) = volume.shape, out.shape
    shares = np.empty(rows)
    out[:] = 0
    for view in range(views):
        for i in range(ny):
            for j in range(nx):
                x, y = first[0] + j * step[0], first[1] + i * step[1]
                for k in range(nz):
                    across, up, mass = _shadow(numbers[view], arc, x, y, first[2] + k * step[2], step)
                    start, stop = _cells(across[0], across[3], columns)
                    low, high = _cells(up[0], up[3], rows)
                    if start >= stop or low >= high or volume[i, j, k] == 0:
                        continue
                    _row_shares(up, low, high, shares)
                    mass *= factor * volume[i, j, k]
                    below = _share_below(float(start), across[0], across[1], across[2], across[3])
                    for c in range(start, stop):
                        above = _share_below(c + 1.0, across[0], across[1], across[2], across[3])
                        weight, below = mass * (above - below), above
                        for r in range(low, high):
                            out[view, c, r] += weight * shares[r - low]


@_compiled
def back_project_tilted(numbers, arc, first, step, factor, data, i, out):
    """As :func:`back_project_upright`, for any poses."""
    (nx, nz), (views, columns, rows) = out.shape, data.shape
    shares = np.empty(rows)
    y = first[1] + i * step[1]
    for view in range(views):
        for j in range(nx):
            x = first[0] + j * step[0]
            for k in range(nz):
                across, up, mass = _shadow(numbers[view], arc, x, y, first[2] + k * step[2], step)
                start, stop = _cells(across[0], across[3], columns)
                low, high = _cells(up[0], up[3], rows)
                if start >= stop or low >= high:
                    continue
                _row_shares(up, low, high, shares)
                total, below = 0.0, _share_below(float(start), across[0], across[1], across[2], across[3])
                for c in range(start, stop):
                    above = _share_below(c + 1.0, across[0], across[1], across[2], across[3])
                    inner = 0.0
                    for r in range(low, high):
                        inner += shares[r - low] * data[view, c, r]
                    total += (above - below) * inner
                    below = above
                out[j, k] += factor * mass * total


@_compiled
def slant(numbers, arc, data, out):
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
    kernel = project_upright if sight.upright else project_tilted
    x, y, views = volume.numpy(), out.numpy(), len(out)
    share = -(-views // torch.get_num_threads())
    step = -(-share // -(-share // _VIEWS_AT_ONCE))

    def some(start: int) -> None:
        part = slice(start, start + step)
        kernel(sight.numbers[part], sight.arc, sight.first, sight.step, factor, x, y[part])
        slant(sight.numbers[part], sight.arc, y[part], y[part])

    _each(some, range(0, views, step))


def back_project(sight: Sight, factor: float, data: Tensor, out: Tensor) -> None:
    """The transpose of :func:`project`, into out (y, x, z)."""
    kernel = back_project_upright if sight.upright else back_project_tilted
    y, x = data.numpy(), out.zero_().numpy()
    step = max(1, _CELLS_AT_ONCE // max(1, y[0].size))
    long = np.empty((min(step, len(y)), *y.shape[1:]), y.dtype)
    for start in range(0, len(y), step):
        numbers = sight.numbers[start : start + step]
        part = long[: len(numbers)]
        _each(
            lambda k, v=numbers, p=part, s=start: slant(v[k : k + 1], sight.arc, y[s + k : s + k + 1], p[k : k + 1]),
            range(len(part)),
        )
        _each(
            lambda i, v=numbers, p=part: kernel(v, sight.arc, sight.first, sight.step, factor, p, i, x[i]),
            range(len(x)),
        )


def _each(work: Callable[[int], None], items: Iterable[int]) -> None:
    threads = torch.get_num_threads()
    if threads == 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, items):
            pass
