"""Filtered back-projection of parallel beams."""

from __future__ import annotations

from torch import Tensor

from ...geometry import Grid, ParallelBeam
from ...operators.base import LinearOperator
from .filters import angular_weights, ramp_filter
from .redundancy import Redundancy
from .registry import reconstructs


@reconstructs(ParallelBeam)
def fbp(A: LinearOperator, y: Tensor, geometry: ParallelBeam, grid: Grid, *, window: str = "ramp") -> Tensor:
    """Filtered back-projection of line integrals (slices, views, columns) to attenuation in 1/mm."""
    dx, dy, _ = grid.spacing_mm
    weights = angular_weights(geometry.angles_deg).to(y.device, y.dtype)
    redundancy = Redundancy.of(geometry)
    filtered = ramp_filter(redundancy.weighed(y) if redundancy else y, geometry.pitch_mm, window) * weights[:, None]
    if redundancy:
        filtered = redundancy.folded(filtered)
    return A.adjoint(filtered) * (geometry.pitch_mm / (dx * dy))
