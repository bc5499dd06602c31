"""Volumes of which some values are known to be impossible."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..priors.base import Prior
from .slices import Denoiser


@dataclass
class BoundedDenoiser:
    """Cuts what another denoiser expects to the values that voxels can have.

    least: of all voxels, or voxel by voxel.  most: voxel by voxel, of the volume's shape, in the prior's value scale.
    """

    denoiser: Denoiser
    least: float | Tensor | None
    most: Tensor

    @property
    def prior(self) -> Prior:
        return self.denoiser.prior

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        clean = self.denoiser(x, sigma)
        if self.least is not None:
            clean.clamp_(min=self.least)
        return clean.clamp_(max=self.most)
