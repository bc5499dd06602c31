"""Complex volumes and priors that know magnitudes only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..priors.base import Prior
from .slices import SliceDenoiser


@dataclass
class PartsDenoiser:
    """Real and imaginary part, each as if it were a magnitude: what the published code does.

    Two network evaluations a call; a magnitude has never been negative, a real part may well be.
    """

    parts: SliceDenoiser

    @property
    def prior(self) -> Prior:
        return self.parts.prior

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return torch.complex(self.parts(x.real, sigma), self.parts(x.imag, sigma))


@dataclass
class PhaseDenoiser:
    """The magnitude prior on Re(x exp(-i phase)); one network evaluation a call.

    phase: radians, (slices, rows, columns).  remainder: standard deviation of Im(x exp(-i phase)) in the clean volume,
    a number or a map; that part is taken as Gaussian around zero, whose posterior mean shrinks it.
    """

    magnitudes: SliceDenoiser
    phase: Tensor
    remainder: float | Tensor

    def __post_init__(self) -> None:
        self._turn = torch.polar(torch.ones_like(self.phase), -self.phase)

    @property
    def prior(self) -> Prior:
        return self.magnitudes.prior

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        turned = x * self._turn
        variance = self.remainder**2
        shrunk = turned.imag * (variance / (variance + sigma**2))
        return torch.complex(self.magnitudes(turned.real, sigma), shrunk).mul_(self._turn.conj())
