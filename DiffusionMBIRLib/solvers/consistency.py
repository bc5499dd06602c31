"""The data-consistency step of the method: ADMM with total variation along the slices (Chung et al. 2023, section 3.2).

min over x of 1/2 |y - A x|^2 + lam |D_z x|_1

x <- K steps of CG on (A^T A + rho D_z^T D_z) x = A^T y + rho D_z^T (z - w), from the current x
z <- soft(D_z x + w, lam / rho)
w <- w + D_z x - z

Volumes may be complex; |.|_1 then sums magnitudes, and soft shortens them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..operators.base import LinearOperator
from ..operators.difference import Gradient, SliceDifference
from .cg import conjugate_gradient


class DataFit:
    """What consistency steps share: the data, their back-projection, the residual and the variables that live on."""

    def __init__(self, A: LinearOperator, y: Tensor) -> None:
        self.A, self.y = A, y
        self.back_projection = A.adjoint(y)
        self._size = torch.linalg.vector_norm(torch.view_as_real(y) if y.is_complex() else y)
        self.reset()

    def reset(self) -> None:
        """Forget what earlier steps left: z and w."""
        self.z: Tensor | None = None
        self.w: Tensor | None = None

    def residual(self, x: Tensor) -> float:
        """|A x - y| / |y|."""
        return float(self.A.distance(x, self.y) / self._size)


class ZTVConsistency(DataFit):
    """One or more ADMM sweeps from a given volume.

    The split variable z and the scaled dual w live as long as the object: shared across diffusion steps, as in the
    paper's Algorithm 1.  :meth:`reset` starts them at zero again, as Algorithm 2 does at each step.  lam = 0 switches
    total variation off: plain conjugate gradient on the data term.  solver: conjugate gradient, or a stand-in.

    softening, in units of x: with noise in the data, a step at noise level sigma also minimises
    1/2 (softening / sigma)^2 |x - x0|^2 for the volume x0 that it is given.  At high levels the data decide; as sigma
    falls below their noise the prior does (the proximal step of Zhu et al. 2023, arXiv 2305.08995).
    """

    def __init__(
        self,
        A: LinearOperator,
        y: Tensor,
        *,
        difference: SliceDifference | Gradient,
        rho: float,
        lam: float,
        cg_steps: int,
        sweeps: int = 1,
        softening: float = 0.0,
        solver: Callable[..., Tensor] = conjugate_gradient,
    ) -> None:
        super().__init__(A, y)
        self.D = difference
        self.rho, self.lam, self.cg_steps, self.sweeps = rho, lam, cg_steps, sweeps
        self.softening = softening
        self._solve = solver
        self._coupled = lam > 0 and rho > 0 and A.domain[0] > 1

    def _system(self, x: Tensor, pull: float = 0.0) -> Tensor:
        out = self.A.gram(x)
        out = self.D.add_gram_to(out, x, self.rho) if self._coupled else out
        return out.add_(x, alpha=pull) if pull else out

    def __call__(self, x: Tensor, sigma: float | None = None) -> Tensor:
        """x: (slices, rows, columns) in the scale of A and y; sigma: the present noise level, for the softening.

        Returns the updated volume.
        """
        pull = (self.softening / sigma) ** 2 if sigma else 0.0
        fixed = torch.add(self.back_projection, x, alpha=pull) if pull else self.back_projection
        for _ in range(self.sweeps):
            rhs = fixed
            if self.z is not None and self.w is not None:
                rhs = rhs + self.D.adjoint(self.z - self.w).mul_(self.rho)
            x = self._solve(lambda p: self._system(p, pull), rhs, x, steps=self.cg_steps)
            if self._coupled:
                shifted = self.D.forward(x)
                shifted = shifted if self.w is None else shifted.add_(self.w)
                self.z = soft(shifted, self.lam / self.rho)
                self.w = shifted.sub_(self.z)
        return x


def soft(x: Tensor, threshold: float) -> Tensor:
    """Every entry with its magnitude lowered by ``threshold``, but not below zero."""
    if not x.is_complex():
        return F.softshrink(x, threshold)
    length = x.abs()
    return x * (1 - threshold / length.clamp_min_(1e-20)).clamp_min_(0)
