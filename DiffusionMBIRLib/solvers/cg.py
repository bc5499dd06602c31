"""Conjugate gradient for symmetric, or Hermitian, positive semi-definite systems."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradient(
    gram: Callable[[Tensor], Tensor], rhs: Tensor, x: Tensor, *, steps: int, tolerance: float | None = None
) -> Tensor:
    """A few steps of conjugate gradient on gram(x) = rhs from the given x, which is left unchanged.

    gram: a symmetric (complex: Hermitian) positive semi-definite map of tensors of rhs's shape.  x stays where it is
    once the residual has fallen by ``tolerance`` against |rhs|: on a singular system further steps would only amplify
    rounding, and Fourier transforms, which complex volumes go through, round more coarsely than sums do (default 30
    units of rounding, of real volumes 1e-7).  Scalars stay on the device, so that no step waits for the host.
    Hestenes and Stiefel 1952.
    """
    if tolerance is None:
        tolerance = 30 * torch.finfo(rhs.dtype).eps if rhs.is_complex() else 1e-7
    residual = rhs - gram(x)
    x, direction = x.clone(), residual.clone()
    floor = (tolerance * torch.linalg.vector_norm(rhs)).square()
    energy = _dot(residual, residual)
    for k in range(steps):
        image = gram(direction)
        curvature = _dot(direction, image)
        # A converged or flat direction gets step 0 instead of 0 / 0.
        going = (energy > floor) & (curvature > 0)
        alpha = torch.where(going, energy / curvature.clamp_min(torch.finfo(rhs.dtype).tiny), 0.0)
        x.addcmul_(direction, alpha)
        if k + 1 == steps:
            break
        residual.addcmul_(image, -alpha)
        last, energy = energy, _dot(residual, residual)
        beta = torch.where(going, energy / last.clamp_min(torch.finfo(rhs.dtype).tiny), 0.0)
        direction.mul_(beta).add_(residual)
    return x


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Real inner product of two volumes of any, but equal, memory order, without copying them.

    Of complex ones the real part, which is all of it wherever conjugate gradient asks.
    """
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    if a.ndim == 3 and a.stride() == b.stride():
        a, b = a.permute(1, 2, 0), b.permute(1, 2, 0)
    return torch.dot(a.reshape(-1), b.reshape(-1))
