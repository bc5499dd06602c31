"""Where tensors live: shape, type, device and order in memory of the volumes and data that operators map.

A space also makes noise: of each slice by a key of its own, so that the same seed gives the same volume however it is
split into sub-batches or slabs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..errors import InputError
from .slabs import WHOLE, Slabs

_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Space:
    """Tensors of one shape, (slices, ...) where it holds volumes or data of stacks.

    slices_last: the slices are fastest in memory, as products with one matrix for all slices want it.  first_slice: the
    place of the first slice in the whole volume, for a space that holds a slab of it.  slabs: who holds the others;
    numbers over whole volumes, as :meth:`dot` gives them, are over all of them.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    slices_last: bool = False
    first_slice: int = 0
    slabs: Slabs = WHOLE

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        # 'cuda' stands for one device with a number, which is what tensors on it report.
        object.__setattr__(self, "device", torch.empty(0, device=self.device).device)

    @property
    def real(self) -> torch.dtype:
        """The type of real parts."""
        return self.dtype.to_real()

    def zeros(self) -> Tensor:
        return self._order(torch.zeros(self._memory, dtype=self.dtype, device=self.device))

    def ones(self) -> Tensor:
        return self._order(torch.ones(self._memory, dtype=self.dtype, device=self.device))

    def empty(self) -> Tensor:
        return self._order(torch.empty(self._memory, dtype=self.dtype, device=self.device))

    def laid_out(self, x: Tensor) -> Tensor:
        """The same tensor in this space's order in memory; a copy only where needed."""
        return slices_last(x) if self.slices_last else x.contiguous()

    @property
    def _memory(self) -> tuple[int, ...]:
        return (*self.shape[1:], self.shape[0]) if self.slices_last else self.shape

    def _order(self, x: Tensor) -> Tensor:
        return x.movedim(-1, 0) if self.slices_last else x

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Real inner product, a number on the device."""
        return self.slabs.total(dot(a, b))

    def norm(self, x: Tensor) -> Tensor:
        """Euclidean length, a number on the device."""
        return self.slabs.length(torch.linalg.vector_norm(torch.view_as_real(x) if x.is_complex() else x))

    @property
    def slices(self) -> int:
        """Of the whole volume."""
        return self.slabs.in_all(self.shape[0])

    def of_slab(self, slabs: Slabs) -> Space:
        """The same space, which has the slices of a slab, as a part of the whole one."""
        return replace(self, slabs=slabs, first_slice=slabs.mine(self.shape[0]).start)

    def uniform(self, seed: int) -> Tensor:
        """Numbers in [0, 1), the real parts of complex ones; what a slab holds is what the whole would hold there."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(self.first_slice):
            torch.rand(self.shape[1:], generator=generator, dtype=torch.float64)
        drawn = torch.rand(self.shape, generator=generator, dtype=torch.float64)
        return drawn.to(self.device, self.dtype)

    def noise(self, seed: int, *key: int) -> Tensor:
        """Standard normal noise, of complex volumes in the real and in the imaginary part.

        key: what tells this draw from others of the same seed: level, purpose.  Slice k is drawn from (seed, key,
        first_slice + k) alone.
        """
        out, generator = self.empty(), torch.Generator(self.device)
        for k in range(self.shape[0]):
            out[k] = self._drawn(generator.manual_seed(_mixed(seed, (*key, self.first_slice + k))))
        return out

    def noise_of(self, seed: int, *key: int) -> Tensor:
        """One slice of noise, drawn from (seed, key) alone."""
        return self._drawn(torch.Generator(self.device).manual_seed(_mixed(seed, key)))

    def _drawn(self, generator: torch.Generator) -> Tensor:
        parts = (2,) if self.dtype.is_complex else ()
        drawn = torch.randn((*self.shape[1:], *parts), generator=generator, device=self.device, dtype=self.real)
        return torch.view_as_complex(drawn) if parts else drawn

    def check(self, x: Tensor, name: str) -> None:
        """Raise InputError that says what does not fit."""
        if tuple(x.shape) != self.shape:
            raise InputError(f"{name} has shape {tuple(x.shape)}, the operator needs {self.shape}")
        if x.dtype != self.dtype or x.device != self.device:
            raise InputError(f"{name} is {x.dtype} on {x.device}, the operator is {self.dtype} on {self.device}")


def slices_last(x: Tensor) -> Tensor:
    """The same (slices, rows, columns) tensor with the slices fastest in memory; a copy only where needed."""
    return x.movedim(0, -1).contiguous().movedim(-1, 0)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Real inner product of two volumes of any, but equal, memory order, without copying them.

    Of complex ones the real part, which is all of it wherever conjugate gradient asks.
    """
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    if a.ndim == 3 and a.stride() == b.stride():
        a, b = a.permute(1, 2, 0), b.permute(1, 2, 0)
    return torch.dot(a.reshape(-1), b.reshape(-1))


def _mixed(seed: int, key: tuple[int, ...]) -> int:
    """64 bits that tell any two (seed, key) apart but for chance: steps of SplitMix64 (Steele et al. 2014).

    Their lower half alone seeds torch's generator on CPUs, so the last step mixes once more.
    """
    state = seed & _MASK
    for value in (*key, len(key)):
        state = (state + 0x9E3779B97F4A7C15 * (value + 1)) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1  # a seed is a signed number
