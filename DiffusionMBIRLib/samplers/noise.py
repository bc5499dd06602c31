"""Noise of whole volumes, keyed so that sub-batches, slabs, devices and resumed runs never change a volume."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..operators.space import Space

START, RENOISE, PREDICTOR, CORRECTOR, CALIBRATION = range(5)  # what a draw is for


@dataclass(frozen=True)
class Noise:
    """Standard normal noise in a space of volumes; complex: of variance 1 in the real and in the imaginary part, each
    of which a prior sees as an image.

    seed, sample: of the run, and which of its posterior samples.  span: every so many slices an independent image;
    slices between two of them are cos(t) one + sin(t) other, which keeps the variance (noise shared along z, after
    ISCS, arXiv 2602.04162).
    """

    space: Space
    seed: int
    sample: int = 0
    span: int = 1

    def __call__(self, level: int, purpose: int = RENOISE) -> Tensor:
        """The draw of a level; the same whenever it is asked for."""
        if self.span > 1:
            return self._interpolated(self.sample, purpose, level)
        return self.space.noise(self.seed, self.sample, purpose, level)

    def _interpolated(self, *key: int) -> Tensor:
        """Noise that turns from one independent image to the next over ``span`` slices."""
        out, last = self.space.empty(), -1
        one = other = torch.empty(0)
        for k in range(self.space.shape[0]):
            before, step = divmod(self.space.first_slice + k, self.span)
            if before != last:
                one = other if before == last + 1 and last >= 0 else self.space.noise_of(self.seed, *key, before)
                other, last = self.space.noise_of(self.seed, *key, before + 1), before
            angle = step * 0.5 * math.pi / self.span
            torch.mul(one, math.cos(angle), out=out[k])
            out[k].add_(other, alpha=math.sin(angle))
        return out


def noised(x: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """x + sigma noise, in the memory of the noise."""
    return torch.add(x, noise, alpha=sigma, out=noise)


def noised_start(start: Tensor | Callable[[], Tensor], noise: Noise, sigma: float) -> Tensor:
    """start + sigma noise.  A function is asked for the volume here, so that nobody else goes on holding it."""
    volume = start() if callable(start) else start
    return noised(volume, noise(0, START), sigma)
