"""Noise that completes a spectrum: added only where an error lies below white noise of a level."""

from __future__ import annotations

import torch
from torch import Tensor

from ..operators.slabs import WHOLE, Slabs

LEAST = 1e-3  # share of the level's variance that is added everywhere: what is exactly known is no error at all
SMOOTHED = 7  # frequencies along each axis that the power is averaged over
PIXELS_AT_ONCE = {"cpu": 2**16, "cuda": 2**24}  # of slices that are transformed together


def completed(x: Tensor, error: Tensor, noise: Tensor, sigma: float, slabs: Slabs = WHOLE) -> Tensor:
    """x + noise with the power, frequency by frequency, that ``error`` lacks against white noise of level sigma.

    x, error, noise: (slices, rows, columns) of one kind, noise standard normal (complex: of variance 1 in each part),
    whose memory takes the result.  The variance added is max(LEAST sigma^2, sigma^2 - P), where P is the mean of
    |FFT2(error)|^2 / (rows columns) over slices and SMOOTHED x SMOOTHED frequencies (of complex errors, of each part).
    slabs: who holds the other slices of the volume, which count as well.
    """
    parts = _parts(x)
    missing = (sigma**2 - smoothed(power(error, slabs))).clamp_(min=LEAST * sigma**2).sqrt_()
    for part in parts:
        noise[part] = _filtered(noise[part].contiguous(), missing)
    return noise.add_(x)


def power(x: Tensor, slabs: Slabs = WHOLE) -> Tensor:
    """The power (rows, columns) of x's slices, lowest frequency in the corner, as a variance of each real part."""
    total = torch.zeros(x.shape[1:], dtype=x.dtype.to_real(), device=x.device)
    columns = x.shape[-1]
    for part in _parts(x):
        if x.is_complex():
            total += torch.view_as_real(torch.fft.fft2(x[part].contiguous(), norm="ortho")).square_().sum((0, -1))
            continue
        half = torch.view_as_real(torch.fft.rfft2(x[part].contiguous(), norm="ortho")).square_().sum((0, -1))
        total[:, : columns // 2 + 1] += half
    if not x.is_complex():  # the other half is its mirror image
        total[:, columns // 2 + 1 :] = total[:, 1 : (columns + 1) // 2].flip((0, 1)).roll(1, 0)
    return slabs.total(total) / (slabs.in_all(x.shape[0]) * (2 if x.is_complex() else 1))


def smoothed(image: Tensor, width: int = SMOOTHED) -> Tensor:
    """Means over width x width entries; periodic, and for images of any size."""
    reach = width // 2
    for axis in (0, 1):
        image = sum((image.roll(s, axis) for s in range(-reach, reach + 1)), torch.zeros_like(image)) / width
    return image


def _filtered(x: Tensor, gain: Tensor) -> Tensor:
    if x.is_complex():
        return torch.fft.ifft2(torch.fft.fft2(x).mul_(gain))
    half = x.shape[-1] // 2 + 1
    return torch.fft.irfft2(torch.fft.rfft2(x).mul_(gain[:, :half]), s=x.shape[-2:])


def _parts(x: Tensor) -> list[slice]:
    at_once = max(1, PIXELS_AT_ONCE.get(x.device.type, 2**16) // x[0].numel())
    return [slice(start, start + at_once) for start in range(0, x.shape[0], at_once)]
