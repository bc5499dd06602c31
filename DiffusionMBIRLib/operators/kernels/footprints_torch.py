"""Separable footprints by torch alone, for any device; see :mod:`..footprints` for what they compute.

Volumes are (y, x, z) and data (views, columns, rows).  A view at a time, and of it as many rows of the volume as a
working set holds, or a layer of the volume.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..sight import C0, EQUAL, KU, KV, LEAST, N0, NX, NY, R0, U0, UX, UY, V0, VX, VZ, Sight

_AT_ONCE = 2**20  # voxels, or cells above pixels


def project(sight: Sight, factor: float, volume: Tensor, out: Tensor) -> None:
    """factor times the line integrals of a volume (y, x, z), into out (views, columns, rows)."""
    out.zero_()
    if not sight.upright:
        return _cross_layers(sight, factor, volume, out)
    for view in range(len(out)):
        for some in _parts(volume, out):
            pixels = Pixels.of(sight, view, some, volume, out)
            laid = pixels.lay_on_rows(volume[some].flatten(0, 1), out.shape[2])
            for column, share in pixels.columns(factor, out):
                out[view].index_add_(0, column, laid * share[:, None])
        out[view] *= slant(sight, view, out)


def back_project(sight: Sight, factor: float, data: Tensor, out: Tensor) -> None:
    """The transpose of :func:`project`, into out (y, x, z)."""
    out.zero_()
    if not sight.upright:
        return _spread_over_layers(sight, factor, data, out)
    for view in range(len(data)):
        long = data[view] * slant(sight, view, data)
        for some in _parts(out, data):
            pixels = Pixels.of(sight, view, some, out, data)
            laid = torch.zeros((len(pixels.corners), data.shape[2]), dtype=data.dtype, device=data.device)
            for column, share in pixels.columns(factor, data):
                laid += long[column] * share[:, None]
            out[some] += pixels.lift_from_rows(laid, out.shape[2]).view(out[some].shape)


def _parts(volume: Tensor, data: Tensor) -> list[slice]:
    step = max(1, _AT_ONCE // (volume.shape[1] * max(volume.shape[2], data.shape[2])))
    return [slice(start, min(start + step, len(volume))) for start in range(0, len(volume), step)]


def _cross_layers(sight: Sight, factor: float, volume: Tensor, out: Tensor) -> None:
    flat = volume.reshape(-1)
    for view in range(len(out)):
        for main in range(3):
            beams = _Beams(sight, view, main, volume, out)
            total = torch.zeros_like(beams.length)
            for layer in range(beams.shape[main]):
                for voxel, share in beams.of_layer(layer):
                    total += share * flat[voxel]
            out[view].view(-1).index_add_(0, beams.cell, (total * beams.length * factor).to(out.dtype))


def _spread_over_layers(sight: Sight, factor: float, data: Tensor, out: Tensor) -> None:
    flat = out.view(-1)
    for view in range(len(data)):
        for main in range(3):
            beams = _Beams(sight, view, main, out, data)
            value = data[view].reshape(-1)[beams.cell] * beams.length * factor
            for layer in range(beams.shape[main]):
                for voxel, share in beams.of_layer(layer):
                    flat.index_add_(0, voxel, (share * value).to(out.dtype))


def _wide(device: torch.device) -> torch.dtype:
    """The type that places are computed in: Apple's GPUs know no other."""
    return torch.float32 if device.type == "mps" else torch.float64


def slant(sight: Sight, view: int, data: Tensor) -> Tensor:
    """By how much each ray is longer than one straight onto the detector, (columns, rows)."""
    s, (_, columns, rows) = sight.numbers[view], data.shape
    u = (torch.arange(columns, dtype=torch.float64) + 0.5 - s[C0]) / s[KU]
    v = (torch.arange(rows, dtype=torch.float64) + 0.5 - s[R0]) / s[KV]
    across = torch.zeros_like(u) if sight.arc else u * u
    return (1 + across[:, None] + v * v).sqrt().to(data.dtype).to(data.device)


def _share_below(t: Tensor, corners: Tensor) -> Tensor:
    """Share of trapezoids, with their corners (..., 4) in order, that lies below t."""
    t0, t1, t2, t3 = corners.unbind(-1)
    height, tiny = 2 / ((t3 - t0) + (t2 - t1)), torch.finfo(corners.dtype).tiny
    t = torch.minimum(torch.maximum(t, t0), t3)
    rise = torch.minimum(t, t1) - t0
    fall = t - torch.maximum(torch.minimum(t, t2), t2)
    flat = torch.minimum(torch.maximum(t, t1), t2) - t1
    up = rise.square() / (2 * (t1 - t0)).clamp_min(tiny)
    fall = fall.clamp_min(0)
    down = fall - fall.square() / (2 * (t3 - t2)).clamp_min(tiny)
    return height * (up + flat + down)


def _cells(corners: Tensor, cells: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(cell, share) of trapezoids over detector cells; those beyond the detector have no share."""
    first = corners[..., 0].floor()
    most = int((corners[..., 3].ceil() - first).max()) if first.numel() else 0
    below = torch.zeros_like(first)
    for k in range(most):
        above = _share_below(first + k + 1, corners)
        cell = first + k
        inside = (cell >= 0) & (cell < cells)
        yield cell.clamp(0, cells - 1).long(), torch.where(inside, above - below, 0)
        below = above


class Pixels:
    """What the voxels above each other have in common in a view of an upright detector, of some rows of a volume.

    corners: (pixels, 4) detector columns of the trapezoid.  mass: (pixels,).  a, b: (pixels,), voxel k covers the
    detector rows from a + b k to a + b (k + 1).
    """

    def __init__(self, corners: Tensor, mass: Tensor, a: Tensor, b: Tensor) -> None:
        self.corners, self.mass, self.a, self.b = corners, mass, a, b

    @classmethod
    def of(cls, sight: Sight, view: int, some: slice, volume: Tensor, data: Tensor) -> Pixels:
        s, wide, on = sight.numbers[view], _wide(data.device), data.device
        (x0, y0, z0), (dx, dy, dz) = sight.first, sight.step
        x_edges = x0 + dx * (torch.arange(volume.shape[1] + 1, device=on, dtype=wide) - 0.5)
        y_edges = y0 + dy * (torch.arange(some.start, some.stop + 1, device=on, dtype=wide) - 0.5)

        def seen(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return s[UX] * x + s[UY] * y + s[U0], s[NX] * x + s[NY] * y + s[N0]

        u, n = seen(x_edges, y_edges[:, None])
        t = s[C0] + s[KU] * (torch.atan2(u, n) if sight.arc else u / n)
        corners = torch.stack((t[:-1, :-1], t[:-1, 1:], t[1:, :-1], t[1:, 1:]), -1).sort(-1).values.view(-1, 4)
        u, n = seen(x_edges[:-1] + dx / 2, y_edges[:-1, None] + dy / 2)
        distance = (torch.hypot(u, n) if sight.arc else n).reshape(-1)
        scale = s[KV] / distance
        a = s[R0] + scale * (s[VZ] * (z0 - dz / 2) + s[V0])
        return cls(corners, dx * dy * s[KU] / distance, a, scale * (s[VZ] * dz))

    def columns(self, factor: float, data: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(column, weight) of each pixel, one column after the other."""
        for column, share in _cells(self.corners, data.shape[1]):
            yield column, (share * self.mass * factor).to(data.dtype)

    def _places(self, rows: int, voxels: int) -> tuple[Tensor, Tensor]:
        """Voxel, and how far within it, of the edges of detector rows, (pixels, rows + 1)."""
        edges = torch.arange(rows + 1, device=self.a.device, dtype=self.a.dtype)
        place = ((edges - self.a[:, None]) / self.b[:, None]).clamp_(0, voxels)
        below = place.floor()
        return below.long(), place - below

    def lay_on_rows(self, x: Tensor, rows: int) -> Tensor:
        """(pixels, voxels) -> (pixels, rows): differences of the running sum at the rows' edges."""
        voxel, within = self._places(rows, x.shape[1])
        plain = torch.nn.functional.pad(x.to(self.a.dtype), (0, 1))
        running = torch.nn.functional.pad(plain[:, :-1].cumsum(1), (1, 0))
        at_edges = running.gather(1, voxel) + within * plain.gather(1, voxel)
        return (at_edges.diff(dim=1) * self.b[:, None]).to(x.dtype)

    def lift_from_rows(self, y: Tensor, voxels: int) -> Tensor:
        """The transpose of :meth:`lay_on_rows`."""
        voxel, within = self._places(y.shape[1], voxels)
        part = -torch.nn.functional.pad(y.to(self.a.dtype) * self.b[:, None], (1, 1)).diff(dim=1)
        running = torch.zeros((len(y), voxels + 1), dtype=part.dtype, device=y.device)
        plain = running.scatter_add(1, voxel, part * within)[:, :voxels]
        running = running.scatter_add_(1, voxel, part)[:, 1:]
        return (plain + running.flip(1).cumsum(1).flip(1)).to(y.dtype)


class _Beams:
    """Of the rays of a view that cross layers along one axis of the volume most steeply: where they meet each layer.

    cell: (rays,) places in the view's data.  length: (rays,) of each within a layer, in mm.
    """

    def __init__(self, sight: Sight, view: int, main: int, volume: Tensor, data: Tensor) -> None:
        s, on, (_, columns, rows) = sight.numbers[view], data.device, data.shape
        source, ray, wide, high = _rays(s, sight.arc, columns, rows, _wide(on), on)
        steep = torch.stack([ray[axis].abs() / sight.step[axis] for axis in range(3)])
        # Of equally steep ones the first in this order.
        order = torch.tensor([1, 0, 2], device=on)
        chosen = order[steep[order].argmax(0)] == main
        self.cell = chosen.nonzero().view(-1)
        ny, nx, nz = volume.shape
        self.shape, self.strides = (nx, ny, nz), (nz, nx * nz, 1)
        self.main, self.others = main, [axis for axis in range(3) if axis != main]
        along = ray[main][chosen]
        self.length = sight.step[main] * torch.stack([part[chosen] for part in ray]).norm(dim=0) / along.abs()
        self._depth = (sight.first[main] - source[main]) / along, sight.step[main] / along
        self._beams: list[tuple[Any, ...]] = []
        for axis in self.others:
            step, slope = sight.step[axis], ray[axis][chosen] / along
            edges = [(edge[axis][chosen] - slope * edge[main][chosen]) / step for edge in (wide, high)]
            start = (source[axis] - sight.first[axis]) / step + 0.5
            self._beams.append((start, ray[axis][chosen] / step, *edges, slope * sight.step[main] / step))

    def of_layer(self, layer: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(voxel, share) of each ray in a layer, one after the other; beyond the volume there is no share."""
        t = self._depth[0] + layer * self._depth[1]
        (a0, a1, a2, a3, a4), (b0, b1, b2, b3, b4) = self._beams
        aa = (a2 * a2 + a3 * a3) * t * t + a4 * a4
        bb = (b2 * b2 + b3 * b3) * t * t + b4 * b4
        ab = (a2 * b2 + a3 * b3) * t * t + a4 * b4
        steps, cells = (
            [torch.tensor(each[axis], device=t.device) for axis in self.others] for each in (self.strides, self.shape)
        )
        turned = bb > aa * EQUAL  # the wider of the two goes outside

        def outside(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            return torch.where(turned, b, a), torch.where(turned, a, b)

        at, bt = outside(a0 + a1 * t, b0 + b1 * t)
        aa, bb = outside(aa, bb)
        step, step_within = outside(*steps)
        most, most_within = outside(*cells)
        half, lean = aa.sqrt() / 2 + LEAST, ab / aa.clamp_min(LEAST)
        rest = (bb - lean * ab).clamp_min(0)
        for i, left, right in _met(at - half, at + half, most):
            middle, length = bt + lean * ((left + right) / 2 - at), (right - left).clamp_min(0)
            tail = (rest + (lean * length).square()).sqrt() / 2 + LEAST
            place = layer * self.strides[self.main] + i * step
            for k, low, high in _met(middle - tail, middle + tail, most_within):
                yield place + k * step_within, length * (high - low).clamp_min(0) / (4 * half * tail)


def _met(low: Tensor, high: Tensor, cells: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(cell, from, to) of intervals over cells, one after the other; of those beyond the first and last, nothing."""
    first = low.floor()
    for k in range(int((high.ceil() - first).max()) if first.numel() else 0):
        cell = first + k
        inside = (cell >= 0) & (cell < cells)
        left = torch.maximum(cell, low)
        right = torch.where(inside, torch.minimum(cell + 1, high), left)
        yield torch.minimum(cell.clamp_min(0), cells - 1).long(), left, right


def _rays(
    s: np.ndarray, arc: bool, columns: int, rows: int, wide: torch.dtype, on: torch.device
) -> tuple[list[float], list[Tensor], list[Tensor], list[Tensor]]:
    """Source, and of each cell (columns x rows) the ray to its middle and its edges there, in mm along (x, y, z)."""
    u = ((torch.arange(columns, device=on, dtype=wide) + 0.5 - s[C0]) / s[KU])[:, None]
    v = (torch.arange(rows, device=on, dtype=wide) + 0.5 - s[R0]) / s[KV]
    one = torch.ones_like(u)
    cos, sin = (u.cos(), u.sin()) if arc else (one, u)
    turn = sin if arc else 0 * one
    source, ray, across, up = [], [], [], []
    for axis in range(3):
        along, upward, ahead = (float(s[first + axis]) for first in (UX, VX, NX))
        source.append(-float(s[U0] * along + s[V0] * upward + s[N0] * ahead))
        ray.append((ahead * cos + along * sin + upward * v).flatten())
        across.append(((along * cos - ahead * turn) / s[KU] + 0 * v).flatten())
        up.append((upward / s[KV] + 0 * (u + v)).flatten())
    return source, ray, across, up
