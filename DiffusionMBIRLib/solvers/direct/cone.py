"""Filtered back-projection of cone beams on a circle (Feldkamp, Davis and Kress 1984), flat and arc.

Exact in the plane of the circle; what leaves it is an approximation, the better the smaller the cone angle.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from ...geometry import ConeBeam, Grid
from ...operators.base import LinearOperator
from ...operators.slice_matrix import centres
from .circular import Circle, filtered, seen_at
from .registry import reconstructs

_AT_ONCE = 2**22  # voxels whose places on the detector are held


@reconstructs(ConeBeam)
def fdk(A: LinearOperator, y: Tensor, geometry: ConeBeam, grid: Grid, *, window: str = "ramp") -> Tensor:
    """Filtered back-projection of line integrals (rows, views, columns) to attenuation in 1/mm.

    Whole turns, short scans and detectors shifted to one side alike; readings between four pixels are interpolated, and
    none lie beyond the detector.  Raises InputError for an arc that is turned in its own plane.
    """
    y, g = straightened(y, geometry)
    circle = Circle(g.angles_deg, g.columns, g.pitch_mm, g.offset_mm, g.sod_mm, g.sdd_mm, g.arc)
    row_places = (torch.arange(g.rows, dtype=torch.float64) - (g.rows - 1) / 2) * g.row_pitch_mm + g.row_offset_mm
    rows = filtered(circle, y, window, row_places)
    slices, pixels = grid.shape[0], grid.in_plane[0] * grid.in_plane[1]
    z = (torch.arange(slices, dtype=torch.float64) - (slices - 1) / 2) * grid.spacing_mm[2] + grid.off_isocentre_mm[2]
    z, (across, along) = z.to(y.device), (c.to(y.device) for c in centres(grid))
    out = y.new_zeros((pixels, slices))
    for view, angle in enumerate(g.angles_deg):
        place, weight, grown = seen_at(circle, angle, across, along)
        image = rows[:, view].contiguous()
        for some in torch.arange(pixels, device=y.device).split(max(1, _AT_ONCE // slices)):
            height = (grown[some, None] * z - g.row_offset_mm) / g.row_pitch_mm + (g.rows - 1) / 2
            out[some] += bilinear(image, height, place[some, None].expand_as(height)) * weight[some, None].to(y.dtype)
    return A.domain.laid_out(out.t().reshape(A.domain.shape))


def straightened(y: Tensor, geometry: ConeBeam) -> tuple[Tensor, ConeBeam]:
    """Data and scanner without turn of the detector in its plane and without shifts of single views.

    Raises InputError for an arc with such a turn.
    """
    g = geometry
    if not (g.roll_deg or g.shifts_mm or g.row_shifts_mm):
        return y, g
    if g.arc and g.roll_deg:
        raise InputError(
            "geometry.roll_deg: an arc that is turned in its own plane has no filtered back-projection; use admm-tv"
        )
    plain = replace(g, roll_deg=0.0, shifts_mm=(), row_shifts_mm=())
    cos, sin = math.cos(math.radians(g.roll_deg)), math.sin(math.radians(g.roll_deg))
    u = (torch.arange(g.columns, dtype=torch.float64) - (g.columns - 1) / 2) * g.pitch_mm + g.offset_mm
    v = (torch.arange(g.rows, dtype=torch.float64)[:, None] - (g.rows - 1) / 2) * g.row_pitch_mm + g.row_offset_mm
    u, v = u.to(y.device), v.to(y.device)
    out = torch.empty_like(y)
    for view in range(g.views):
        moved, lifted = (shifts[view] if shifts else 0.0 for shifts in (g.shifts_mm, g.row_shifts_mm))
        column = (u * cos + v * sin - g.offset_mm - moved) / g.pitch_mm + (g.columns - 1) / 2
        row = (v * cos - u * sin - g.row_offset_mm - lifted) / g.row_pitch_mm + (g.rows - 1) / 2
        out[:, view] = bilinear(y[:, view].contiguous(), row, column)
    return out, plain


def bilinear(image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Values of an image (rows, columns) at fractional places, those beyond it 0; shaped like ``row``."""
    rows, columns = image.shape
    padded = F.pad(image, (1, 1, 1, 1))  # so that an image may have one row
    places = torch.stack([2 * (column + 1) / (columns + 1) - 1, 2 * (row + 1) / (rows + 1) - 1], dim=-1)
    found = F.grid_sample(padded[None, None], places[None].to(image.dtype), mode="bilinear", align_corners=True)
    return found[0, 0]
