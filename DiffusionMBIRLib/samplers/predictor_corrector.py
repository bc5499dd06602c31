"""The paper's samplers: predictor-corrector diffusion with a step onto the data at every level.

Chung et al. 2023 (arXiv 2211.10655), Algorithm 1 (fast, ADMM variables shared across steps) and Algorithm 2 (slow,
ADMM restarted at every step); the predictor-corrector pair is that of Song et al. 2021 (arXiv 2011.13456), Algorithms 2
and 3, for the variance-exploding process.  With a projection in place of the ADMM it is slice-wise diffusion: for MRI
score-MRI (Chung and Ye 2022, doi 10.1016/j.media.2022.102479), for CT the solver that Chung et al. 2023 compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..monitor import Checkpoint, Monitor, NoCheckpoint, Silent
from ..solvers.consistency import DataFit
from . import state
from .noise import CORRECTOR, PREDICTOR, Noise, noised_start


def sample(
    denoiser: Denoiser,
    data_step: DataFit,
    sigmas: Sequence[float],
    start: Tensor | Callable[[], Tensor],
    noise: Noise,
    *,
    snr: float = 0.16,
    share_variables: bool = True,
    after_predictor: bool = False,
    monitor: Monitor | None = None,
    checkpoint: Checkpoint | None = None,
) -> Tensor:
    """Draw a volume (slices, rows, columns) that fits the data, from ``start`` plus noise at ``sigmas[0]``.

    sigmas: falling noise levels, two network evaluations each.  start: the volume or what makes it.  snr:
    signal-to-noise ratio of the Langevin corrector, whose step is set slice by slice.  share_variables: Algorithm 1 if
    true, Algorithm 2 if false.  after_predictor: the data step follows the predictor as well as the corrector.  The
    published code ends on the last noisy iterate; here one more evaluation and data step end on a clean estimate.
    """
    monitor, checkpoint = monitor or Silent(), checkpoint or NoCheckpoint()
    x = noised_start(start, noise, sigmas[0])
    done, x = state.restore(checkpoint, data_step, x, len(sigmas))
    for k in range(done, len(sigmas)):
        sigma = sigmas[k]
        lower = sigmas[k + 1] if k + 1 < len(sigmas) else sigmas[-1]
        if lower < sigma:
            x = predict(denoiser, x, sigma, (sigma**2 - lower**2) ** 0.5, noise(k, PREDICTOR))
            x = data_step(x) if after_predictor else x
        x = correct(denoiser, x, lower, snr, noise(k, CORRECTOR))
        if not share_variables:
            data_step.reset()
        x = data_step(x)
        state.save(checkpoint, data_step, x, k + 1)
        state.watch(monitor, data_step, x, k + 1, len(sigmas) + 1, sigma)
    if not share_variables:
        data_step.reset()
    clean = data_step(denoiser(x, sigmas[-1]), sigmas[-1])
    state.watch(monitor, data_step, clean, len(sigmas) + 1, len(sigmas) + 1, sigmas[-1])
    return clean


def predict(denoiser: Denoiser, x: Tensor, sigma: float, jump: float, noise: Tensor) -> Tensor:
    """One step of the reverse diffusion from sigma to sqrt(sigma^2 - jump^2): x + jump^2 score + jump n."""
    return torch.add(x, score_of(denoiser, x, sigma), alpha=jump**2).add_(noise, alpha=jump)


def correct(denoiser: Denoiser, x: Tensor, sigma: float, snr: float, noise: Tensor) -> Tensor:
    """One Langevin step at sigma, its size e = 2 (snr |n| / |score|)^2 for each slice."""
    score = score_of(denoiser, x, sigma)
    ratio = torch.linalg.vector_norm(noise, dim=(1, 2)) / torch.linalg.vector_norm(score, dim=(1, 2)).clamp_min(1e-12)
    step = (2 * (snr * ratio).square())[:, None, None]
    return x + step * score + (2 * step).sqrt() * noise


def score_of(denoiser: Denoiser, x: Tensor, sigma: float) -> Tensor:
    """The gradient of ln p(x; sigma), by Tweedie's formula: (D(x; sigma) - x) / sigma^2."""
    return denoiser(x, sigma).sub_(x).div_(sigma**2)
