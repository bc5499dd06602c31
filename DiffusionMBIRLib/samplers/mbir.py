"""The paper's samplers: predictor-corrector diffusion with an ADMM step at every level.

Chung et al. 2023 (arXiv 2211.10655), Algorithm 1 (fast, ADMM variables shared across steps) and Algorithm 2 (slow,
ADMM restarted at every step); the predictor-corrector pair is that of Song et al. 2021 (arXiv 2011.13456), Algorithms 2
and 3, for the variance-exploding process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..monitor import Checkpoint, Monitor, NoCheckpoint, Silent
from ..priors.base import Denoiser
from ..solvers.consistency import ZTVConsistency
from . import state
from .dds import noised_start, volume_noise, watch


def sample(
    denoiser: Denoiser,
    consistency: ZTVConsistency,
    sigmas: Sequence[float],
    start: Tensor | Callable[[], Tensor],
    generator: torch.Generator,
    *,
    snr: float = 0.16,
    share_variables: bool = True,
    monitor: Monitor | None = None,
    checkpoint: Checkpoint | None = None,
) -> Tensor:
    """Draw a volume (slices, rows, columns) that fits the data, from ``start`` plus noise at ``sigmas[0]``.

    sigmas: falling noise levels, two network evaluations each.  start: the volume or what makes it.  snr:
    signal-to-noise ratio of the Langevin corrector, whose step is set slice by slice.  share_variables: Algorithm 1 if
    true, Algorithm 2 if false.  The published code ends on the last noisy iterate; here one more evaluation and ADMM
    step end on a clean, data-consistent estimate.
    """
    monitor, checkpoint = monitor or Silent(), checkpoint or NoCheckpoint()
    x = noised_start(start, generator, sigmas[0])
    done, x = state.restore(checkpoint, consistency, generator, x)
    for k in range(done, len(sigmas)):
        sigma = sigmas[k]
        lower = sigmas[k + 1] if k + 1 < len(sigmas) else sigmas[-1]
        if lower < sigma:
            x = predict(denoiser, x, sigma, lower, volume_noise(x, generator))
        x = correct(denoiser, x, lower, snr, volume_noise(x, generator))
        if not share_variables:
            consistency.reset()
        x = consistency(x)
        state.save(checkpoint, consistency, generator, x, k + 1)
        watch(monitor, consistency, x, k + 1, len(sigmas) + 1, sigma)
    if not share_variables:
        consistency.reset()
    clean = consistency(denoiser(x, sigmas[-1]), sigmas[-1])
    watch(monitor, consistency, clean, len(sigmas) + 1, len(sigmas) + 1, sigmas[-1])
    return clean


def predict(denoiser: Denoiser, x: Tensor, sigma: float, lower: float, noise: Tensor) -> Tensor:
    """One step of the reverse diffusion from sigma to lower: x + (sigma^2 - lower^2) score + sqrt(...) n."""
    step = sigma**2 - lower**2
    score = denoiser(x, sigma).sub_(x).div_(sigma**2)
    return torch.add(x, score, alpha=step).add_(noise, alpha=step**0.5)


def correct(denoiser: Denoiser, x: Tensor, sigma: float, snr: float, noise: Tensor) -> Tensor:
    """One Langevin step at sigma, its size e = 2 (snr |n| / |score|)^2 for each slice."""
    score = denoiser(x, sigma).sub_(x).div_(sigma**2)
    ratio = torch.linalg.vector_norm(noise, dim=(1, 2)) / torch.linalg.vector_norm(score, dim=(1, 2)).clamp_min(1e-12)
    step = (2 * (snr * ratio).square())[:, None, None]
    return x + step * score + (2 * step).sqrt() * noise
