"""The accelerated sampler: 10 to 50 network evaluations a slice.

After DDS (Chung, Lee and Ye, arXiv 2303.05754): denoise, make the estimate consistent with the data and smooth along
the slices, add noise again for the next level - here in the variance-exploding convention, from any starting volume
and over any list of noise levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..monitor import Checkpoint, Monitor, NoCheckpoint, Silent
from ..priors.base import Denoiser
from ..solvers.consistency import DataFit, ZTVConsistency
from . import state


def volume_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise for a whole volume; drawn at once, so that sub-batches never change a result.

    Complex: of variance 1 in the real and in the imaginary part, each of which a prior sees as an image.
    """
    n, rows, columns = like.shape
    if like.is_complex():
        parts = torch.randn((n, rows, columns, 2), generator=generator, device=generator.device, dtype=like.real.dtype)
        return torch.view_as_complex(parts).to(like.device)
    noise = torch.randn((rows, columns, n), generator=generator, device=generator.device, dtype=like.dtype)
    return noise.to(like.device).permute(2, 0, 1)


def watch(monitor: Monitor, consistency: DataFit, estimate: Tensor, done: int, total: int, sigma: float) -> None:
    """Tell of a step that is over: the estimate for whoever looks, and how well it fits the data."""
    monitor.preview(lambda: estimate, done)
    monitor.tick(state.STAGE, done, total, sigma=sigma, residual=consistency.residual(estimate))


def sample(
    denoiser: Denoiser,
    consistency: ZTVConsistency,
    sigmas: Sequence[float],
    start: Tensor,
    generator: torch.Generator,
    *,
    eta: float,
    monitor: Monitor | None = None,
    checkpoint: Checkpoint | None = None,
) -> Tensor:
    """Draw a volume (slices, rows, columns) that fits the data, from ``start`` plus noise at ``sigmas[0]``.

    sigmas: falling noise levels, one network evaluation each.  eta in [0, 1]: share of fresh noise in each renoising
    (0 repeats the noise that the network saw, 1 draws all of it anew).  Returns the last data-consistent estimate.
    """
    monitor, checkpoint = monitor or Silent(), checkpoint or NoCheckpoint()
    x = start + volume_noise(start, generator) * sigmas[0]
    clean = start
    done, x = state.restore(checkpoint, consistency, generator, x)
    for k in range(done, len(sigmas)):
        sigma = sigmas[k]
        denoised = denoiser(x, sigma)
        clean = consistency(denoised, sigma)
        if k + 1 < len(sigmas):
            # x <- clean + sigma' (sqrt(1 - eta^2) eps + eta n), where eps is the noise that the network saw
            kept = sigmas[k + 1] * math.sqrt(max(0.0, 1 - eta**2)) / sigma
            x = torch.add(clean, x.sub_(denoised), alpha=kept) if kept else clean
            x = torch.add(x, volume_noise(x, generator), alpha=sigmas[k + 1] * eta) if eta else x
            state.save(checkpoint, consistency, generator, x, k + 1)
        watch(monitor, consistency, clean, k + 1, len(sigmas), sigma)
    return clean
