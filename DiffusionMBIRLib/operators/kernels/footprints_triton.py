"""Separable footprints on CUDA, compiled by Triton, for upright detectors; see :mod:`..footprints`.

Torch tells for each view where the shadows of pixels fall; a kernel lays the voxels above a pixel onto detector rows
and adds them to its columns, another one collects them again.  The projection adds atomically, in any order: two runs
may differ by rounding.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..sight import Sight
from .footprints_torch import Pixels, slant

_BLOCK = 128  # rows, or voxels above each other, of a program


@triton.jit
def _share_below(t, t0, t1, t2, t3):
    """Share of a trapezoid, with its corners at t0 <= t1 <= t2 <= t3, that lies below t."""
    height = 2.0 / ((t3 - t0) + (t2 - t1))
    t = tl.minimum(tl.maximum(t, t0), t3)
    rise, fall = tl.minimum(t, t1) - t0, tl.maximum(t - t2, 0.0)
    flat = tl.minimum(tl.maximum(t, t1), t2) - t1
    up = rise * rise / tl.maximum(2.0 * (t1 - t0), 1e-30)
    down = fall - fall * fall / tl.maximum(2.0 * (t3 - t2), 1e-30)
    return height * (up + flat + down)


@triton.jit
def _project(x, out, corners, axial, nz, columns, rows, most, taps, block: tl.constexpr):
    pixel = tl.program_id(0)
    t0, t1 = tl.load(corners + 4 * pixel), tl.load(corners + 4 * pixel + 1)
    t2, t3 = tl.load(corners + 4 * pixel + 2), tl.load(corners + 4 * pixel + 3)
    a, b, mass = tl.load(axial + 3 * pixel), tl.load(axial + 3 * pixel + 1), tl.load(axial + 3 * pixel + 2)
    row = tl.program_id(1) * block + tl.arange(0, block)
    start = tl.floor((row + tl.where(b < 0, 1.0, 0.0) - a) / b).to(tl.int32)
    none = tl.zeros((block,), dtype=tl.int32)
    laid = tl.zeros((block,), dtype=x.dtype.element_ty)
    for tap in range(taps):
        voxel = start + tap
        e0 = a + b * voxel
        e1 = e0 + b
        part = tl.maximum(tl.minimum(row + 1.0, tl.maximum(e0, e1)) - tl.maximum(row + 0.0, tl.minimum(e0, e1)), 0.0)
        inside = (voxel >= 0) & (voxel < nz) & (row < rows)
        laid += part.to(laid.dtype) * tl.load(x + pixel * nz + voxel, mask=inside, other=0.0)
    first = tl.floor(t0).to(tl.int32)
    below = _share_below(first, t0, t1, t2, t3)
    for k in range(most):
        column = first + k + none  # of every lane: masks are compared lane by lane
        above = _share_below(first + k + 1.0, t0, t1, t2, t3)
        weight = (mass * (above - below)).to(laid.dtype)
        below = above
        met = (column >= 0) & (column < columns) & (row < rows)
        tl.atomic_add(out + column * rows + row, weight * laid, mask=met)


@triton.jit
def _back_project(y, out, corners, axial, nz, columns, rows, most, taps, block: tl.constexpr):
    pixel = tl.program_id(0)
    t0, t1 = tl.load(corners + 4 * pixel), tl.load(corners + 4 * pixel + 1)
    t2, t3 = tl.load(corners + 4 * pixel + 2), tl.load(corners + 4 * pixel + 3)
    a, b, mass = tl.load(axial + 3 * pixel), tl.load(axial + 3 * pixel + 1), tl.load(axial + 3 * pixel + 2)
    voxel = tl.program_id(1) * block + tl.arange(0, block)
    e0 = a + b * voxel
    e1 = e0 + b
    low, high = tl.minimum(e0, e1), tl.maximum(e0, e1)
    start = tl.floor(low).to(tl.int32)
    none = tl.zeros((block,), dtype=tl.int32)
    total = tl.zeros((block,), dtype=y.dtype.element_ty)
    first = tl.floor(t0).to(tl.int32)
    below = _share_below(first, t0, t1, t2, t3)
    for k in range(most):
        column = first + k + none  # of every lane: masks are compared lane by lane
        above = _share_below(first + k + 1.0, t0, t1, t2, t3)
        weight = (mass * (above - below)).to(total.dtype)
        below = above
        met = (column >= 0) & (column < columns)
        for tap in range(taps):
            row = start + tap
            part = tl.maximum(tl.minimum(row + 1.0, high) - tl.maximum(row, low), 0.0)
            inside = (row >= 0) & (row < rows) & (voxel < nz) & met
            place = column * rows + row
            total += weight * part.to(total.dtype) * tl.load(y + place, mask=inside, other=0.0)
    kept = voxel < nz
    place = out + pixel * nz + voxel
    tl.store(place, tl.load(place, mask=kept, other=0.0) + total, mask=kept)


def project(sight: Sight, factor: float, volume: Tensor, out: Tensor) -> None:
    """factor times the line integrals of a volume (y, x, z), into out (views, columns, rows)."""
    out.zero_()
    _, columns, rows = out.shape
    for view in range(len(out)):
        tables, most, _, taps = _seen(sight, view, factor, volume, out)
        grid = (len(tables[0]), -(-rows // _BLOCK))
        _project[grid](volume, out[view], *tables, volume.shape[2], columns, rows, most, taps, block=_BLOCK)
        out[view] *= slant(sight, view, out)


def back_project(sight: Sight, factor: float, data: Tensor, out: Tensor) -> None:
    """The transpose of :func:`project`, into out (y, x, z)."""
    out.zero_()
    _, columns, rows = data.shape
    for view in range(len(data)):
        tables, most, taps, _ = _seen(sight, view, factor, out, data)
        grid = (len(tables[0]), -(-out.shape[2] // _BLOCK))
        long = data[view] * slant(sight, view, data)
        _back_project[grid](long, out, *tables, out.shape[2], columns, rows, most, taps, block=_BLOCK)


def _seen(
    sight: Sight, view: int, factor: float, volume: Tensor, data: Tensor
) -> tuple[tuple[Tensor, Any], int, int, int]:
    """((corners, axial), columns that a shadow meets, rows that a voxel does, voxels that a row does), at most."""
    pixels = Pixels.of(sight, view, slice(0, volume.shape[0]), volume, data)
    axial = torch.stack((pixels.a, pixels.b, pixels.mass * factor), -1).contiguous()
    high = pixels.b.abs()
    most = int((pixels.corners[:, 3].ceil() - pixels.corners[:, 0].floor()).max())
    rows, voxels = (int(size.max().ceil()) + 1 for size in (high, 1 / high))
    return (pixels.corners.contiguous(), axial), most, rows, voxels
