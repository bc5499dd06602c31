"""The contract of a linear operator and the small algebra that reconstruction needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..errors import InputError


class LinearOperator(ABC):
    """A linear map between two spaces of tensors, both real or both complex.

    domain, range: shapes of the two spaces.  ``adjoint`` is the exact (conjugate) transpose of ``forward``; an optional
    back end that cannot keep this says so by ``exact_adjoint``.
    """

    exact_adjoint: bool = True

    def __init__(
        self, domain: tuple[int, ...], range: tuple[int, ...], *, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.domain, self.range = tuple(domain), tuple(range)
        # 'cuda' stands for one device with a number, which is what tensors on it report.
        self.device, self.dtype = torch.empty(0, device=device).device, dtype

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x for x of shape ``domain``."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y for y of shape ``range``."""

    def gram(self, x: Tensor) -> Tensor:
        """A^T A x."""
        return self.adjoint(self.forward(x))

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """A^T (y - A x), along which 1/2 |A x - y|^2 falls most steeply."""
        return self.adjoint(self.forward(x).sub_(y).neg_())

    def slopes(self, y: Tensor) -> Callable[[Tensor], Tensor]:
        """x -> A^T (y - A x), for one y and many x; always a new tensor."""
        return partial(self.slope, y=y)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """|A x - y|, on the device."""
        return torch.linalg.vector_norm(self.forward(x).sub_(y))

    @property
    def H(self) -> LinearOperator:
        """A^T, by the name that the field gives to the adjoint."""
        return Adjoint(self)

    def __matmul__(self, x: Tensor) -> Tensor:
        return self.forward(x)

    def scaled(self, factor: float) -> LinearOperator:
        """factor A."""
        return Scaled(self, factor)

    def norm(self, *, tolerance: float = 1e-5, most: int = 300) -> float:
        """The largest singular value, by Lanczos iteration on A^T A from a fixed random start (Lanczos 1950).

        Stops when the estimate grows by less than ``tolerance`` a step, so it is low by a similar fraction.
        """
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(self.domain, generator=generator, dtype=torch.float64).to(self.device, self.dtype)
        x /= torch.linalg.vector_norm(x)
        before, diagonal, beside, value = torch.zeros_like(x), list[float](), list[float](), 0.0
        for _ in range(most):
            image = self.gram(x)
            diagonal.append(float((x.conj() * image).sum().real))
            image.sub_(x, alpha=diagonal[-1])
            image.sub_(before, alpha=beside[-1] if beside else 0.0)
            small = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
            if beside:
                small += torch.diag(torch.tensor(beside, dtype=torch.float64), -1)  # eigvalsh reads what is below
            last, value = value, float(torch.linalg.eigvalsh(small)[-1])
            length = float(torch.linalg.vector_norm(image))
            if value - last < tolerance * value or length <= torch.finfo(x.dtype).eps * value:
                break
            beside.append(length)
            before, x = x, image / length
        return max(0.0, value) ** 0.5

    def _check(self, tensor: Tensor, shape: tuple[int, ...], name: str) -> None:
        if tuple(tensor.shape) != shape:
            raise InputError(f"{name} has shape {tuple(tensor.shape)}, the operator needs {shape}")
        if tensor.dtype != self.dtype or tensor.device != self.device:
            raise InputError(
                f"{name} is {tensor.dtype} on {tensor.device}, the operator is {self.dtype} on {self.device}"
            )


class Adjoint(LinearOperator):
    """A^T as an operator of its own."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(operator.range, operator.domain, device=operator.device, dtype=operator.dtype)
        self._operator, self.exact_adjoint = operator, operator.exact_adjoint

    def forward(self, x: Tensor) -> Tensor:
        return self._operator.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._operator.forward(y)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """|A x - y|, on the device."""
        return torch.linalg.vector_norm(self.forward(x) - y)

    @property
    def H(self) -> LinearOperator:
        return self._operator


class Scaled(LinearOperator):
    """factor A."""

    def __init__(self, operator: LinearOperator, factor: float) -> None:
        super().__init__(operator.domain, operator.range, device=operator.device, dtype=operator.dtype)
        self._operator, self._factor = operator, float(factor)
        self.exact_adjoint = operator.exact_adjoint

    def forward(self, x: Tensor) -> Tensor:
        return self._operator.forward(x) * self._factor

    def adjoint(self, y: Tensor) -> Tensor:
        return self._operator.adjoint(y) * self._factor

    def norm(self, *, tolerance: float = 1e-5, most: int = 300) -> float:
        """|factor| times the norm of A, which may have a quick way to it."""
        return abs(self._factor) * self._operator.norm(tolerance=tolerance, most=most)


class RowWeighted(LinearOperator):
    """W A with a diagonal W >= 0 of shape ``range``: the square root of each ray's statistical weight."""

    def __init__(self, operator: LinearOperator, weights: Tensor) -> None:
        super().__init__(operator.domain, operator.range, device=operator.device, dtype=operator.dtype)
        self._check(weights, self.range, "weights")
        self._operator, self._weights = operator, weights
        self.exact_adjoint = operator.exact_adjoint

    def forward(self, x: Tensor) -> Tensor:
        return self._operator.forward(x).mul_(self._weights)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._operator.adjoint(y * self._weights)
