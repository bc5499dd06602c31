"""A scan whose slices mix in its data, some views after the other: from slabs of the volume, or where all of the data
would not fit beside the volumes.

Each slab is projected onto the whole detector.  The projections of a group of views are summed over the slabs, then
compared with the data and projected back, before the next group: no process ever holds the projections of all views.
The data, which every process has a copy of, may lie in the memory of the host while volumes are on a device.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .base import LinearOperator
from .slabs import Slabs


class Unseen(LinearOperator):
    """The operator of views that see nothing of a slab: zero."""

    def forward(self, x: Tensor) -> Tensor:
        return self.range.zeros()

    def adjoint(self, y: Tensor) -> Tensor:
        return self.domain.zeros()

    def scaled(self, factor: float) -> Unseen:
        return self


class ByViews(LinearOperator):
    """Line integrals of a slab's volume together with all other slabs': -> (detector rows, views, columns).

    groups: of views that follow each other, each as an operator on the slab.  data_on: where data lie.
    """

    def __init__(self, groups: Sequence[LinearOperator], slabs: Slabs, *, data_on: torch.device | None = None) -> None:
        first, views = groups[0], sum(A.range.shape[1] for A in groups)
        rows, _, columns = first.range.shape
        data = replace(first.range, shape=(rows, views, columns), device=data_on or first.device)
        super().__init__(first.domain.of_slab(slabs), data)
        self.remark, self.exact_adjoint = first.remark, first.exact_adjoint
        self._groups, self._slabs = list(groups), slabs
        self._weights: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.domain.check(x, "x")
        out = self.range.empty()
        for _, views, projected in self._projected(x):
            out[:, views] = projected.to(self.range.device)
        return out

    def adjoint(self, y: Tensor) -> Tensor:
        self.range.check(y, "y")
        return _sum(A.adjoint(self._weighed(self._of(y, views, A), views)) for A, views in self._each())

    def gram(self, x: Tensor) -> Tensor:
        self.domain.check(x, "x")
        return _sum(A.adjoint(self._weighed(p, views)) for A, views, p in self._projected(x))

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """A^T (A x - y), group by group."""
        return _sum(
            A.adjoint(self._weighed(p.sub_(self._of(y, views, A)), views)) for A, views, p in self._projected(x)
        )

    def gradients(self, y: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda x: self.gradient(x, y)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        lengths = [torch.linalg.vector_norm(p.sub_(self._of(y, v, A))) for A, v, p in self._projected(x)]
        return torch.linalg.vector_norm(torch.stack(lengths))

    def scaled(self, factor: float) -> ByViews:
        """factor A, with the factor in the groups."""
        twin = copy.copy(self)
        twin._groups = [A.scaled(factor) for A in self._groups]
        return twin

    def with_weights(self, weights: Tensor) -> ByViews:
        """W A with a diagonal W of the shape of the data, lying where they do."""
        self.range.check(weights, "weights")
        twin = copy.copy(self)
        twin._weights = weights if self._weights is None else weights * self._weights
        return twin

    def _each(self) -> Iterator[tuple[LinearOperator, slice]]:
        start = 0
        for A in self._groups:
            end = start + A.range.shape[1]
            yield A, slice(start, end)
            start = end

    def _projected(self, x: Tensor) -> Iterator[tuple[LinearOperator, slice, Tensor]]:
        """Weighted projections of the whole volume, group by group."""
        for A, views in self._each():
            yield A, views, self._weighed(self._slabs.total(A.forward(x)), views)

    def _weighed(self, part: Tensor, views: slice) -> Tensor:
        return part if self._weights is None else part * self._weights[:, views].to(part.device)

    def _of(self, y: Tensor, views: slice, A: LinearOperator) -> Tensor:
        """Of the data those of some views, where volumes are."""
        return A.range.laid_out(y[:, views].to(A.device))


def _sum(volumes: Iterator[Tensor]) -> Tensor:
    total = next(volumes)
    for volume in volumes:
        total.add_(volume)
        del volume  # its memory is that of the next one
    return total
