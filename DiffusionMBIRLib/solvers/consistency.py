"""The data-consistency step of the method: ADMM with total variation along the slices (Chung et al. 2023, section 3.2).

min over x of 1/2 |y - A x|^2 + lam |D_z x|_1

x <- K steps of CG on (A^T A + rho D_z^T D_z) x = A^T y + rho D_z^T (z - w), from the current x
z <- soft(D_z x + w, lam / rho)
w <- w + D_z x - z

Volumes may be complex; |.|_1 then sums magnitudes, and soft shortens them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoints import Form, form_of
from ..operators.base import LinearOperator
from ..operators.difference import Gradient, SliceDifference
from .cg import default_tolerance, descend
from .recycled import RecycledGradient


class DataFit(ABC):
    """What data steps share: the data, the gradient of their misfit, the residual and the variable that lives on.

    shifted: D_z x + w of the last sweep, from which z and w follow; None before the first one.  misfit: the residual
    when it was last looked at.
    """

    misfit: float | None = None

    def __init__(self, A: LinearOperator, y: Tensor) -> None:
        self.A, self.y = A, y
        self.gradient = A.gradients(y)
        self._size = A.range.norm(y)
        self.reset()

    def reset(self) -> None:
        """Forget what earlier steps left."""
        self.shifted: Tensor | None = None

    def state(self) -> dict[str, Tensor]:
        """What earlier steps left, for a run that is taken up again."""
        return {} if self.shifted is None else {"shifted": self.shifted}

    def forms(self, x: Tensor) -> dict[str, Form]:
        """What :meth:`state` tells after a step on x: shape and dtype by name."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` told."""
        self.shifted = state.get("shifted")

    @abstractmethod
    def __call__(self, x: Tensor, sigma: float | None = None) -> Tensor:
        """x: (slices, rows, columns) in the scale of A and y; sigma: the present noise level, where it is known.

        Returns the updated volume.
        """

    def residual(self, x: Tensor) -> float:
        """|A x - y| / |y|."""
        return float(self.A.distance(x, self.y) / self._size)


class ZTVConsistency(DataFit):
    """One or more ADMM sweeps from a given volume.

    The split variable z and the scaled dual w live as long as the object: shared across diffusion steps, as in the
    paper's Algorithm 1.  :meth:`reset` starts them at zero again, as Algorithm 2 does at each step.  lam = 0 switches
    total variation off: plain conjugate gradient on the data term.  Both follow from D_z x + w, the one volume that is
    kept: z = soft(D_z x + w, lam / rho), w = D_z x + w - z.

    solver: what takes the steps, with the arguments of :func:`.cg.descend`.  poll: called before each step of it; may
    wait, or raise to end the run.

    noise, in units of x: with noise in the data, a step at noise level sigma also minimises
    1/2 (noise / sigma)^2 |x - x0|^2 for the volume x0 that it is given.  At high levels the data decide; as sigma
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
        noise: float = 0.0,
        solver: Callable[..., Tensor] = descend,
        poll: Callable[[], None] = lambda: None,
    ) -> None:
        self._solve, self._poll = solver, poll
        super().__init__(A, y)
        self.D = difference
        self.rho, self.lam, self.cg_steps, self.sweeps = rho, lam, cg_steps, sweeps
        self.noise = noise
        self._coupled = lam > 0 and rho > 0 and A.domain.slices > 1
        self._floor = A.domain.norm(A.adjoint(y)) * default_tolerance(A.dtype)

    def reset(self) -> None:
        super().reset()
        self._pull = 0.0
        if isinstance(self._solve, RecycledGradient):
            self._solve.reset()

    def state(self) -> dict[str, Tensor]:
        if not isinstance(self._solve, RecycledGradient):
            return super().state()
        pull = torch.tensor(self._pull, dtype=torch.float64)
        return super().state() | self._solve.state() | {"pull": pull}

    def forms(self, x: Tensor) -> dict[str, Form]:
        forms: dict[str, Form] = {"shifted": (self.D.range.shape, x.dtype)} if self._coupled else {}
        if isinstance(self._solve, RecycledGradient):
            forms |= {"moved": form_of(x), "image": form_of(x), "pull": ((), torch.float64)}
        return forms

    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        if isinstance(self._solve, RecycledGradient):
            self._solve.restore(state)
            self._pull = float(state.get("pull", 0.0))

    @property
    def z(self) -> Tensor | None:
        """The split variable, None before the first sweep."""
        return None if self.shifted is None else soft(self.shifted, self.lam / self.rho)

    @property
    def w(self) -> Tensor | None:
        """The scaled dual variable, None before the first sweep."""
        return None if self.shifted is None else clip_(self.shifted.clone(), self.lam / self.rho)

    def __call__(self, x: Tensor, sigma: float | None = None) -> Tensor:
        """x: (slices, rows, columns) in the scale of A and y; sigma: the present noise level, for the noise.

        Returns the updated volume.
        """
        pull = (self.noise / sigma) ** 2 if sigma else 0.0
        if pull != self._pull and isinstance(self._solve, RecycledGradient):
            self._solve.shift(pull - self._pull)
        if isinstance(self._solve, RecycledGradient):
            self._solve.at(pull)
        self._pull, first = pull, x
        for _ in range(self.sweeps):
            residual = self._residual(x, first, pull)
            x = x.clone() if x is first and not isinstance(self._solve, RecycledGradient) else x
            system = partial(self._system, pull=pull)
            how = {"steps": self.cg_steps, "floor": self._floor, "poll": self._poll, "dot": self.A.domain.dot}
            x = self._solve(system, residual, x, **how)
            del residual
            if self._coupled:
                self._move_duals(x)
        return x

    def _system(self, x: Tensor, pull: float = 0.0) -> Tensor:
        out = self.A.gram(x)
        out = self.D.add_gram_to(out, x, self.rho) if self._coupled else out
        return out.add_(x, alpha=pull) if pull else out

    def _residual(self, x: Tensor, first: Tensor, pull: float) -> Tensor:
        """A^T y + rho D_z^T (z - w) + pull x0, with x0 as the step was given it, less the system's image of x."""
        residual = self.gradient(x).neg_()
        if self._coupled:
            self.D.add_gram_to(residual, x, -self.rho)
        if pull and x is not first:
            residual.add_(first, alpha=pull).sub_(x, alpha=pull)
        if self.shifted is not None:
            split = soft(self.shifted, self.lam / self.rho).mul_(2).sub_(self.shifted)  # z - w
            self.D.add_adjoint_to(residual, split, self.rho)
        return residual

    def _move_duals(self, x: Tensor) -> None:
        """D_z x + w for the new x, with the w that D_z x + w of the last one leaves."""
        if self.shifted is None:
            self.shifted = self.D.forward(x)
        else:
            self.shifted = self.D.add_to(clip_(self.shifted, self.lam / self.rho), x)


def soft(x: Tensor, threshold: float) -> Tensor:
    """Every entry with its magnitude lowered by ``threshold``, but not below zero."""
    if not x.is_complex():
        return F.softshrink(x, threshold)
    length = x.abs()
    return x * (1 - threshold / length.clamp_min_(1e-20)).clamp_min_(0)


def clip_(x: Tensor, threshold: float) -> Tensor:
    """What :func:`soft` takes away: every entry with a magnitude of ``threshold`` at most, in place.  Returns x."""
    if not x.is_complex():
        return x.clamp_(-threshold, threshold)
    return x.mul_((threshold / x.abs().clamp_min_(1e-20)).clamp_max_(1))
