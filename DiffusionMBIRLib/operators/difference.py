"""Finite differences: along the slices for the method's total variation, along all axes for the classical one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .base import LinearOperator
from .slabs import Slabs
from .space import Space


class SliceDifference(LinearOperator):
    """D_z x = weight (x[k + 1] - x[k]), not periodic: (n, rows, columns) -> (n - 1, rows, columns).

    weight: pixel size / slice spacing, so that a threshold means the same slope for thin and for thick slices.
    A slab of a volume holds the difference between its last slice and the next slab's first one as well, so that it
    has n differences unless it is the last.
    """

    def __init__(
        self,
        volumes: Space,
        *,
        weight: float = 1.0,
    ) -> None:
        n, rows, columns = volumes.shape
        held = min(n, volumes.slices - 1 - volumes.first_slice)
        super().__init__(volumes, replace(volumes, shape=(held, rows, columns)))
        self.weight = float(weight)

    def forward(self, x: Tensor) -> Tensor:
        self.domain.check(x, "x")
        out, inner = self.range.empty(), len(x) - 1
        torch.sub(x[1:], x[:-1], out=out[:inner])
        _, ahead = self.domain.slabs.beside(x[0], x[-1])
        if ahead is not None:
            torch.sub(ahead, x[-1], out=out[-1])
        return out.mul_(self.weight)

    def adjoint(self, y: Tensor) -> Tensor:
        self.range.check(y, "y")
        return self.add_adjoint_to(self.domain.zeros(), y)

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """y += D x in y's own memory.  Returns y."""
        return _add_differences(y, x, 0, self.weight, self.domain.slabs)

    def add_adjoint_to(self, out: Tensor, y: Tensor, factor: float = 1.0) -> Tensor:
        """out += factor D^T y in out's own memory.  Returns out."""
        return _add_adjoint(out, y, 0, factor * self.weight, self.domain.slabs)

    def gram(self, x: Tensor) -> Tensor:
        self.domain.check(x, "x")
        return self.add_gram_to(torch.zeros_like(x), x)

    def add_gram_to(self, out: Tensor, x: Tensor, factor: float = 1.0) -> Tensor:
        """out += factor D^T D x in out's own memory.  Returns out."""
        return _add_gram(out, x, (self.weight,), factor, self.domain.slabs)


def _add_differences(y: Tensor, x: Tensor, axis: int, weight: float, slabs: Slabs) -> Tensor:
    """y += weight times the differences of x along an axis, in place.  Returns y."""
    last = x.shape[axis] - 1
    inner = y.narrow(axis, 0, last)
    inner.add_(x.narrow(axis, 1, last), alpha=weight).sub_(x.narrow(axis, 0, last), alpha=weight)
    ahead = slabs.beside(x[0], x[-1])[1] if axis == 0 else None
    if ahead is not None:
        y[-1].add_(ahead, alpha=weight).sub_(x[-1], alpha=weight)
    return y


def _add_adjoint(out: Tensor, y: Tensor, axis: int, weight: float, slabs: Slabs) -> Tensor:
    """out += weight times the transpose of the differences along an axis, in place.  Returns out."""
    last = out.shape[axis] - 1
    inner = y.narrow(axis, 0, last)
    out.narrow(axis, 1, last).add_(inner, alpha=weight)
    out.narrow(axis, 0, last).sub_(inner, alpha=weight)
    if axis == 0 and slabs.size > 1:
        _add_ends(out, y[-1] if len(y) > last else None, weight, slabs)
    return out


def _add_ends(out: Tensor, end: Tensor | None, weight: float, slabs: Slabs) -> None:
    """What differences between two slabs add to both.  end: that of the last slice here; None for the last slab."""
    before, _ = slabs.beside(out[0], out[0] if end is None else end)
    if before is not None:
        out[0].add_(before, alpha=weight)
    if end is not None and slabs.rank + 1 < slabs.size:
        out[-1].sub_(end, alpha=weight)


def _add_gram(out: Tensor, x: Tensor, weights: tuple[float, ...], factor: float, slabs: Slabs) -> Tensor:
    """out += factor D^T D x for differences along the leading axes, in place: a quarter of the time of D, then D^T."""
    extents = [slabs.in_all(n) if axis == 0 else n for axis, n in enumerate(x.shape)]
    squares = [0.0 if extents[axis] == 1 else factor * weight**2 for axis, weight in enumerate(weights)]
    out.add_(x, alpha=2 * sum(squares))
    for axis, square in enumerate(squares):
        if extents[axis] == 1:
            continue
        last = x.shape[axis] - 1
        out.narrow(axis, 1, last).sub_(x.narrow(axis, 0, last), alpha=square)
        out.narrow(axis, 0, last).sub_(x.narrow(axis, 1, last), alpha=square)
        beyond = slabs.beside(x[0], x[-1]) if axis == 0 else (None, None)
        for end, other in zip((0, last), beyond, strict=True):  # an end of the whole has one neighbour only
            out.select(axis, end).sub_(x.select(axis, end) if other is None else other, alpha=square)
    return out


class Gradient(LinearOperator):
    """(D_z, D_y, D_x) x stacked along a new first axis, each zero at the far end of the whole volume:
    (n, r, c) -> (3, n, r, c).
    """

    def __init__(
        self,
        volumes: Space,
        *,
        weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__(volumes, replace(volumes, shape=(3, *volumes.shape), slices_last=False))
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        self.domain.check(x, "x")
        return self.add_to(self.zeros(), x)

    def zeros(self) -> Tensor:
        """Of the range, each of the three volumes in the order in memory of the domain."""
        slices, rows, columns = self.domain.shape
        if self.domain.slices_last:
            memory = torch.zeros((3, rows, columns, slices), dtype=self.dtype, device=self.device)
            return memory.permute(0, 3, 1, 2)
        return self.range.zeros()

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """y += D x in y's own memory: three volumes are slow to allocate at each step of a solver.  Returns y."""
        for axis, weight in enumerate(self.weights):
            _add_differences(y[axis], x, axis, weight, self.domain.slabs)
        return y

    def adjoint(self, y: Tensor) -> Tensor:
        self.range.check(y, "y")
        return self.add_adjoint_to(self.domain.zeros(), y)

    def add_adjoint_to(self, out: Tensor, y: Tensor, factor: float = 1.0) -> Tensor:
        """out += factor D^T y in out's own memory.  Returns out."""
        for axis, weight in enumerate(self.weights):
            _add_adjoint(out, y[axis], axis, factor * weight, self.domain.slabs)
        return out

    def add_adjoint_of_product_to(self, out: Tensor, share: Tensor, y: Tensor, factor: float = 1.0) -> Tensor:
        """out += factor D^T (share y) in out's own memory, without the three volumes share y.  Returns out.

        share: a real volume, by which all three differences of a voxel are multiplied.
        """
        into, y = (torch.view_as_real(out), torch.view_as_real(y)) if out.is_complex() else (out, y)
        share = share[..., None] if out.is_complex() else share
        for axis, weight in enumerate(self.weights):
            length = self.domain.shape[axis] - 1
            shares, inner = share.narrow(axis, 0, length), y[axis].narrow(axis, 0, length)
            into.narrow(axis, 1, length).addcmul_(shares, inner, value=factor * weight)
            into.narrow(axis, 0, length).addcmul_(shares, inner, value=-factor * weight)
        if self.domain.slabs.size > 1:
            _add_ends(into, y[0][-1] * share[-1], factor * self.weights[0], self.domain.slabs)
        return out

    def gram(self, x: Tensor) -> Tensor:
        self.domain.check(x, "x")
        return self.add_gram_to(torch.zeros_like(x), x)

    def add_gram_to(self, out: Tensor, x: Tensor, factor: float = 1.0) -> Tensor:
        """out += factor D^T D x in out's own memory.  Returns out."""
        return _add_gram(out, x, self.weights, factor, self.domain.slabs)
