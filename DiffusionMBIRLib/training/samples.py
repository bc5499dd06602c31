"""A picture of what a prior has learnt: images drawn from noise alone."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ..devices import arithmetic
from ..priors.compact import CompactUNet, edm_denoise
from ..samplers.schedules import karras_sigmas


@torch.inference_mode()
def save_sample_grid(
    network: CompactUNet,
    sigma_data: float,
    sigma_max: float,
    size: int,
    path: Path,
    device: torch.device,
    precision: torch.dtype,
) -> None:
    """Draw 2 x 4 samples from noise of ``sigma_max`` (25 Euler steps of the probability-flow ODE) into one PNG.

    Of complex ones the magnitude, from zero to one.
    """
    import SimpleITK as sitk

    rows, columns = 2, 4
    generator = torch.Generator().manual_seed(0)
    sigmas = karras_sigmas(0.005, max(sigma_max, 0.01), 25)
    channels = network.config.image_channels
    x = torch.randn(rows * columns, channels, size, size, generator=generator).to(device) * sigmas[0]
    for here, there in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        level = torch.full((len(x),), here, device=device)
        with arithmetic(device, precision):
            clean = edm_denoise(network, x, level, sigma_data)
        x = clean + (x - clean) * (there / here)
    # Of CT -400 to 400 HU.
    images = x.norm(dim=1) if channels > 1 else (x[:, 0] - 0.3) / 0.4
    tiles = images.cpu().reshape(rows, columns, size, size).permute(0, 2, 1, 3).reshape(rows * size, columns * size)
    window = tiles.clamp(0, 1)
    temporary = path.with_name(f".{path.name}.tmp.png")
    sitk.WriteImage(sitk.GetImageFromArray((window * 255).byte().numpy()), str(temporary))
    os.replace(temporary, path)
