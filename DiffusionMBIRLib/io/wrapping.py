"""Images that lie half a field of view off, because a transform was made without ``ifftshift``.

``fftshift(fft2(image))`` takes the first pixel for the origin, not the middle one: neighbouring samples of k-space
have opposite signs, and the image, transformed back around its middle, is cut apart and lies along the borders.
"""

from __future__ import annotations

import numpy as np

from .channels import middle_block

_BLOCK = 64  # positions of the middle of k-space that are looked at, and points of the profile
_SMALLEST_BLOCK = 12
_FRINGE = 3  # points at each border
_BRIGHTER = 4.0  # than the middle, that both borders are
_OFF_MIDDLE = -0.1  # of the profile's first Fourier coefficient, which is positive for a centred object


def wrapped_axes(data: np.ndarray, sampled: np.ndarray) -> list[int]:
    """Axes (-2: rows, -1: columns) of centred k-space (..., rows, columns) along which the image is cut apart.

    sampled: bool (rows, columns).  The energy must lie at both borders and not in the middle between them.
    """
    if not sampled.any():
        return []
    block = middle_block(data.reshape(-1, *data.shape[-2:]), sampled, _BLOCK)
    return [axis for axis in (-2, -1) if _is_cut(block, axis)]


def unwrapped(data: np.ndarray, axes: list[int]) -> np.ndarray:
    """K-space of the image moved by half a field of view along the axes, to the pixel n // 2."""
    for axis in axes:
        n = data.shape[axis]
        k = np.arange(n) - n // 2
        turn = np.exp(2j * np.pi * k * (n // 2) / n) if n % 2 else np.where(k % 2, -1, 1)
        data = data * turn.astype(data.dtype if n % 2 else np.float32).reshape(-1, *[1] * (-1 - axis))
    return data


def named(axes: list[int]) -> str:
    """The axes in words."""
    return " and ".join({-2: "rows", -1: "columns"}[axis] for axis in axes)


def _is_cut(block: np.ndarray, axis: int) -> bool:
    lines = np.moveaxis(block, axis, -1)
    count = lines.shape[-1]
    if count < _SMALLEST_BLOCK:
        return False
    # Of the block's own middle only a phase would differ, which the energy does not see.
    image = np.fft.ifft(lines, n=max(_BLOCK, count), axis=-1)
    profile = np.fft.fftshift((np.abs(image) ** 2).sum(axis=tuple(range(image.ndim - 1))))
    n = len(profile)
    first = float((profile * np.cos(2 * np.pi * (np.arange(n) - n // 2) / n)).sum() / profile.sum())
    middle = float(profile[n // 2 - _FRINGE + 1 : n // 2 + _FRINGE].mean())
    borders = (float(part.mean()) for part in (profile[:_FRINGE], profile[-_FRINGE:]))
    return first < _OFF_MIDDLE and min(borders) > _BRIGHTER * middle
