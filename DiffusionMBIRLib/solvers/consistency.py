"""The data-consistency step of the method: ADMM with total variation along the slices (Chung et al. 2023, section 3.2).

min over x of 1/2 |y - A x|^2 + lam |D_z x|_1

x <- K steps of CG on (A^T A + rho D_z^T D_z) x = A^T y + rho D_z^T (z - w), from the current x
z <- soft(D_z x + w, lam / rho)
w <- w + D_z x - z
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..operators.base import LinearOperator
from ..operators.difference import SliceDifference
from .cg import conjugate_gradient


class ZTVConsistency:
    """One or more ADMM sweeps from a given volume.

    The split variable z and the scaled dual w live as long as the object: shared across diffusion steps, as in the
    paper's Algorithm 1.  :meth:`reset` starts them at zero again, as Algorithm 2 does at each step.  lam = 0 switches
    total variation off: plain conjugate gradient on the data term.  solver: conjugate gradient, or a stand-in.
    """

    def __init__(
        self,
        A: LinearOperator,
        y: Tensor,
        *,
        difference: SliceDifference,
        rho: float,
        lam: float,
        cg_steps: int,
        sweeps: int = 1,
        solver: Callable[..., Tensor] = conjugate_gradient,
    ) -> None:
        self.A, self.y, self.D = A, y, difference
        self.rho, self.lam, self.cg_steps, self.sweeps = rho, lam, cg_steps, sweeps
        self._solve = solver
        self._back_projection = A.adjoint(y)
        self._coupled = lam > 0 and rho > 0 and A.domain[0] > 1
        self.reset()

    def reset(self) -> None:
        """Forget z and w."""
        self.z: Tensor | None = None
        self.w: Tensor | None = None

    def _system(self, x: Tensor) -> Tensor:
        out = self.A.gram(x)
        return self.D.add_gram_to(out, x, self.rho) if self._coupled else out

    def __call__(self, x: Tensor) -> Tensor:
        """x: (slices, rows, columns) in the scale of A and y.  Returns the updated volume."""
        for _ in range(self.sweeps):
            rhs = self._back_projection
            if self.z is not None and self.w is not None:
                rhs = rhs + self.D.adjoint(self.z - self.w).mul_(self.rho)
            x = self._solve(self._system, rhs, x, steps=self.cg_steps)
            if self._coupled:
                shifted = self.D.forward(x)
                shifted = shifted if self.w is None else shifted.add_(self.w)
                self.z = F.softshrink(shifted, self.lam / self.rho)
                self.w = shifted.sub_(self.z)
        return x

    def residual(self, x: Tensor) -> float:
        """|A x - y| / |y|."""
        return float(torch.linalg.vector_norm(self.A.forward(x) - self.y) / torch.linalg.vector_norm(self.y))
