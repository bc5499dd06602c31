"""The slice-stacked parallel-beam X-ray transform as one sparse matrix shared by all slices.

Entry (ray, pixel) = area of the pixel inside the ray's strip / strip width, in mm: the line integral averaged over the
detector column, exact for an image that is constant on each pixel.  The projection of a rectangular pixel is a
trapezoid, so its share of a strip is a difference of the trapezoid's integral.
"""

from __future__ import annotations

import math

import torch

from ..geometry import Grid, ParallelBeam
from .projector import projects
from .slice_matrix import SliceMatrix, Triplets, centres, trapezoid_share


def _view_triplets(geometry: ParallelBeam, grid: Grid, angle_deg: float, dtype: torch.dtype) -> Triplets:
    """Non-zero entries of one view, pixel by pixel; ``ray`` counts detector columns.  Computed in double precision."""
    rows, columns = grid.in_plane
    dx, dy = grid.spacing_mm[:2]
    theta = math.radians(angle_deg)
    cos, sin = math.cos(theta), math.sin(theta)
    half_x, half_y = abs(cos) * dx / 2, abs(sin) * dy / 2
    wide, narrow = max(half_x, half_y), min(half_x, half_y)
    narrow = 0.0 if narrow < 1e-12 * wide else narrow
    x, y = centres(grid)
    centre = y * sin + x * cos
    pitch = geometry.pitch_mm
    left_edge = geometry.offset_mm - geometry.columns * pitch / 2
    position = (centre - left_edge) / pitch  # in detector columns
    first = torch.floor(position - (wide + narrow) / pitch).long()
    reach = math.ceil(2 * (wide + narrow) / pitch) + 1
    below = trapezoid_share((first - position) * pitch, wide, narrow)
    rays, values = [], []
    for k in range(reach):
        above = trapezoid_share((first + k + 1 - position) * pitch, wide, narrow)
        rays.append(first + k)
        values.append((above - below) * (dx * dy / pitch))
        below = above
    ray, value = torch.stack(rays, 1), torch.stack(values, 1)
    keep = (value > 1e-12 * dx * dy / pitch) & (ray >= 0) & (ray < geometry.columns)
    pixel = torch.arange(rows * columns).unsqueeze(1).expand_as(ray)
    return Triplets(ray[keep].int(), pixel[keep].int(), value[keep].to(dtype))


@projects(ParallelBeam)
class XRayTransform(SliceMatrix):
    """Line integrals of each slice: (slices, rows, columns) in 1/mm -> (slices, views, columns), without unit."""

    def __init__(
        self,
        geometry: ParallelBeam,
        grid: Grid,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        views = (_view_triplets(geometry, grid, angle, dtype) for angle in geometry.angles_deg)
        super().__init__(geometry, grid, views, device=device, dtype=dtype)
