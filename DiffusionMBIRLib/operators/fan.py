"""The slice-stacked fan-beam X-ray transform as one sparse matrix shared by all slices.

A detector column sees a wedge between two rays.  Entry (ray, pixel) = area of the pixel inside the wedge / (its angle x
distance of the pixel's centre from the source), in mm: the mean over the wedge's rays of the length that they go
through the pixel, but for how much the distance changes within the pixel.  A ray cuts a rectangle into shares that
follow from the rectangle's projection along the ray, a trapezoid, as for parallel beams.

Rays are taken from the poses alone, so that flat and curved detectors differ in the edges of their columns only.
Entries are computed by numba where it is installed, else by torch, which takes longer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..geometry import FanBeam, Grid, Poses
from .projector import projects
from .slice_matrix import SliceMatrix, Triplets, centres, trapezoid_share

_LEAST = 1e-12  # of a whole pixel's share: what is less is rounding
_FAR = 1e9  # columns
_PIXELS_AT_ONCE = 2**15  # without numba


@dataclass(frozen=True)
class _Fan:
    """One view in the plane of a slice, float64: source (2,), and the detector as (origin, axes) seen from it.

    ahead, across: unit vectors.  A flat detector lies ``depth`` ahead, its left edge at ``left`` along ``across`` and
    columns ``pitch`` wide; on an arc the same are angles.
    """

    source: np.ndarray
    ahead: np.ndarray
    across: np.ndarray
    depth: float
    left: float
    pitch: float
    columns: int
    arc: bool

    @classmethod
    def of(cls, poses: Poses, view: int, columns: int) -> _Fan:
        assert poses.source is not None
        source, centre, u = (a[view, :2] for a in (poses.source, poses.centre, poses.u))
        pitch = float(np.linalg.norm(u))
        across = u / pitch
        ahead = np.array([-across[1], across[0]])
        depth, middle = float((centre - source) @ ahead), float((centre - source) @ across)
        if poses.arc:
            pitch, middle = pitch / depth, 0.0
        return cls(source, ahead, across, depth, middle - columns * pitch / 2, pitch, columns, poses.arc)

    def columns_of(self, ahead: Tensor, across: Tensor) -> Tensor:
        """Where a point of the plane appears, in columns from the left edge."""
        place = torch.atan2(across, ahead) if self.arc else across * self.depth / ahead
        return (place - self.left) / self.pitch

    def edges(self) -> Tensor:
        """Angles of the columns' edges from ``ahead`` towards ``across``: (columns + 1,)."""
        place = self.left + self.pitch * torch.arange(self.columns + 1, dtype=torch.float64)
        return place if self.arc else torch.atan2(place, torch.tensor(self.depth, dtype=torch.float64))


def _view_triplets(fan: _Fan, grid: Grid, dtype: torch.dtype) -> Triplets:
    """Non-zero entries of one view, pixel by pixel.  Computed in double precision."""
    dx, dy = grid.spacing_mm[:2]
    x, y = centres(grid)
    x, y = x - fan.source[0], y - fan.source[1]
    _require_outside(x, y, dx, dy)
    first, last = _span(fan, grid, x, y)
    edges = _Edges.of(fan, dx, dy)
    if find_spec("numba"):
        kernel = import_module(f"{__package__}.kernels.fan_numba")
        listed = [part.numpy() for part in (first, last, x, y)]
        kept = torch.empty(0, dtype=dtype).numpy().dtype
        found = kernel.entries(*listed, edges.numpy(), edges.area.numpy(), _LEAST, kept)
        return Triplets(*map(torch.from_numpy, found))
    parts = [
        _entries(edges, pixel, first[pixel], last[pixel], x, y)
        for pixel in torch.nonzero(first <= last).squeeze(1).split(_PIXELS_AT_ONCE)
    ]
    joined = [torch.cat([part[k] for part in parts]) for k in range(3)] if parts else 3 * [torch.empty(0)]
    return Triplets(joined[0].int(), joined[1].int(), joined[2].to(dtype))


@dataclass(frozen=True)
class _Edges:
    """Of each edge of a view's columns, all (columns + 1,): the unit normal, towards higher columns, and half the
    extents of a pixel along it.  area: of a pixel over the angle of each column.
    """

    normal_x: Tensor
    normal_y: Tensor
    wide: Tensor
    narrow: Tensor
    area: Tensor

    @classmethod
    def of(cls, fan: _Fan, dx: float, dy: float) -> _Edges:
        angle = fan.edges()
        normal_x, normal_y = (angle.cos() * fan.across[k] - angle.sin() * fan.ahead[k] for k in (0, 1))
        half_x, half_y = normal_x.abs() * dx / 2, normal_y.abs() * dy / 2
        wide, narrow = torch.maximum(half_x, half_y), torch.minimum(half_x, half_y)
        narrow = torch.where(narrow < 1e-12 * wide, 0.0, narrow)
        return cls(normal_x, normal_y, wide, narrow, dx * dy / torch.diff(angle, append=angle[-1:] + 1))

    def numpy(self) -> tuple[np.ndarray, ...]:
        return tuple(part.numpy() for part in (self.normal_x, self.normal_y, self.wide, self.narrow))


def _entries(
    edges: _Edges, pixel: Tensor, first: Tensor, last: Tensor, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(columns, pixels, values) of some pixels; those near the source, with their long shadows, take the room."""
    x, y, width = x[pixel, None], y[pixel, None], int((last - first).max()) + 1
    column = first[:, None] + torch.arange(width + 1)
    edge = column.clamp(max=len(edges.wide) - 1)
    away = x * edges.normal_x[edge] + y * edges.normal_y[edge]
    share = -torch.diff(trapezoid_share(away, edges.wide[edge], edges.narrow[edge]), dim=1)
    value = share * edges.area[edge[:, :-1]] / torch.hypot(x, y)
    kept = share > _LEAST
    return column[:, :-1][kept], pixel[:, None].expand_as(share)[kept], value[kept]


def _span(fan: _Fan, grid: Grid, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """First and last column that each pixel's corners appear in, from 0 on; first > last where none does, and of
    pixels that reach behind the source.
    """
    columns, (dx, dy) = grid.in_plane[1], grid.spacing_mm[:2]
    x = torch.cat((x[:columns], x[columns - 1 : columns] + dx)) - dx / 2
    y = (torch.cat((y[::columns], y[-1:] + dy)) - dy / 2)[:, None]
    ahead, across = (x * axis[0] + y * axis[1] for axis in (fan.ahead, fan.across))
    place = fan.columns_of(ahead, across).nan_to_num(0.0, _FAR, -_FAR).clamp(-_FAR, _FAR)
    lowest, highest = _of_corners(place, torch.minimum), _of_corners(place, torch.maximum)
    first, last = lowest.floor().long().clamp_min(0), highest.floor().long().clamp_max(fan.columns - 1)
    seen = _of_corners(ahead, torch.minimum) > 0
    return torch.where(seen, first, fan.columns).flatten(), torch.where(seen, last, -1).flatten()


def _of_corners(x: Tensor, choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The least or largest of each pixel's four corners, from those of all pixels, (rows + 1, columns + 1)."""
    along = choose(x[:, :-1], x[:, 1:])
    return choose(along[:-1], along[1:])


def _require_outside(x: Tensor, y: Tensor, dx: float, dy: float) -> None:
    """Raise InputError where the source lies within a pixel.  x, y: of pixels' centres, seen from the source."""
    if bool(((x.abs() <= dx / 2) & (y.abs() <= dy / 2)).any()):
        raise InputError(
            "geometry.sod_mm: the source goes through the grid to reconstruct on; make the grid smaller, or check "
            "geometry.sod_mm and the grid's isocentre"
        )


@projects(FanBeam)
class FanTransform(SliceMatrix):
    """Line integrals of each slice: (slices, rows, columns) in 1/mm -> (slices, views, columns), without unit.

    Raises InputError where the source goes through the grid, or the detector sees none of it.
    """

    def __init__(
        self,
        geometry: FanBeam,
        grid: Grid,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        poses = geometry.poses()
        fans = (_Fan.of(poses, view, geometry.columns) for view in range(geometry.views))
        super().__init__(geometry, grid, (_view_triplets(fan, grid, dtype) for fan in fans), device=device, dtype=dtype)
        if not self.entries:
            raise InputError(
                "geometry: the detector sees no part of the grid; check geometry.offset_mm, geometry.columns and "
                "geometry.pitch_mm, and the grid's isocentre"
            )
