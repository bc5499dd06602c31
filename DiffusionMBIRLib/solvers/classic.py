"""Classical iterative reconstructions: SIRT and isotropic total variation by ADMM."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..checkpoints import fitting, form_of
from ..errors import InputError
from ..monitor import Checkpoint, Monitor, NoCheckpoint, Silent
from ..operators.base import LinearOperator
from ..operators.difference import Gradient
from .cg import default_tolerance, descend
from .subsets import ordered_subsets


def sirt(
    A: LinearOperator,
    y: Tensor,
    *,
    iterations: int = 200,
    floor: float | Tensor | None = 0.0,
    ceiling: Tensor | None = None,
    monitor: Monitor | None = None,
    checkpoint: Checkpoint | None = None,
) -> Tensor:
    """Simultaneous iterative reconstruction (Gilbert 1972): x += C A^T R (y - A x) from zero, kept above ``floor``
    and below ``ceiling``.

    A: non-negative.  R, C: one over the sums of its rows and columns.  y, result: of shape ``A.range``, ``A.domain``.
    """
    return ordered_subsets(
        [(A, y)],
        passes=iterations,
        floor=floor,
        ceiling=ceiling,
        stage="SIRT",
        monitor=monitor,
        checkpoint=checkpoint,
    )


def admm_tv(
    A: LinearOperator,
    y: Tensor,
    *,
    lam: float,
    rho: float | None = None,
    sweeps: int = 100,
    cg_steps: int = 4,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    floor: float | Tensor | None = 0.0,
    ceiling: Tensor | None = None,
    start: Tensor | None = None,
    monitor: Monitor | None = None,
    checkpoint: Checkpoint | None = None,
) -> Tensor:
    """min over floor <= x <= ceiling of 1/2 |y - A x|^2 + lam |grad x|_{2,1}: isotropic total variation in 3D by ADMM.

    weights: of the differences along (slices, rows, columns), 1 / spacing up to a factor.  rho defaults to 20 lam.
    ``floor`` (None: unbounded; a number, or one for each voxel) and ``ceiling`` (of the domain's shape, only beside a
    floor) enter as a second split variable.  y, result: of shape ``A.range``, ``A.domain``.
    Complex volumes need ``floor`` None; the length of their gradient counts real and imaginary parts together.  Raises
    InputError for a negative lam or a rho that is not positive.

    Each split variable z and its scaled dual w follow from what they share, D x + w (:class:`_Gradients`) and x + v
    (:class:`_Bounds`), and that alone is kept: eight volumes in all at the peak, within conjugate gradient.
    """
    monitor, checkpoint = monitor or Silent(), checkpoint or NoCheckpoint()
    rho = (20 * lam or 1e-3) if rho is None else rho
    if lam < 0 or rho <= 0:
        raise InputError(f"admm_tv needs lam >= 0 and rho > 0, not lam {lam} and rho {rho}")
    gradient = Gradient(A.domain, weights=weights)
    back_projection = A.adjoint(y)
    least = A.domain.norm(back_projection) * default_tolerance(y.dtype)
    x = torch.zeros_like(back_projection) if start is None else start.clone()
    del back_projection
    kept = checkpoint.load("ADMM-TV") or {}
    if kept:
        forms = {"x": form_of(x), "slopes": (gradient.range.shape, x.dtype)}
        fitting(kept, forms if floor is None else {**forms, "lifted": form_of(x)}, sweeps)
    x, done = kept.get("x", x), int(kept.get("done", 0))
    slopes = _Gradients(gradient, lam / rho, kept["slopes"] if kept else gradient.forward(x))
    bounds = None if floor is None else _Bounds(floor, ceiling, kept["lifted"] if kept else x.clamp(min=floor))
    del kept

    def system(p: Tensor) -> Tensor:
        out = gradient.add_gram_to(A.gram(p), p, rho)
        return out if bounds is None else out.add_(p, alpha=rho)

    for k in range(done, sweeps):
        monitor.poll()
        residual = gradient.add_gram_to(A.gradient(x, y).neg_(), x, -rho)
        slopes.pull(residual, rho)
        if bounds is not None:
            bounds.pull(residual, x, rho)
        x = descend(system, residual, x, steps=cg_steps, floor=least, poll=monitor.poll, dot=A.domain.dot)
        del residual
        slopes.move(x)
        state = {"x": x, "slopes": slopes.shifted, "done": torch.tensor(k + 1)}
        if bounds is not None:
            bounds.move(x)
            state["lifted"] = bounds.lifted
        checkpoint.save("ADMM-TV", state)
        monitor.preview(partial(_estimate, x, bounds), k + 1)
        monitor.tick("ADMM-TV", k + 1, sweeps)
    return _estimate(x, bounds)


class _Gradients:
    """The split variable z of the gradients and its scaled dual w, both from their sum ``shifted`` = D x + w.

    z = shifted (1 - threshold / |shifted|), or 0 where that is negative; w = shifted - z.
    """

    def __init__(self, gradient: Gradient, threshold: float, shifted: Tensor) -> None:
        self._gradient, self._threshold, self.shifted = gradient, threshold, shifted

    def pull(self, residual: Tensor, rho: float) -> None:
        """residual += rho D^T (z - w); leaves w in the place of the sum."""
        share = _length(self.shifted).clamp_min_(1e-20).reciprocal_().mul_(-self._threshold).add_(1).clamp_min_(0)
        self._gradient.add_adjoint_of_product_to(residual, share.mul_(2).sub_(1), self.shifted, rho)
        self.shifted.mul_(share.sub_(1).mul_(-0.5))

    def move(self, x: Tensor) -> None:
        """The sum for a new x, after :meth:`pull`."""
        self._gradient.add_to(self.shifted, x)


class _Bounds:
    """The split variable of floor <= x <= ceiling and its scaled dual v, both from their sum ``lifted`` = x + v.

    Without a ceiling they are max(lifted, floor) and min(lifted - floor, 0), whose difference is
    floor + |lifted - floor|.
    """

    def __init__(self, floor: float | Tensor, ceiling: Tensor | None, lifted: Tensor) -> None:
        self._floor, self._ceiling, self.lifted = floor, ceiling, lifted

    def pull(self, residual: Tensor, x: Tensor, rho: float) -> None:
        """residual += rho (split variable - v - x); leaves v in the place of the sum."""
        if self._ceiling is not None:
            inside = self.split()
            self.lifted.sub_(inside)
            residual.add_(inside.sub_(self.lifted).sub_(x), alpha=rho)
            return
        beyond = self.lifted.sub_(self._floor)
        residual.add_(beyond.abs().sub_(x).add_(self._floor), alpha=rho)
        beyond.clamp_(max=0)

    def move(self, x: Tensor) -> None:
        """The sum for a new x, after :meth:`pull`."""
        self.lifted.add_(x)

    def split(self) -> Tensor:
        """The variable that obeys the bounds."""
        within = self.lifted.clamp(min=self._floor)
        return within if self._ceiling is None else torch.minimum(within, self._ceiling, out=within)


def _estimate(x: Tensor, bounds: _Bounds | None) -> Tensor:
    return x if bounds is None else bounds.split()


def _length(vectors: Tensor) -> Tensor:
    """Euclidean length of vectors along the first axis, of complex ones of both their parts."""
    if vectors.is_complex():
        return torch.view_as_real(vectors).square().sum((0, -1)).sqrt_()
    return vectors[0].square().addcmul_(vectors[1], vectors[1]).addcmul_(vectors[2], vectors[2]).sqrt_()
