"""Simulated Cartesian scans of training slices, many at once, for the supervised baselines of MRI.

Masks, coils, phases and noise are of the families that ``simulate`` draws from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..geometry import Grid
from ..models import MR_VALUE
from ..operators.fourier import fft2c, ifft2c
from ..operators.masks import sampling_mask
from ..simulation.mr import coil_maps
from ..training.complex_images import random_phase
from ..training.stacks import Stack
from .pairs import whole_slice
from .two_domains import condition_of

ACCELERATIONS = (2.0, 6.0)
MIDDLE = 0.32  # share of the lines that is always measured, times the acceleration
MASKS = {"uniform1d": 0.6, "equispaced": 0.2, "gaussian1d": 0.2}
COILS = (1, 1, 1, 4, 8)  # one of them for all images of a batch
NOISY_SHARE, MOST_NOISE = 0.5, 0.02  # of the value scale's 1
REAL_SHARE = 0.3  # of the images that have no phase
GAIN = 0.15  # ln of it, at most: units of reconstructions lie a few percent beside those of the truth


@dataclass(frozen=True)
class KSpaceProtocol:
    """How an image is scanned; the mask's seed is drawn with the image."""

    acceleration: float
    acs: float
    mask: str = "uniform1d"
    noise: float = 0.0
    phase: bool = True

    @classmethod
    def draw(cls, generator: np.random.Generator) -> KSpaceProtocol:
        acceleration = math.exp(generator.uniform(*np.log(ACCELERATIONS)))
        noise = generator.uniform(0, MOST_NOISE) if generator.random() < NOISY_SHARE else 0.0
        mask = str(generator.choice(list(MASKS), p=list(MASKS.values())))
        return cls(acceleration, MIDDLE / acceleration, mask, noise, bool(generator.random() > REAL_SHARE))


@dataclass(frozen=True)
class KSpaceScans:
    """y = mask F S x of images, or of windows of their rows, all through as many coils.

    truth: complex (images, rows, columns).  mask: (images, 1, rows, columns).  maps: (coils, rows, columns) with
    sum |S|^2 = 1.  y: complex (images, coils, rows, columns), zero where not sampled.  condition: (images,).
    """

    truth: Tensor
    mask: Tensor
    maps: Tensor
    y: Tensor
    condition: Tensor

    def adjoint(self, y: Tensor) -> Tensor:
        """A^H y: (images, rows, columns)."""
        return (ifft2c(y) * self.maps.conj()).sum(1)

    def onto_data(self, x: Tensor) -> Tensor:
        """x + A^H (y - A x)."""
        return x + self.adjoint(self.y - self.mask * fft2c(x[:, None] * self.maps))


def scans_of(
    stacks: Sequence[Stack],
    shares: np.ndarray,
    count: int,
    side: int,
    coils: int,
    generator: np.random.Generator,
    rows: int = 0,
) -> KSpaceScans:
    """Scans of ``count`` slices drawn from stacks by their shares, each by a protocol of its own.

    rows: of a window that is scanned, as :func:`scanned` says; 0: the whole of it.
    """
    return scanned(
        [drawn_slice(stacks, shares, side, generator) for _ in range(count)],
        [KSpaceProtocol.draw(generator) for _ in range(count)],
        coils,
        generator,
        rows,
    )


def scanned(
    magnitudes: Sequence[Tensor],
    protocols: Sequence[KSpaceProtocol],
    coils: int,
    generator: np.random.Generator,
    rows: int = 0,
) -> KSpaceScans:
    """Scans of square magnitude images in the value scale, by one protocol each.

    rows: of a window, the same in all.  Where whole lines are measured, what happens to a row of the image depends on
    this row alone, so that a window of rows is a scan of its own: fine pixels for the price of a few rows.
    """
    side = magnitudes[0].shape[-1]
    rows = rows or side
    top = int(generator.integers(side - rows + 1))
    window = np.s_[top : top + rows]
    truths, masks, noises = [], [], []
    for magnitude, protocol in zip(magnitudes, protocols, strict=True):
        phase = random_phase(side, generator) if protocol.phase else torch.zeros(side, side)
        gain = math.exp(generator.uniform(-GAIN, GAIN))
        truths.append(torch.polar(magnitude.clamp_min(0) * gain, phase)[window])
        seed, (acceleration, acs) = int(generator.integers(2**31)), (protocol.acceleration, protocol.acs)
        mask = sampling_mask((rows, side), protocol.mask, acceleration=acceleration, acs=acs, seed=seed)
        masks.append(torch.from_numpy(mask))
        draws = generator.standard_normal((coils, rows, side, 2), dtype=np.float32) * np.float32(protocol.noise)
        noises.append(torch.view_as_complex(torch.from_numpy(draws)))
    truth, sampled, maps = torch.stack(truths), torch.stack(masks)[:, None], _maps(side, coils)[:, window]
    y = sampled * (fft2c(truth[:, None] * maps) + torch.stack(noises))
    told = [condition_of(float(mask.float().mean())) for mask in sampled]
    return KSpaceScans(truth, sampled, maps, y, torch.tensor(told))


def shares_of(stacks: Sequence[Stack]) -> np.ndarray:
    """How often a slice is drawn from each stack: by the root of its slices."""
    weights = np.sqrt([stack.levels[0].shape[0] for stack in stacks])
    return weights / weights.sum()


def drawn_slice(stacks: Sequence[Stack], shares: np.ndarray, side: int, generator: np.random.Generator) -> Tensor:
    """A slice that is not air alone, which would teach nothing.

    Its field of view is as wide as the longer or the shorter side of the slice, or between: air around the body makes
    a scan easier, and a network that always saw some beside a head, which is longer than wide, needs it.
    """
    for _ in range(8):
        stack = stacks[generator.choice(len(stacks), p=shares)]
        slices, *sides = stack.levels[0].shape
        field = math.exp(generator.uniform(*np.log(sorted(sides))))
        image = whole_slice(stack, int(generator.integers(slices)), side, generator, MR_VALUE, field)
        if float(image.mean()) > 0.02:
            break
    return image


@lru_cache(maxsize=16)
def _maps(side: int, coils: int) -> Tensor:
    if coils == 1:
        return torch.ones(1, side, side, dtype=torch.complex64)
    return torch.from_numpy(coil_maps(Grid((1, side, side)), coils)[0])
