"""The slice-stacked fan-beam X-ray transform as one sparse matrix shared by all slices.

A detector column sees a wedge between two rays.  Entry (ray, pixel) = area of the pixel inside the wedge / (its angle x
distance of the pixel's centre from the source), in mm: the mean over the wedge's rays of the length that they go
through the pixel, but for how much the distance changes within the pixel.  A ray cuts a rectangle into shares that
follow from the rectangle's projection along the ray, a trapezoid, as for parallel beams.

Rays are taken from the poses alone, so that flat and curved detectors differ in the edges of their columns only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..geometry import FanBeam, Grid, Poses
from .projector import projects
from .slice_matrix import SliceMatrix, Triplets, centres, trapezoid_share

_LEAST = 1e-12  # of a whole pixel's share: what is less is rounding


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
    first, last = _span(fan, x, y, dx, dy)
    pixel = torch.nonzero((last >= 0) & (first < fan.columns)).squeeze(1)
    first, last = first[pixel].clamp_min(0), last[pixel].clamp_max(fan.columns - 1)
    edges, parts, width = fan.edges(), [], 4
    reach = last - first + 1
    while len(pixel):  # pixels near the source cast long shadows: those alone take more room
        some = reach <= width
        parts.append(_entries(fan, edges, pixel[some], first[some], width, x, y, dx, dy))
        pixel, first, reach, width = pixel[~some], first[~some], reach[~some], 2 * width
    joined = [torch.cat([part[k] for part in parts]) for k in range(3)] if parts else 3 * [torch.empty(0)]
    if len(parts) > 1:
        by_pixel = torch.argsort(joined[1], stable=True)
        joined = [part[by_pixel] for part in joined]
    return Triplets(joined[0].int(), joined[1].int(), joined[2].to(dtype))


def _entries(
    fan: _Fan, edges: Tensor, pixel: Tensor, first: Tensor, width: int, x: Tensor, y: Tensor, dx: float, dy: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(columns, pixels, values) of pixels that lie in at most ``width`` columns from their ``first`` on."""
    # Of each edge the unit normal, towards higher columns, and half the extent of a pixel along it.
    normal_x, normal_y = (edges.cos() * fan.across[k] - edges.sin() * fan.ahead[k] for k in (0, 1))
    half_x, half_y = normal_x.abs() * dx / 2, normal_y.abs() * dy / 2
    wide, narrow = torch.maximum(half_x, half_y), torch.minimum(half_x, half_y)
    narrow = torch.where(narrow < 1e-12 * wide, 0.0, narrow)
    x, y = x[pixel, None], y[pixel, None]
    column = first[:, None] + torch.arange(width)
    edge = (first[:, None] + torch.arange(width + 1)).clamp_max_(fan.columns)
    away = x * normal_x[edge] + y * normal_y[edge]
    share = -torch.diff(trapezoid_share(away, wide[edge], narrow[edge]), dim=1)
    value = share * (dx * dy / torch.hypot(x, y) / torch.diff(edges, append=edges[-1:] + 1)[edge[:, :-1]])
    kept = share > _LEAST
    return column[kept], pixel[:, None].expand_as(column)[kept], value[kept]


def _span(fan: _Fan, x: Tensor, y: Tensor, dx: float, dy: float) -> tuple[Tensor, Tensor]:
    """First and last column that each pixel's corners appear in; none of pixels that reach behind the source."""
    ahead, across = (x * axis[0] + y * axis[1] for axis in (fan.ahead, fan.across))
    places, nearest = [], torch.full_like(ahead, torch.inf)
    for sx in (-dx / 2, dx / 2):
        for sy in (-dy / 2, dy / 2):
            corner_ahead = ahead + sx * fan.ahead[0] + sy * fan.ahead[1]
            corner_across = across + sx * fan.across[0] + sy * fan.across[1]
            nearest = torch.minimum(nearest, corner_ahead)
            places.append(fan.columns_of(corner_ahead, corner_across))
    all_places = torch.stack(places).nan_to_num(0.0, 1e9, -1e9).clamp(-1e9, 1e9)
    first, last = all_places.amin(0).floor().long(), all_places.amax(0).floor().long()
    seen = nearest > 0
    return torch.where(seen, first, fan.columns), torch.where(seen, last, -1)


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
