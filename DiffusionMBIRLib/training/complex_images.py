"""What training needs for a prior of complex images: random phases for magnitudes, and weights to start from.

Smooth phases are of the family that :func:`DiffusionMBIRLib.simulation.mr.smooth_phase` draws from, seen through a
window of the field of view; a share has phase at the scale of vessels and noise as well, which smooth estimates miss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..simulation.mr import PHASE_STD

WAVES = 6
WINDOW = (0.25, 1.0)  # side of a training image over the longest side of the field of view
ROUGH_SHARE = 0.3  # of the images that have a phase which is not smooth
ROUGH_STD = (0.05, 0.4)  # radians of it
ROUGH_GRAIN = 8  # px, the coarsest


def random_phase(size: int, generator: np.random.Generator) -> Tensor:
    """Radians (size, size) float32.  A constant drawn from the whole circle lets no direction be the usual one."""
    side = 2 * generator.uniform(*WINDOW)  # of the image; the field of view runs from -1 to 1
    axis = np.linspace(-side / 2, side / 2, size, dtype=np.float32)
    y, x = axis[:, None], axis[None]
    out = np.full((size, size), generator.uniform(0, 2 * math.pi), dtype=np.float32)
    for _ in range(WAVES):
        ky, kx = generator.uniform(-0.75, 0.75, 2) * 2 * math.pi
        # Each wave varies by half its square on average over all its phases.
        amplitude = PHASE_STD * generator.normal() * math.sqrt(2 / WAVES)
        out += np.float32(amplitude) * np.cos(ky * y + (kx * x + generator.uniform(0, 2 * math.pi))).astype(np.float32)
    phase = torch.from_numpy(out)
    return phase + _rough(size, generator) if generator.random() < ROUGH_SHARE else phase


def _rough(size: int, generator: np.random.Generator) -> Tensor:
    grain = int(generator.integers(1, ROUGH_GRAIN + 1))
    coarse = generator.standard_normal((1, 1, -(-size // grain), -(-size // grain)), dtype=np.float32)
    fine = F.interpolate(torch.from_numpy(coarse), size=(size, size), mode="bicubic", align_corners=False)[0, 0]
    return fine * generator.uniform(*ROUGH_STD)


def with_phase(image: Tensor, generator: np.random.Generator) -> Tensor:
    """Real and imaginary part (2, size, size) of a magnitude image (size, size) under a random phase."""
    phase = random_phase(image.shape[-1], generator)
    return torch.stack((image * phase.cos(), image * phase.sin()))


def for_real_and_imaginary(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a compact network for magnitudes, made to fit one of two channels.

    The first layer's features and the last layer's inputs answer by turns to the sum and to the difference of the two
    parts, each over the root of two: two directions at right angles in which a complex image is taken for a magnitude.
    """
    sign = torch.ones(weights["stem.weight"].shape[0])
    sign[1::2] = -1
    stem, head = weights["stem.weight"] / math.sqrt(2), weights["head.weight"] / math.sqrt(2)
    return dict(weights) | {
        "stem.weight": torch.cat([stem, stem * sign.to(stem)[:, None, None, None]], 1),
        "head.weight": torch.cat([head, head * sign.to(head)[:, None, None]]),
        "head.bias": torch.zeros(2 * len(weights["head.bias"])),
    }
