"""Finite differences: along the slices for the method's total variation, along all axes for the classical one."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import LinearOperator


class SliceDifference(LinearOperator):
    """D_z x = weight (x[k + 1] - x[k]), not periodic: (n, rows, columns) -> (n - 1, rows, columns).

    weight: pixel size / slice spacing, so that a threshold means the same slope for thin and for thick slices.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        weight: float = 1.0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        n, rows, columns = shape
        super().__init__(shape, (n - 1, rows, columns), device=torch.device(device), dtype=dtype)
        self.weight = float(weight)

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.domain, "x")
        return torch.sub(x[1:], x[:-1]).mul_(self.weight)

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.range, "y")
        out = y.new_zeros(self.domain) if y.shape[0] == 0 else _zeros_like_volume(y, self.domain)
        out[1:].add_(y, alpha=self.weight)
        out[:-1].sub_(y, alpha=self.weight)
        return out

    def gram(self, x: Tensor) -> Tensor:
        self._check(x, self.domain, "x")
        out = torch.zeros_like(x)
        step = torch.sub(x[1:], x[:-1]).mul_(self.weight**2)
        out[1:].add_(step)
        out[:-1].sub_(step)
        return out


def _zeros_like_volume(y: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros of ``shape`` in y's order of axes in memory, so that volumes keep one layout through a run."""
    if y.stride(0) == 1 and y.shape[0] > 1:
        return y.new_zeros((*shape[1:], shape[0])).permute(2, 0, 1)
    return y.new_zeros(shape)


class Gradient(LinearOperator):
    """(D_z, D_y, D_x) x stacked along a new first axis, each zero at the far end: (n, r, c) -> (3, n, r, c)."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(shape, (3, *shape), device=torch.device(device), dtype=dtype)
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.domain, "x")
        out = torch.empty((3, *x.shape[1:], x.shape[0]), dtype=x.dtype, device=x.device).permute(0, 3, 1, 2)
        for axis, weight in enumerate(self.weights):
            length = x.shape[axis]
            inner = out[axis].narrow(axis, 0, length - 1)
            torch.sub(x.narrow(axis, 1, length - 1), x.narrow(axis, 0, length - 1), out=inner)
            inner.mul_(weight)
            out[axis].narrow(axis, length - 1, 1).zero_()
        return out

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.range, "y")
        out = _zeros_like_volume(y[0], self.domain)
        for axis, weight in enumerate(self.weights):
            length = self.domain[axis]
            inner = y[axis].narrow(axis, 0, length - 1)
            out.narrow(axis, 1, length - 1).add_(inner, alpha=weight)
            out.narrow(axis, 0, length - 1).sub_(inner, alpha=weight)
        return out
