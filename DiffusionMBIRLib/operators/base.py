"""The contract of a linear operator and the small algebra that reconstruction needs."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TypeVar, overload

import torch
from torch import Tensor

from ..errors import InputError
from .slabs import Slabs
from .space import Space

Same = TypeVar("Same", bound="LinearOperator")


class LinearOperator(ABC):
    """A linear map between two spaces of tensors, both real or both complex, on one device.

    domain, range: the two spaces.  ``adjoint`` is the exact (conjugate) transpose of ``forward``; an optional
    back end that cannot keep this says so by ``exact_adjoint``.  remark: a line on how it computes, where a user
    should know, such as that a faster way is not installed.
    """

    exact_adjoint: bool = True
    remark: str = ""

    def __init__(self, domain: Space, range: Space) -> None:
        self.domain, self.range = domain, range

    @property
    def device(self) -> torch.device:
        return self.domain.device

    @property
    def dtype(self) -> torch.dtype:
        return self.domain.dtype

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x for x of the domain."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y for y of the range."""

    def gram(self, x: Tensor) -> Tensor:
        """A^T A x."""
        return self.adjoint(self.forward(x))

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """A^T (A x - y), the gradient of 1/2 |A x - y|^2."""
        return self.adjoint(self.forward(x).sub_(y))

    def unexplained(self, x: Tensor, y: Tensor) -> Tensor:
        """What of y a volume x does not explain, as a volume: A^T (A x - y), unless there is one that tells more."""
        return self.gradient(x, y)

    def gradients(self, y: Tensor) -> Callable[[Tensor], Tensor]:
        """x -> A^T (A x - y), for one y and many x; always a new tensor."""
        return partial(self.gradient, y=y)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """|A x - y|, on the device."""
        return self.range.norm(self.forward(x).sub_(y))

    @property
    def H(self) -> LinearOperator:
        """A^T, by the name that the field gives to the adjoint."""
        return Adjoint(self)

    @overload
    def __matmul__(self, other: Tensor) -> Tensor: ...
    @overload
    def __matmul__(self, other: LinearOperator) -> LinearOperator: ...
    def __matmul__(self, other: Tensor | LinearOperator) -> Tensor | LinearOperator:
        """A x of a tensor; of an operator B the product A B."""
        return Product(self, other) if isinstance(other, LinearOperator) else self.forward(other)

    def scaled(self, factor: float) -> LinearOperator:
        """factor A."""
        return Scaled(self, factor)

    def with_weights(self, weights: Tensor) -> LinearOperator:
        """W A with a diagonal W >= 0 of shape ``range``."""
        return RowWeighted(self, weights)

    def in_slabs(self: Same, slabs: Slabs) -> Same:
        """The operator of a slab of slices, which do not mix in the data, as a part of that of the whole volume."""
        twin = copy.copy(self)
        twin.domain, twin.range = self.domain.of_slab(slabs), self.range.of_slab(slabs)
        return twin

    def norm(self, *, tolerance: float = 1e-5, most: int = 300) -> float:
        """The largest singular value, by Lanczos iteration on A^T A from a fixed random start (Lanczos 1950).

        Stops when the estimate grows by less than ``tolerance`` a step, so it is low by a similar fraction.
        """
        x, slabs = self.domain.uniform(0), self.domain.slabs
        x /= self.domain.norm(x)
        before, diagonal, beside, value = torch.zeros_like(x), list[float](), list[float](), 0.0
        for _ in range(most):
            image = self.gram(x)
            diagonal.append(float(slabs.total((x.conj() * image).sum().real)))
            image.sub_(x, alpha=diagonal[-1])
            image.sub_(before, alpha=beside[-1] if beside else 0.0)
            small = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
            if beside:
                small += torch.diag(torch.tensor(beside, dtype=torch.float64), -1)  # eigvalsh reads what is below
            last, value = value, float(torch.linalg.eigvalsh(small)[-1])
            length = float(self.domain.norm(image))
            if value - last < tolerance * value or length <= torch.finfo(x.dtype).eps * value:
                break
            beside.append(length)
            before, x = x, image / length
        return max(0.0, value) ** 0.5


class Adjoint(LinearOperator):
    """A^T as an operator of its own."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(operator.range, operator.domain)
        self._operator, self.exact_adjoint = operator, operator.exact_adjoint

    def forward(self, x: Tensor) -> Tensor:
        return self._operator.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._operator.forward(y)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """|A x - y|, on the device."""
        return self.range.norm(self.forward(x) - y)

    @property
    def H(self) -> LinearOperator:
        return self._operator


class Scaled(LinearOperator):
    """factor A."""

    def __init__(self, operator: LinearOperator, factor: float) -> None:
        super().__init__(operator.domain, operator.range)
        self._operator, self._factor = operator, float(factor)
        self.exact_adjoint = operator.exact_adjoint

    def forward(self, x: Tensor) -> Tensor:
        return self._operator.forward(x) * self._factor

    def adjoint(self, y: Tensor) -> Tensor:
        return self._operator.adjoint(y) * self._factor

    def norm(self, *, tolerance: float = 1e-5, most: int = 300) -> float:
        """|factor| times the norm of A, which may have a quick way to it."""
        return abs(self._factor) * self._operator.norm(tolerance=tolerance, most=most)


class Product(LinearOperator):
    """A B."""

    def __init__(self, first: LinearOperator, second: LinearOperator) -> None:
        if first.domain.shape != second.range.shape:
            raise InputError(f"operators do not fit: {second.range.shape} into {first.domain.shape}")
        super().__init__(second.domain, first.range)
        self._first, self._second = first, second
        self.exact_adjoint = first.exact_adjoint and second.exact_adjoint

    def forward(self, x: Tensor) -> Tensor:
        return self._first.forward(self._second.forward(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self._second.adjoint(self._first.adjoint(y))


class RowWeighted(LinearOperator):
    """W A with a diagonal W >= 0 of shape ``range``: the square root of each ray's statistical weight."""

    def __init__(self, operator: LinearOperator, weights: Tensor) -> None:
        super().__init__(operator.domain, operator.range)
        self.range.check(weights, "weights")
        self._operator, self._weights = operator, weights
        self.exact_adjoint = operator.exact_adjoint

    def forward(self, x: Tensor) -> Tensor:
        return self._operator.forward(x).mul_(self._weights)

    def adjoint(self, y: Tensor) -> Tensor:
        self.range.check(y, "y")
        return self._operator.adjoint(y * self._weights)
