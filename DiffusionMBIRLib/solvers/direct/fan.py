"""Filtered back-projection of fan beams, flat and arc (Kak and Slaney 1988, section 3.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...geometry import FanBeam, Grid
from ...operators.base import LinearOperator
from ...operators.slice_matrix import centres
from .circular import Circle, filtered, seen_at
from .registry import reconstructs


@reconstructs(FanBeam)
def fan_fbp(A: LinearOperator, y: Tensor, geometry: FanBeam, grid: Grid, *, window: str = "ramp") -> Tensor:
    """Filtered back-projection of line integrals (slices, views, columns) to attenuation in 1/mm.

    Whole turns, short scans and shifted detectors alike; readings between two columns are interpolated.
    """
    g = geometry
    circle = Circle(g.angles_deg, g.columns, g.pitch_mm, g.offset_mm, g.sod_mm, g.sdd_mm, g.arc)
    rows = filtered(circle, y, window)
    columns = rows.shape[-1]
    across, along = (c.to(y.device) for c in centres(grid))
    out = y.new_zeros((len(across), y.shape[0]))
    for view, angle in enumerate(g.angles_deg):
        place, weight, _ = seen_at(circle, angle, across, along)
        lower = place.floor()
        share = place - lower
        index = torch.stack([lower, lower + 1], dim=1)
        factors = torch.stack([1 - share, share], dim=1) * weight[:, None] * ((index >= 0) & (index < columns))
        table = rows[:, view].t().contiguous()
        out += F.embedding_bag(
            index.clamp(0, columns - 1).long(), table, mode="sum", per_sample_weights=factors.to(y.dtype)
        )
    return out.t().reshape(A.domain.shape)
