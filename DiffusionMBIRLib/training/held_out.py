"""How well a network denoises fixed images of people that it has not seen."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..devices import arithmetic
from ..models import ValueScale
from ..priors.compact import edm_denoise
from .base import Losses
from .slices import SliceSampler, fixed_images
from .stacks import Stack

SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_IMAGES_PER_BATCH = 16


def edm_losses(
    network: nn.Module,
    clean: Tensor,
    sigma: Tensor,
    noise: Tensor,
    sigma_data: float,
    pixel_mm: Tensor | None = None,
    teacher: nn.Module | None = None,
) -> Tensor:
    """EDM's weighted denoising loss (batch,) (Karras et al. 2022, Table 1): about 1 for an untrained network at every
    sigma.  With a teacher, from what that one makes of the same noisy images in place of the clean ones.
    """
    s = sigma[:, None, None, None]
    weight = (s.square() + sigma_data**2) / (s * sigma_data).square()
    noisy, target = clean + s * noise, clean
    if teacher is not None:
        with torch.no_grad():
            target = edm_denoise(teacher, noisy, sigma, sigma_data)
    error = edm_denoise(network, noisy, sigma, sigma_data, pixel_mm) - target
    return (weight * error.square()).mean(dim=(1, 2, 3))


@dataclass(frozen=True)
class HeldOut:
    """Images (images, channels, size, size) in the value scale, and the sizes of their pixels in mm (images,)."""

    images: Tensor
    pixel_mm: Tensor

    @classmethod
    def of(cls, stacks: Sequence[Stack], *, size: int, value: ValueScale, count: int, channels: int = 1) -> HeldOut:
        """Windows of slices as they were acquired; see :func:`.slices.fixed_images`."""
        acquired = [stack for stack in stacks if not stack.across]
        return cls(*fixed_images(acquired, size=size, value=value, count=count, channels=channels))

    @classmethod
    def of_shapes(cls, sampler: SliceSampler, count: int) -> HeldOut:
        """Of a sampler without volumes: images of another seed than those to train on."""
        other = copy.copy(sampler)
        other.seed, other.rank = 0x5EED + sampler.seed, 0
        return cls(*other.batch(2**31, count))

    @torch.inference_mode()
    def losses(
        self, network: nn.Module, sigma_data: float, *, told: bool, device: torch.device, precision: torch.dtype
    ) -> Losses:
        """Weighted loss with fixed noise: for each noise level, and for pixels from so many mm to twice that, there the
        mean over the levels.  told: whether the network takes pixel sizes.
        """
        rows = []
        for sigma in SIGMAS:
            generator, parts = torch.Generator().manual_seed(1), []
            for start in range(0, len(self.images), _IMAGES_PER_BATCH):
                clean = self.images[start : start + _IMAGES_PER_BATCH]
                pixel_mm = self.pixel_mm[start : start + _IMAGES_PER_BATCH].to(device) if told else None
                noise = torch.randn(clean.shape, generator=generator).to(device)
                level = torch.full((len(clean),), sigma, device=device)
                with arithmetic(device, precision):
                    parts.append(edm_losses(network, clean.to(device), level, noise, sigma_data, pixel_mm).cpu())
            rows.append(torch.cat(parts))
        return self._tables(torch.stack(rows))

    def _tables(self, losses: Tensor) -> Losses:
        """losses: (levels, images)."""
        octaves = self.pixel_mm.log2().floor()
        per_sigma = {f"{sigma:g}": row.mean() for sigma, row in zip(SIGMAS, losses, strict=True)}
        per_pixel = {f"{2.0**k:g}": losses[:, octaves == k].mean() for k in sorted(set(octaves.tolist()))}
        tables = {"per_sigma": per_sigma, "per_pixel_mm": per_pixel}
        return {name: {k: round(float(v), 5) for k, v in table.items()} for name, table in tables.items()}
