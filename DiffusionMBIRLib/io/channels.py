"""Coils or slices?  An array does not say, its images do.

Coils see one object: their magnitudes are its magnitude times sensitivities, which are smooth.  Slices show different
things.  So the channels' share of their root sum of squares is fitted by smooth functions, and what these leave is set
against what they explain.
"""

from __future__ import annotations

import numpy as np

from ..geometry import CartesianMRI
from ..sensitivity import centred_ifft, root_sum_of_squares

_LARGEST_BLOCK = 48  # positions of the middle of k-space that are looked at
_SMALLEST_BLOCK = 12
_DEGREE = 5  # of the polynomials that stand for sensitivities
_ALIKE = 1e-4  # of the energy; channels that differ by less tell nothing
# Left over explained.  Measured and simulated coils have 0.001 to 0.04, stacks of slices 0.15 to 10.
_COILS, _SLICES = 0.08, 0.16


def middle_block(data: np.ndarray, sampled: np.ndarray, largest: int) -> np.ndarray:
    """The fully sampled middle of (..., rows, columns), at most ``largest`` wide, tapered; sampled: (rows, columns)."""
    acs = CartesianMRI(sampled).acs
    rows, columns = (
        slice(n // 2 - min(size, largest) // 2, n // 2 - min(size, largest) // 2 + min(size, largest))
        for n, size in zip(sampled.shape, acs, strict=True)
    )
    block = data[..., rows, columns].astype(np.complex128)  # whose squares stay within range
    return block * np.outer(*(np.hanning(n + 2)[1:-1] for n in block.shape[-2:]))


def coils_or_slices(data: np.ndarray, sampled: np.ndarray) -> str:
    """What the first axis of centred k-space (channels, rows, columns) holds: "coils", "slices", or "" if unclear.

    sampled: bool (rows, columns).  "unknown" where the middle of k-space does not suffice to tell.
    """
    if len(data) < 2 or not sampled.any() or not np.isfinite(data).all():
        return "unknown"
    block = middle_block(data, sampled, _LARGEST_BLOCK)
    if min(block.shape[-2:]) < _SMALLEST_BLOCK:
        return "unknown"
    left, explained = _fit(np.abs(centred_ifft(block)))
    if left + explained < _ALIKE:
        return ""
    if left <= _COILS * explained:
        return "coils"
    return "slices" if left >= _SLICES * explained else ""


def _fit(images: np.ndarray) -> tuple[float, float]:
    """Shares of the energy: what smooth sensitivities leave, and how much of it they make the channels differ."""
    together = root_sum_of_squares(images, axis=0)
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in together.shape), indexing="ij")
    smooth = np.stack([x**i * y**j for i in range(_DEGREE + 1) for j in range(_DEGREE + 1 - i)], axis=-1)
    model = (smooth * together[..., None]).reshape(together.size, -1)
    channels = images.reshape(len(images), -1).T
    fitted = model @ np.linalg.lstsq(model, channels, rcond=None)[0]
    weight = together.reshape(-1, 1)
    mean = (fitted * weight).sum(axis=0) / (weight**2).sum()
    energy = float((channels**2).sum())
    return (float(((channels - fitted) ** 2).sum()) / energy, float(((fitted - mean * weight) ** 2).sum()) / energy)
