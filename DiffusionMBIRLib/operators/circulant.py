"""Sampling in Fourier space as a convolution of images, for sides that are slow to transform.

F^H M F is circulant.  Along a side with a large prime factor it is embedded into a larger circulant matrix whose side
has small factors only: images are set into zeros, and what wraps around falls outside of them (Chan and Ng 1996, doi
10.1137/S0036144594276474).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LARGEST_FACTOR = 31  # of a side: beyond, a transform of the next good length above twice the side is faster


def fast_length(side: int) -> int:
    """``side``, or where it has a large prime factor the least length from 2 side - 1 that has small ones only."""
    if _largest_factor(side) <= LARGEST_FACTOR:
        return side
    length = 2 * side - 1
    while _largest_factor(length) > 5:
        length += 1
    return length


def _largest_factor(n: int) -> int:
    largest, factor = 1, 2
    while factor * factor <= n:
        while n % factor == 0:
            largest, n = factor, n // factor
        factor += 1
    return max(largest, n)


def sampling_spectrum(corner_mask: Tensor, axes: tuple[int, ...], dtype: torch.dtype) -> tuple[tuple[int, ...], Tensor]:
    """(lengths to transform along ``axes``, real factors between a transform and its inverse, over their product).

    corner_mask: bool (rows, columns), the lowest frequency at index 0; of extent 1 where nothing is transformed.
    """
    sides = [corner_mask.shape[axis] for axis in axes]
    lengths = tuple(fast_length(side) for side in sides)
    real = torch.empty(0, dtype=dtype).real.dtype
    if list(lengths) == sides:
        return lengths, corner_mask.to(real) / math.prod(sides)
    spread = torch.fft.ifftn(corner_mask.to(torch.complex128), dim=axes)
    for axis, side, length in zip(axes, sides, lengths, strict=True):
        if length == side:
            continue
        place = torch.arange(length, device=spread.device)
        inside = (place < side) | (place > length - side)
        lag = torch.where(place < side, place, place - length) % side
        shape = [length if k == axis % 2 else 1 for k in range(2)]
        spread = spread.index_select(axis, lag) * inside.reshape(shape)
    return lengths, torch.fft.fftn(spread, dim=axes).real.to(real) / math.prod(lengths)
