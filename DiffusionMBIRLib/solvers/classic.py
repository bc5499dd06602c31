"""Classical reconstructions: filtered back-projection, SIRT and isotropic total variation by ADMM."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InputError
from ..monitor import Monitor, Silent
from ..operators.base import LinearOperator
from ..operators.difference import Gradient
from ..operators.xray import XRayTransform
from .cg import conjugate_gradient


def angular_weights(angles_deg: tuple[float, ...]) -> Tensor:
    """The share in radians of the half circle that each view stands for: half the gap to each neighbour modulo 180.

    Gaps wider than three times the median (the missing wedge of a limited-angle scan) count as the median.
    """
    angle = torch.tensor(angles_deg, dtype=torch.float64).remainder(180.0)
    order = torch.argsort(angle)
    gaps = torch.diff(angle[order], append=angle[order][:1] + 180.0)
    gaps = torch.where(gaps > 3 * gaps.median(), gaps.median(), gaps)
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


def fbp(A: XRayTransform, y: Tensor, *, window: str = "ramp") -> Tensor:
    """Filtered back-projection of line integrals (slices, views, columns) to attenuation in 1/mm."""
    geometry, (dx, dy, _) = A.geometry, A.grid.spacing_mm
    weights = angular_weights(geometry.angles_deg).to(y.device, y.dtype)
    filtered = ramp_filter(y, geometry.pitch_mm, window) * weights[:, None]
    return A.adjoint(filtered) * (geometry.pitch_mm / (dx * dy))


def sirt(
    A: LinearOperator, y: Tensor, *, iterations: int = 200, floor: float | None = 0.0, monitor: Monitor | None = None
) -> Tensor:
    """Simultaneous iterative reconstruction (Gilbert 1972): x += C A^T R (y - A x), values kept above ``floor``."""
    monitor = monitor or Silent()
    ones = torch.ones(A.domain, dtype=y.dtype, device=y.device)
    rows, columns = A.forward(ones), A.adjoint(torch.ones_like(y))
    inverse_rows = torch.where(rows > 1e-6 * rows.max(), 1 / rows, 0.0)
    inverse_columns = torch.where(columns > 1e-6 * columns.max(), 1 / columns, 0.0)
    x = torch.zeros_like(columns)
    for k in range(iterations):
        x = x + A.adjoint((y - A.forward(x)) * inverse_rows) * inverse_columns
        x = x if floor is None else x.clamp_(min=floor)
        monitor.tick("SIRT", k + 1, iterations)
    return x


def admm_tv(
    A: LinearOperator,
    y: Tensor,
    *,
    lam: float,
    rho: float | None = None,
    sweeps: int = 100,
    cg_steps: int = 4,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    floor: float | None = 0.0,
    start: Tensor | None = None,
    monitor: Monitor | None = None,
) -> Tensor:
    """min over x >= floor of 1/2 |y - A x|^2 + lam |grad x|_{2,1}: isotropic total variation in 3D by ADMM.

    weights: of the differences along (slices, rows, columns), 1 / spacing up to a factor.  rho defaults to 20 lam.
    ``floor`` (None: unbounded) enters as a second split variable.
    """
    monitor = monitor or Silent()
    rho = 20 * lam if rho is None else rho
    gradient = Gradient(A.domain, weights=weights, device=y.device, dtype=y.dtype)
    x = torch.zeros_like(A.adjoint(y)) if start is None else start.clone()
    back_projection = A.adjoint(y)
    z, w = gradient.forward(x), torch.zeros_like(gradient.forward(x))
    bounded, v = x, torch.zeros_like(x)

    def system(p: Tensor) -> Tensor:
        out = A.gram(p).add_(gradient.adjoint(gradient.forward(p)), alpha=rho)
        return out if floor is None else out.add_(p, alpha=rho)

    for k in range(sweeps):
        rhs = back_projection + gradient.adjoint(z - w).mul_(rho)
        rhs = rhs if floor is None else rhs.add_(bounded - v, alpha=rho)
        x = conjugate_gradient(system, rhs, x, steps=cg_steps)
        shifted = gradient.forward(x).add_(w)
        length = torch.linalg.vector_norm(shifted, dim=0)
        z = shifted * (1 - (lam / rho) / length.clamp_min(1e-20)).clamp_min_(0)
        w = shifted.sub_(z)
        if floor is not None:
            lifted = x + v
            bounded = lifted.clamp(min=floor)
            v = lifted.sub_(bounded)
        monitor.tick("ADMM-TV", k + 1, sweeps)
    return x if floor is None else bounded
