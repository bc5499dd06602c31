"""Pieces of the published solvers where they depart from their papers, for results that follow the code to the letter.

Chung et al. 2023 (arXiv 2211.10655; code of March 2023) and DDS (arXiv 2303.05754; code of September 2024).  Scaling A
to norm 1 changes nothing here: the x of every step stays the same when A^T A, rho and lam are all scaled by one factor.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..operators.base import LinearOperator
from ..operators.difference import SliceDifference
from ..operators.space import Space, dot
from .cg import Dot


class PeriodicDifference(SliceDifference):
    """D_z x = x[k + 1] - x[k], where the slice after the last one is the first: (n, rows, columns) -> same."""

    def __init__(
        self,
        volumes: Space,
    ) -> None:
        super().__init__(volumes)
        self.range = self.domain

    def forward(self, x: Tensor) -> Tensor:
        self.domain.check(x, "x")
        return x.roll(-1, 0).sub_(x)

    def adjoint(self, y: Tensor) -> Tensor:
        self.range.check(y, "y")
        return y.roll(1, 0).sub_(y)

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """y += D x in y's own memory.  Returns y."""
        return y.add_(x.roll(-1, 0)).sub_(x)

    def add_adjoint_to(self, out: Tensor, y: Tensor, factor: float = 1.0) -> Tensor:
        """out += factor D^T y in out's own memory.  Returns out."""
        return out.add_(y.roll(1, 0), alpha=factor).sub_(y, alpha=factor)

    def add_gram_to(self, out: Tensor, x: Tensor, factor: float = 1.0) -> Tensor:
        """out += factor D^T D x in out's own memory.  Returns out."""
        out.add_(x, alpha=2 * factor)
        return out.sub_(x.roll(1, 0), alpha=factor).sub_(x.roll(-1, 0), alpha=factor)


def aliased_conjugate_gradient(gram: Callable[[Tensor], Tensor], rhs: Tensor, x: Tensor, *, steps: int) -> Tensor:
    """Conjugate gradient with a fault: the first direction and the residual are one tensor, and change together.

    So the second direction is (1 + beta) times the new residual, and the steps that follow are not conjugate to the
    first.  One step is that of true conjugate gradient.
    """
    return aliased_descend(gram, rhs - gram(x), x.clone(), steps=steps)


def aliased_descend(
    gram: Callable[[Tensor], Tensor],
    residual: Tensor,
    x: Tensor,
    *,
    steps: int,
    floor: Tensor | float = 0.0,
    poll: Callable[[], None] = lambda: None,
    dot: Dot = dot,
) -> Tensor:
    """The steps of :func:`aliased_conjugate_gradient` for a residual that is known, in place; ``floor`` and ``dot`` are
    not used.
    """
    direction = residual
    energy = _inner(residual, residual)
    for _ in range(steps):
        poll()
        image = gram(direction)
        # Where the published code leaves the loop, x stays instead: to ask on the host would hold up the device.
        done = energy < 1e-20
        alpha = torch.where(done, 0.0, energy / _inner(direction, image))
        x.addcmul_(direction, alpha)
        residual.addcmul_(image, -alpha)  # in the first step, the direction as well
        last, energy = energy, _inner(residual, residual)
        direction = residual + torch.where(done, 0.0, energy / last) * direction
    return x


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """The real part of the inner product."""
    return (a.conj() * b).real.sum()


def final_step(A: LinearOperator, y: Tensor, x: Tensor) -> Tensor:
    """x + A^T (y - A x) / (A^T A 1): what the CT code ends on.  Pixels that no ray meets stay."""
    reach = A.gram(torch.ones_like(x))
    return x + torch.where(reach > 1e-6 * reach.max(), A.adjoint(y - A.forward(x)) / reach, 0.0)
