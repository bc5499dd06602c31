"""Conjugate gradient for symmetric, or Hermitian, positive semi-definite systems."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..operators.space import dot

Dot = Callable[[Tensor, Tensor], Tensor]  # real inner product of two volumes, a number on the device


def conjugate_gradient(
    gram: Callable[[Tensor], Tensor],
    rhs: Tensor,
    x: Tensor,
    *,
    steps: int,
    tolerance: float | None = None,
    dot: Dot = dot,
) -> Tensor:
    """A few steps of conjugate gradient on gram(x) = rhs from the given x, which is left unchanged.

    gram: a symmetric (complex: Hermitian) positive semi-definite map of tensors of rhs's shape.  x stays where it is
    once the residual has fallen by ``tolerance`` against |rhs|: on a singular system further steps would only amplify
    rounding (default 30 units of rounding for complex volumes, 1e-7 for real ones).  dot: of a space that holds a slab
    of the volume, over all of it.  Scalars stay on the device, so that no step waits for the host.
    Hestenes and Stiefel 1952.
    """
    if tolerance is None:
        tolerance = default_tolerance(rhs.dtype)
    floor = tolerance * dot(rhs, rhs).sqrt()
    return descend(gram, rhs - gram(x), x.clone(), steps=steps, floor=floor, dot=dot)


def default_tolerance(dtype: torch.dtype) -> float:
    """By how much a residual may fall before rounding rules: Fourier transforms, which complex volumes go through,
    round more coarsely than sums do.
    """
    return 30 * torch.finfo(dtype).eps if dtype.is_complex else 1e-7


def descend(
    gram: Callable[[Tensor], Tensor],
    residual: Tensor,
    x: Tensor,
    *,
    steps: int,
    floor: Tensor | float = 0.0,
    poll: Callable[[], None] = lambda: None,
    dot: Dot = dot,
) -> Tensor:
    """The steps of :func:`conjugate_gradient` for a residual that is known, in place: x is improved and returned, the
    memory of the residual, right-hand side - gram(x), is used up.

    floor: x stays where it is once the residual is no longer than this.  poll: called before each step; may raise.
    dot: as above.
    """
    tiny = torch.finfo(residual.dtype).tiny
    floor = floor * floor
    direction = residual.clone()
    energy = dot(residual, residual)
    for k in range(steps):
        poll()
        image = gram(direction)
        curvature = dot(direction, image)
        # A converged or flat direction gets step 0 instead of 0 / 0.
        going = (energy > floor) & (curvature > 0)
        alpha = torch.where(going, energy / curvature.clamp_min(tiny), 0.0)
        x.addcmul_(direction, alpha)
        if k + 1 == steps:
            break
        residual.addcmul_(image, -alpha)
        del image  # its memory is that of the next one
        last, energy = energy, dot(residual, residual)
        beta = torch.where(going, energy / last.clamp_min(tiny), 0.0)
        direction.mul_(beta).add_(residual)
    return x
