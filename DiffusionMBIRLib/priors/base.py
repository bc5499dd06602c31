"""The contract of a prior."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..models import ModelCard


@runtime_checkable
class Prior(Protocol):
    """A Gaussian denoiser with a card.  One sigma convention: x = x0 + sigma n, in the card's value scale.

    One that can be asked for parts of slices also tells its ``reach``, the pixels around a pixel that count for it, and
    of which ``multiple`` parts must begin at, if not of 1.
    """

    sigma_min: float
    sigma_max: float
    card: ModelCard

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """E[x0 | x0 + sigma n = x] for x (slices, channels, rows, columns) of any size; same shape, float32."""
        ...


def is_out_of_memory(error: BaseException) -> bool:
    """True for what torch raises when memory runs out, on CUDA (its own type) and on the CPU (a RuntimeError)."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
