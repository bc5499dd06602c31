"""Filtered back-projection of parallel beams, and which geometry has a direct reconstruction."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InputError
from ..geometry import Grid, ParallelBeam, RayGeometry
from ..operators.base import LinearOperator
from .redundancy import Redundancy

Direct = Callable[..., Tensor]  # (A, y, geometry, grid, window=) -> attenuation in 1/mm
_DIRECT: dict[type[RayGeometry], Direct] = {}


def reconstructs(geometry: type[RayGeometry]) -> Callable[[Direct], Direct]:
    """Register the direct reconstruction of a geometry."""

    def note(direct: Direct) -> Direct:
        _DIRECT[geometry] = direct
        return direct

    return note


def direct_reconstruction(geometry: RayGeometry) -> Direct:
    """That of a geometry, or of the one that its class derives from; raises InputError where there is none."""
    for kind in type(geometry).__mro__:
        if kind in _DIRECT:
            return _DIRECT[kind]
    raise InputError(f"the geometry {geometry.KIND!r} has no filtered back-projection; use admm-tv or another start")


def angular_weights(angles_deg: tuple[float, ...]) -> Tensor:
    """The share in radians of the half circle that each view stands for: half the gap to each neighbour modulo 180.

    Gaps wider than three times the median (the missing wedge of a limited-angle scan) count as the median.  Views of
    the same line from its two ends, as in a scan over 360 degrees, share its weight.
    """
    angle = torch.tensor(angles_deg, dtype=torch.float64).remainder(180.0)
    order = torch.argsort(angle)
    gaps = torch.diff(angle[order], append=angle[order][:1] + 180.0)
    usual = gaps[gaps > 1e-6].median()
    gaps = torch.where(gaps > 3 * usual, usual, gaps)
    weights = torch.empty_like(angle)
    weights[order] = (gaps + gaps.roll(1)) / 2
    return weights * math.pi / 180.0


def ramp_filter(y: Tensor, pitch_mm: float, window: str) -> Tensor:
    """Convolve detector rows (last axis) with the band-limited ramp (Kak and Slaney 1988, equation 3.61).

    window: 'ramp' or 'hann', which damps high frequencies.
    """
    if window not in ("ramp", "hann"):
        raise InputError(f"filter {window!r} is not known; use ramp or hann")
    columns = y.shape[-1]
    length = max(64, 2 ** math.ceil(math.log2(2 * columns)))
    n = torch.arange(length, device=y.device)
    n = torch.minimum(n, length - n).to(torch.float64)
    kernel = torch.where(n % 2 == 1, -1.0 / (math.pi * n * pitch_mm).clamp_min(1e-30).square(), 0.0)
    kernel[0] = 1.0 / (4 * pitch_mm**2)
    response = torch.fft.rfft(kernel).real * pitch_mm
    if window == "hann":
        response = response * (0.5 + 0.5 * torch.cos(torch.linspace(0, math.pi, len(response), device=y.device)))
    spectrum = torch.fft.rfft(y.contiguous(), length) * response.to(y.dtype)
    return torch.fft.irfft(spectrum, length)[..., :columns]


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
