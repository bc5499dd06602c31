"""Synthetic training images: ellipses and bars of constant value, some of metal, for what no patient has shown."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MOST_SHAPES = 12
BODY = (0.25, 0.65)  # values of the largest shape: of CT -500 to 300 HU
VALUES = (0.0, 1.25)  # of the shapes in it: of CT up to 1500 HU
METAL, METAL_SHARE = 2.0, 0.1  # of CT 3000 HU, and the share of the shapes that are of it


def random_shapes(size: int, generator: np.random.Generator, *, metal: bool) -> Tensor:
    """An image (size, size) in the value scale: shapes inside a large one, on a background of zero.

    Edges are means over 2 x 2 samples a pixel.
    """
    axis = (np.arange(2 * size, dtype=np.float32) + 0.5) / size - 1
    y, x = axis[:, None], axis[None]
    image = np.zeros((2 * size, 2 * size), np.float32)
    body = _inside(y, x, generator, (0.5, 1.1), 0.2)
    image[body] = generator.uniform(*BODY)
    for _ in range(int(generator.integers(1, MOST_SHAPES + 1))):
        shape = _inside(y, x, generator, (0.02, 0.5), 0.8) & body
        is_metal = metal and generator.random() < METAL_SHARE
        image[shape] = METAL if is_metal else generator.uniform(*VALUES)
    return F.avg_pool2d(torch.from_numpy(image)[None, None], 2)[0, 0]


def _inside(
    y: np.ndarray, x: np.ndarray, generator: np.random.Generator, radii: tuple[float, float], shift: float
) -> np.ndarray:
    """Where an ellipse or, one time in four, a bar lies; radii and shift in halves of the image."""
    a, b = np.exp(generator.uniform(math.log(radii[0]), math.log(radii[1]), 2))
    cy, cx = generator.uniform(-shift, shift, 2)
    angle = generator.uniform(0, math.pi)
    u = (x - cx) * np.float32(math.cos(angle) / a) + (y - cy) * np.float32(math.sin(angle) / a)
    v = (y - cy) * np.float32(math.cos(angle) / b) - (x - cx) * np.float32(math.sin(angle) / b)
    if generator.random() < 0.25:
        return np.asarray(np.maximum(np.abs(u), np.abs(v)) < 1)
    return np.asarray(u * u + v * v < 1)
