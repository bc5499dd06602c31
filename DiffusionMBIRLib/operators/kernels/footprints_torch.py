"""Separable footprints by torch alone, for any device; see :mod:`..footprints` for what they compute.

Volumes are (y, x, z) and data (views, columns, rows).  A view at a time, and of it as many rows of the volume as a
working set holds.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..sight import C0, KU, KV, N0, NX, NY, NZ, R0, U0, UX, UY, UZ, V0, VX, VY, VZ, Sight

_AT_ONCE = 2**20  # voxels, or cells above pixels


def project(sight: Sight, factor: float, volume: Tensor, out: Tensor) -> None:
    """factor times the line integrals of a volume (y, x, z), into out (views, columns, rows)."""
    out.zero_()
    for view, some in _parts(sight, volume, out):
        part = volume[some]
        if sight.upright:
            pixels = _Pixels.of(sight, view, some, volume, out)
            laid = pixels.lay_on_rows(part.flatten(0, 1), out.shape[2])
            for column, share in pixels.columns(factor, out):
                out[view].index_add_(0, column, laid * share[:, None])
        else:
            flat, x = out[view].view(-1), part.reshape(-1)
            for cell, share in _shadows(sight, view, some, volume, out, factor):
                flat.index_add_(0, cell, x * share)
    for view in range(len(out)):
        out[view] *= _slant(sight, view, out)


def back_project(sight: Sight, factor: float, data: Tensor, out: Tensor) -> None:
    """The transpose of :func:`project`, into out (y, x, z)."""
    out.zero_()
    for view, some in _parts(sight, out, data):
        long = data[view] * _slant(sight, view, data)
        part = out[some]
        if sight.upright:
            pixels = _Pixels.of(sight, view, some, out, data)
            laid = torch.zeros((len(pixels.corners), data.shape[2]), dtype=data.dtype, device=data.device)
            for column, share in pixels.columns(factor, data):
                laid += long[column] * share[:, None]
            part += pixels.lift_from_rows(laid, out.shape[2]).view(part.shape)
        else:
            flat = long.reshape(-1)
            for cell, share in _shadows(sight, view, some, out, data, factor):
                part += (flat[cell] * share).view(part.shape)


def _parts(sight: Sight, volume: Tensor, data: Tensor) -> Iterator[tuple[int, slice]]:
    _, nx, nz = volume.shape
    step = max(1, _AT_ONCE // (nx * (max(nz, data.shape[2]) if sight.upright else nz)))
    return (
        (view, slice(start, min(start + step, len(volume))))
        for view in range(len(data))
        for start in range(0, len(volume), step)
    )


def _wide(device: torch.device) -> torch.dtype:
    """The type that places are computed in: Apple's GPUs know no other."""
    return torch.float32 if device.type == "mps" else torch.float64


def _slant(sight: Sight, view: int, data: Tensor) -> Tensor:
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


class _Pixels:
    """What the voxels above each other have in common in a view of an upright detector, of some rows of a volume.

    corners: (pixels, 4) detector columns of the trapezoid.  mass: (pixels,).  a, b: (pixels,), voxel k covers the
    detector rows from a + b k to a + b (k + 1).
    """

    def __init__(self, corners: Tensor, mass: Tensor, a: Tensor, b: Tensor) -> None:
        self.corners, self.mass, self.a, self.b = corners, mass, a, b

    @classmethod
    def of(cls, sight: Sight, view: int, some: slice, volume: Tensor, data: Tensor) -> _Pixels:
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


def _shadows(
    sight: Sight, view: int, some: slice, volume: Tensor, data: Tensor, factor: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """(cell, weight) of the voxels of some rows of a volume, for detectors that need not be upright."""
    s, wide, on = sight.numbers[view], _wide(data.device), data.device
    places = [range(some.start, some.stop), range(volume.shape[1]), range(volume.shape[2])]
    y, x, z = (
        sight.first[axis] + sight.step[axis] * torch.tensor(list(places[k]), dtype=wide, device=on)
        for k, axis in enumerate((1, 0, 2))
    )
    x, y = x[:, None], y[:, None, None]
    u = s[UX] * x + s[UY] * y + s[UZ] * z + s[U0]
    v = s[VX] * x + s[VY] * y + s[VZ] * z + s[V0]
    n = s[NX] * x + s[NY] * y + s[NZ] * z + s[N0]
    d = torch.hypot(u, n) if sight.arc else n
    ku, kv = s[KU] / (d * d), s[KV] / d
    wide_as, high_as = [], []
    for axis, step in enumerate(sight.step):
        du, dv, dn = s[UX + axis], s[VX + axis], s[NX + axis]
        along = (u * du + n * dn) / d if sight.arc else dn
        wide_as.append((ku * (du * n - dn * u) * step).abs())
        high_as.append((kv * (dv - v * along / d) * step).abs())
    across = s[C0] + s[KU] * (torch.atan2(u, n) if sight.arc else u / n)
    mass = factor * sight.step[0] * sight.step[1] * sight.step[2] * ku * s[KV]
    columns, rows = _trapezoid(across, wide_as), _trapezoid(s[R0] + kv * v, high_as)
    for column, share in _cells(columns, data.shape[1]):
        for row, part in _cells(rows, data.shape[2]):
            yield (column * data.shape[2] + row).view(-1), (share * part * mass).to(data.dtype).view(-1)


def _trapezoid(middle: Tensor, widths: list[Tensor]) -> Tensor:
    """Corners of the trapezoids of three boxes: the narrower two are taken as one of their variance."""
    ordered = torch.stack(torch.broadcast_tensors(*widths), -1).sort(-1).values
    a, b = ordered[..., 2], torch.hypot(ordered[..., 0], ordered[..., 1])
    wide, narrow = (a + b) / 2, (a - b).abs() / 2
    return torch.stack((middle - wide, middle - narrow, middle + narrow, middle + wide), -1)
