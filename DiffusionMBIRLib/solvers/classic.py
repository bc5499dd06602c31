"""Classical reconstructions: filtered back-projection, SIRT and isotropic total variation by ADMM."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InputError
from ..monitor import Checkpoint, Monitor, NoCheckpoint, Silent
from ..operators.base import LinearOperator
from ..operators.difference import Gradient
from ..operators.stack import SliceProjector
from .cg import conjugate_gradient


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


def fbp(A: SliceProjector, y: Tensor, *, window: str = "ramp") -> Tensor:
    """Filtered back-projection of line integrals (slices, views, columns) to attenuation in 1/mm."""
    geometry, (dx, dy, _) = A.geometry, A.grid.spacing_mm
    weights = angular_weights(geometry.angles_deg).to(y.device, y.dtype)
    filtered = ramp_filter(y, geometry.pitch_mm, window) * weights[:, None]
    return A.adjoint(filtered) * (geometry.pitch_mm / (dx * dy))


def sirt(
    A: LinearOperator,
    y: Tensor,
    *,
    iterations: int = 200,
    floor: float | None = 0.0,
    monitor: Monitor | None = None,
    checkpoint: Checkpoint | None = None,
) -> Tensor:
    """Simultaneous iterative reconstruction (Gilbert 1972): x += C A^T R (y - A x) from zero, kept above ``floor``.

    A: non-negative.  R, C: one over the sums of its rows and columns.  y, result: of shape ``A.range``, ``A.domain``.
    """
    monitor, checkpoint = monitor or Silent(), checkpoint or NoCheckpoint()
    ones = torch.ones(A.domain, dtype=y.dtype, device=y.device)
    rows, columns = A.forward(ones), A.adjoint(torch.ones_like(y))
    inverse_rows = torch.where(rows > 1e-6 * rows.max(), 1 / rows, 0.0)
    inverse_columns = torch.where(columns > 1e-6 * columns.max(), 1 / columns, 0.0)
    kept = checkpoint.load("SIRT") or {"x": torch.zeros_like(columns), "done": 0}
    x = kept["x"]
    for k in range(int(kept["done"]), iterations):
        x = x + A.adjoint((y - A.forward(x)) * inverse_rows) * inverse_columns
        x = x if floor is None else x.clamp_(min=floor)
        checkpoint.save("SIRT", {"x": x, "done": torch.tensor(k + 1)})
        _watch(monitor, x, "SIRT", k + 1, iterations)
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
    checkpoint: Checkpoint | None = None,
) -> Tensor:
    """min over x >= floor of 1/2 |y - A x|^2 + lam |grad x|_{2,1}: isotropic total variation in 3D by ADMM.

    weights: of the differences along (slices, rows, columns), 1 / spacing up to a factor.  rho defaults to 20 lam.
    ``floor`` (None: unbounded) enters as a second split variable.  y, result: of shape ``A.range``, ``A.domain``.
    Complex volumes need ``floor`` None; the length of their gradient counts real and imaginary parts together.  Raises
    InputError for a negative lam or a rho that is not positive.
    """
    monitor, checkpoint = monitor or Silent(), checkpoint or NoCheckpoint()
    rho = (20 * lam or 1e-3) if rho is None else rho
    if lam < 0 or rho <= 0:
        raise InputError(f"admm_tv needs lam >= 0 and rho > 0, not lam {lam} and rho {rho}")
    slices, rows, columns = A.domain
    gradient = Gradient((slices, rows, columns), weights=weights, device=y.device, dtype=y.dtype)
    back_projection = A.adjoint(y)
    x = torch.zeros_like(back_projection) if start is None else start.clone()
    kept = checkpoint.load("ADMM-TV")
    if kept:
        x, split, w, bounded, v = (kept[name] for name in ("x", "split", "w", "bounded", "v"))
    else:
        split = gradient.forward(x)  # z - w, with w = 0 at the start
        w = torch.zeros_like(split)
        bounded, v = x, torch.zeros_like(x)

    def system(p: Tensor) -> Tensor:
        out = gradient.add_gram_to(A.gram(p), p, rho)
        return out if floor is None else out.add_(p, alpha=rho)

    for k in range(int(kept["done"]) if kept else 0, sweeps):
        rhs = gradient.adjoint(split).mul_(rho).add_(back_projection)
        rhs = rhs if floor is None else rhs.add_(bounded - v, alpha=rho)
        x = conjugate_gradient(system, rhs, x, steps=cg_steps)
        _shrink(gradient.add_to(w, x), split, lam / rho)
        if floor is not None:
            lifted = x + v
            bounded = lifted.clamp(min=floor)
            v = lifted.sub_(bounded)
        state = {"x": x, "split": split, "w": w, "bounded": bounded, "v": v, "done": torch.tensor(k + 1)}
        checkpoint.save("ADMM-TV", state)
        _watch(monitor, x if floor is None else bounded, "ADMM-TV", k + 1, sweeps)
    return x if floor is None else bounded


def _watch(monitor: Monitor, x: Tensor, stage: str, done: int, total: int) -> None:
    """Tell of an iteration that is over."""
    monitor.preview(lambda: x, done)
    monitor.tick(stage, done, total)


def _shrink(w: Tensor, split: Tensor, threshold: float) -> None:
    """From w + D x in ``w``: z = (w + D x) shortened by the threshold, w <- w + D x - z, split <- z - w, in place."""
    if w.is_complex():
        length = torch.view_as_real(w).square().sum((0, -1)).sqrt_()
    else:
        length = w[0].square().addcmul_(w[1], w[1]).addcmul_(w[2], w[2]).sqrt_()
    kept = (1 - threshold / length.clamp_min_(1e-20)).clamp_min_(0)
    torch.mul(w, 2 * kept - 1, out=split)
    w.mul_(1 - kept)
