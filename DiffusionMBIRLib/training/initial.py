"""Weights to start from: those of another compact prior, brought into the network that is to be trained."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..priors.compact import CompactConfig
from .complex_images import for_real_and_imaginary


def fitted(weights: Mapping[str, Tensor], config: CompactConfig) -> dict[str, Tensor]:
    """The weights of a prior as a network of this configuration takes them, where the widths are the same.

    Of levels that have fewer blocks the first ones are used; a network that is to know pixel sizes starts without; one
    of complex images starts from magnitudes.  What does not fit even so is left to whoever loads the weights.
    """
    out = {name: value for name, value in weights.items() if _is_used(name, config)}
    if config.knows_pixels and "pixels.weight" not in out:
        out["pixels.weight"] = torch.zeros(config.embedding, 33)
    if config.image_channels == 2 and out["stem.weight"].shape[1] == config.stem**2:
        out = for_real_and_imaginary(out)
    return out


def _is_used(name: str, config: CompactConfig) -> bool:
    """False for residual blocks beyond those of the network, encoder.LEVEL.BLOCK... or decoder.LEVEL.BLOCK..."""
    place = re.match(r"(?:encoder|decoder)\.(\d+)\.(\d+)\.", name)
    if not place:
        return config.knows_pixels or not name.startswith("pixels.")
    return int(place[2]) < config.blocks_at(int(place[1]))
