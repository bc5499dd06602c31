"""Slabs: which slices of a volume this process holds, and what it exchanges with those that hold the others.

Samplers and solvers compute on the slices that they are given; sums over volumes, neighbours of the outermost slices
and transforms along the slices ask the slabs of a space.  :data:`WHOLE` is one process that holds all slices and
exchanges nothing; :class:`SlabsOfProcesses` are those of a group of ``torch.distributed``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import InputError

_BLOCKS = 8  # that a volume's rows are taken in, where it is transformed in its own memory


class Slabs:
    """One process that holds all slices; the contract of what several exchange.

    All processes of a group must call the same methods in the same order.
    """

    rank: int = 0
    size: int = 1

    def mine(self, slices: int) -> slice:
        """The slices of a whole volume that are held here."""
        return slice(0, slices)

    def in_all(self, slices: int) -> int:
        """How many slices the whole volume has, of which ``slices`` are held here."""
        return slices

    def total(self, x: Tensor) -> Tensor:
        """The sum over all slabs of a tensor that has one shape in each; may use the memory of x."""
        return x

    def largest(self, x: Tensor) -> Tensor:
        """The largest of a number that each slab has."""
        return x

    def length(self, x: Tensor) -> Tensor:
        """Of the Euclidean lengths of the slabs that of the whole."""
        return x

    def mean(self, x: Tensor) -> Tensor:
        """The mean of a volume."""
        return x.mean()

    def percentile(self, x: Tensor, percent: float) -> float:
        """Of a real volume, between its values as ``numpy.percentile`` takes it."""
        return float(np.percentile(x.cpu().numpy(), percent))

    def beside(self, first: Tensor, last: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """(the last slice of the slab before, the first slice of the slab after); None where there is none.

        first, last: what this slab gives as its own.
        """
        return None, None

    def along(self, matrix: Tensor, x: Tensor) -> Tensor:
        """matrix @ x along the slices of whole volumes, both in slabs of slices; matrix is square."""
        return torch.matmul(x.permute(1, 2, 0), matrix.t()).permute(2, 0, 1)

    def along_(self, matrix: Tensor, x: Tensor) -> Tensor:
        """The same in the memory of x, which is returned."""
        rows = x.permute(1, 2, 0)
        for some in rows.split(max(1, len(rows) // _BLOCKS)):
            some.copy_(torch.matmul(some, matrix.t()))
        return x

    def gathered(
        self, part: np.ndarray, bounds: Sequence[int] | None = None, kind: str = "gathered"
    ) -> np.ndarray | None:
        """The whole volume of slabs (slices, rows, columns) on the host of the first process; None in the others.

        bounds: where the parts begin, and the end, if they are not the slabs; a part may be empty.  kind: of exchange.
        """
        return part

    def agreed(self, value: bool) -> bool:
        """What the first process says."""
        return value

    def wait(self) -> None:
        """Until all processes have come here."""


WHOLE = Slabs()


def bounds_of(slices: int, size: int) -> tuple[int, ...]:
    """The first slice of each of ``size`` slabs, and the end: as even as can be, larger ones first.

    Raises InputError for fewer slices than slabs.
    """
    if slices < size:
        raise InputError(f"--devices {size}: the volume has {slices} slices only; use at most as many devices")
    each, more = divmod(slices, size)
    return tuple(k * each + min(k, more) for k in range(size + 1))


class SlabsOfProcesses(Slabs):
    """Slabs in the processes of a group of ``torch.distributed``, one in each, by rank.

    bounds: as :func:`bounds_of` gives them.  sent: bytes that this process has handed over, by the kind of exchange;
    seconds: that it spent on exchanges, waiting for the others included.
    """

    def __init__(self, bounds: tuple[int, ...], rank: int, device: torch.device, group: Any = None) -> None:
        self.bounds, self.rank, self.size = bounds, rank, len(bounds) - 1
        self.device, self.group = device, group
        self.sent: dict[str, int] = {}
        self.seconds = 0.0

    def mine(self, slices: int) -> slice:
        return slice(self.bounds[self.rank], self.bounds[self.rank + 1])

    def in_all(self, slices: int) -> int:
        return self.bounds[-1]

    def total(self, x: Tensor) -> Tensor:
        strides = x.stride()
        order = sorted(range(x.ndim), key=lambda axis: -strides[axis])  # as it lies in memory
        turned = x.permute(order).contiguous()
        with self._exchange("sums", x):
            dist.all_reduce(_real(turned), group=self.group)
        return turned.permute([order.index(axis) for axis in range(x.ndim)])

    def largest(self, x: Tensor) -> Tensor:
        x = x.clone()
        with self._exchange("sums", x):
            dist.all_reduce(x, op=dist.ReduceOp.MAX, group=self.group)
        return x

    def length(self, x: Tensor) -> Tensor:
        return self.total(x.double().square()).sqrt().to(x.dtype)

    def mean(self, x: Tensor) -> Tensor:
        both = torch.stack([x.sum(dtype=torch.float64), torch.tensor(float(x.numel()), device=x.device)])
        total, number = self.total(both)
        return (total / number).to(x.dtype)

    def percentile(self, x: Tensor, percent: float) -> float:
        number = self.bounds[-1] * x[0].numel()
        place = percent / 100 * (number - 1)
        below = int(place)
        kept = number - below  # the largest, among which the wanted ones are
        own = x.flatten().topk(min(kept, x.numel())).values
        padded = torch.full((kept,), -torch.inf, dtype=x.dtype, device=x.device)
        padded[: len(own)] = own
        found = [torch.empty_like(padded) for _ in range(self.size)]
        with self._exchange("gathered", padded):
            dist.all_gather(found, padded, group=self.group)
        values = torch.cat(found).topk(kept).values
        low, high = float(values[-1]), float(values[max(0, kept - 2)])
        return low + (place - below) * (high - low)

    def beside(self, first: Tensor, last: Tensor) -> tuple[Tensor | None, Tensor | None]:
        before, after, asked = None, None, list[Any]()
        if self.rank > 0:
            before = torch.empty_like(first, memory_format=torch.contiguous_format)
            asked += self._swap(first, before, self.rank - 1)
        if self.rank + 1 < self.size:
            after = torch.empty_like(last, memory_format=torch.contiguous_format)
            asked += self._swap(last, after, self.rank + 1)
        with self._exchange("neighbours", first, len(asked) // 2):
            for request in dist.batch_isend_irecv(asked) if asked else ():
                request.wait()
        return before, after

    def _swap(self, own: Tensor, other: Tensor, rank: int) -> list[Any]:
        peer = rank if self.group is None else dist.get_global_rank(self.group, rank)
        return [
            dist.P2POp(dist.isend, _real(own.contiguous()), peer, self.group),
            dist.P2POp(dist.irecv, _real(other), peer, self.group),
        ]

    def along(self, matrix: Tensor, x: Tensor) -> Tensor:
        """Slabs of slices become slabs of pixels and back: each process sends and gets its own slab twice."""
        pixels = x.permute(1, 2, 0).reshape(-1, x.shape[0])
        shares = _shares(len(pixels), self.size)
        heights = [end - start for start, end in pairwise(self.bounds)]
        own = heights[self.rank]
        columns = [n * shares[self.rank] for n in heights]
        whole = self._all_to_all(pixels.reshape(-1), [own * n for n in shares], columns)
        parts = [part.view(-1, n) for part, n in zip(whole.split(columns), heights, strict=True)]
        turned = torch.matmul(torch.cat(parts, 1), matrix.t())
        sent = torch.cat([part.reshape(-1) for part in turned.split(heights, 1)])
        back = self._all_to_all(sent, columns, [own * n for n in shares])
        return back.view(*x.shape[1:], own).permute(2, 0, 1)

    def along_(self, matrix: Tensor, x: Tensor) -> Tensor:
        return x.copy_(self.along(matrix, x))

    def _all_to_all(self, x: Tensor, given: list[int], taken: list[int]) -> Tensor:
        out = x.new_empty(sum(taken))
        two = 2 if x.is_complex() else 1
        given, taken = [n * two for n in given], [n * two for n in taken]
        with self._exchange("turned", x):
            given_parts = _real(x).reshape(-1).contiguous()
            dist.all_to_all_single(_real(out).view(-1), given_parts, taken, given, group=self.group)
        return out

    def gathered(
        self, part: np.ndarray, bounds: Sequence[int] | None = None, kind: str = "gathered"
    ) -> np.ndarray | None:
        bounds = bounds or self.bounds
        if self.rank > 0:
            own = torch.from_numpy(np.ascontiguousarray(part)).to(self.device)
            with self._exchange(kind, own):
                if part.size:
                    dist.send(own, self._root, group=self.group)
            return None
        whole = np.empty((bounds[-1], *part.shape[1:]), part.dtype)
        whole[: bounds[1]] = part
        for rank in range(1, self.size):
            some = whole[bounds[rank] : bounds[rank + 1]]
            if not some.size:
                continue
            got = torch.empty(some.shape, dtype=torch.from_numpy(part[:0]).dtype, device=self.device)
            dist.recv(got, rank if self.group is None else dist.get_global_rank(self.group, rank), group=self.group)
            some[...] = got.cpu().numpy()
        return whole

    @property
    def _root(self) -> int:
        return 0 if self.group is None else dist.get_global_rank(self.group, 0)

    def agreed(self, value: bool) -> bool:
        said = torch.tensor(int(value), device=self.device)
        dist.broadcast(said, self._root, group=self.group)
        return bool(said)

    def wait(self) -> None:
        dist.barrier(group=self.group)

    @contextmanager
    def _exchange(self, kind: str, x: Tensor, times: int = 1) -> Iterator[None]:
        """Counts what is handed over within, and how long that takes."""
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began
        self.sent[kind] = self.sent.get(kind, 0) + times * x.numel() * x.element_size()


def _shares(number: int, size: int) -> list[int]:
    each, more = divmod(number, size)
    return [each + (k < more) for k in range(size)]


def _real(x: Tensor) -> Tensor:
    """Complex numbers as pairs of real ones, in the same memory: not every backend knows them."""
    return torch.view_as_real(x) if x.is_complex() else x
