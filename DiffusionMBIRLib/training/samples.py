"""Images that a prior draws from noise alone, and a picture of them."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from ..devices import arithmetic
from ..priors.compact import CompactUNet, edm_denoise
from ..samplers.schedules import karras_sigmas

ROWS, COLUMNS = 2, 4  # of the picture


@torch.inference_mode()
def draw_samples(
    network: CompactUNet,
    sigma_data: float,
    sigma_max: float,
    size: int,
    device: torch.device,
    precision: torch.dtype,
    *,
    pixel_mm: float = 0.0,
) -> Tensor:
    """Samples (8, channels, size, size) from noise of ``sigma_max`` (25 Euler steps of the probability-flow ODE).

    pixel_mm: what a network that knows of pixel sizes is told; 0: nothing.
    """
    generator = torch.Generator().manual_seed(0)
    sigmas = karras_sigmas(0.005, max(sigma_max, 0.01), 25)
    count, channels = ROWS * COLUMNS, network.config.image_channels
    x = torch.randn(count, channels, size, size, generator=generator).to(device) * sigmas[0]
    told = torch.full((1,), pixel_mm, device=device) if network.config.knows_pixels else None
    for here, there in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        with arithmetic(device, precision):
            clean = edm_denoise(network, x, torch.full((1,), here, device=device), sigma_data, told)
        x = clean + (x - clean) * (there / here)
    return x.cpu()


def save_sample_grid(samples: Tensor, path: Path) -> None:
    """A PNG of samples (8, channels, size, size): of CT -400 to 400 HU, of complex ones the magnitude from 0 to 1."""
    import SimpleITK as sitk

    images, size = samples.norm(dim=1) if samples.shape[1] > 1 else (samples[:, 0] - 0.3) / 0.4, samples.shape[-1]
    tiles = images.reshape(ROWS, COLUMNS, size, size).permute(0, 2, 1, 3).reshape(ROWS * size, COLUMNS * size)
    temporary = path.with_name(f".{path.name}.tmp.png")
    sitk.WriteImage(sitk.GetImageFromArray((tiles.clamp(0, 1) * 255).byte().numpy()), str(temporary))
    os.replace(temporary, path)
