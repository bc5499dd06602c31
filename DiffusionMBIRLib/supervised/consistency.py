"""The data-consistency update between two networks (Lahiri et al. 2023, arXiv 2201.09318)."""

from __future__ import annotations

from torch import Tensor

from ..operators.base import LinearOperator
from ..operators.space import slices_last
from ..solvers.cg import conjugate_gradient


def data_consistency(A: LinearOperator, y: Tensor, x: Tensor, *, penalty: float, steps: int) -> Tensor:
    """argmin over u of |A u - y|^2 + penalty |u - x|^2, by at most ``steps`` of conjugate gradient from x.

    A: scaled to norm 1.  x: what a network made of the data, (slices, rows, columns), left unchanged.
    """
    start = slices_last(x)
    rhs = A.adjoint(y).add(start, alpha=penalty)
    return conjugate_gradient(lambda u: A.gram(u).add_(u, alpha=penalty), rhs, start, steps=steps)
