"""The accelerated sampler: 10 to 50 network evaluations a slice.

After DDS (Chung, Lee and Ye, arXiv 2303.05754): denoise, make the estimate consistent with the data and smooth along
the slices, add noise again for the next level - here in the variance-exploding convention, from any starting volume
and over any list of noise levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..monitor import Checkpoint, Monitor, NoCheckpoint, Silent
from ..solvers.consistency import ZTVConsistency
from . import state
from .noise import Noise, noised, noised_start


def sample(
    denoiser: Denoiser,
    consistency: ZTVConsistency,
    sigmas: Sequence[float],
    start: Tensor | Callable[[], Tensor],
    noise: Noise,
    *,
    eta: float,
    share_variables: bool = True,
    extrapolation: float = 0.0,
    temperature: float = 1.0,
    monitor: Monitor | None = None,
    checkpoint: Checkpoint | None = None,
) -> Tensor:
    """Draw a volume (slices, rows, columns) that fits the data, from ``start`` plus noise at ``sigmas[0]``.

    sigmas: falling noise levels, one network evaluation each.  start: the volume or what makes it.  eta in [0, 1]:
    share of fresh noise in each renoising (0 repeats the noise that the network saw, 1 draws all of it anew).
    share_variables: z and w live on from one level to the next.  extrapolation:
    so much of its change since the last level is added to each denoised volume, since few levels are far apart.
    temperature: so much of a level's noise is added, while the network is told all of it: below 1 nearer to the mean.
    Returns the last data-consistent estimate.
    """
    monitor, checkpoint = monitor or Silent(), checkpoint or NoCheckpoint()
    x = noised_start(start, noise, sigmas[0] * temperature)
    done, x = state.restore(checkpoint, consistency, x, len(sigmas) - 1)
    last = state.kept(checkpoint, "last", x) if extrapolation else None
    for k in range(done, len(sigmas)):
        sigma = sigmas[k]
        clean = denoiser(x, sigma)  # in the place of the last one: each volume goes as soon as it can
        if not share_variables:
            consistency.reset()
        # x <- clean + sigma' (sqrt(1 - eta^2) eps + eta n), where eps is the noise that the network saw
        lower = sigmas[k + 1] if k + 1 < len(sigmas) else 0.0
        kept = lower * math.sqrt(max(0.0, 1 - eta**2)) / sigma
        x = x.sub_(clean) if kept else clean
        if extrapolation:
            last, clean = clean, clean if last is None else torch.lerp(last, clean, 1 + extrapolation)
        clean = consistency(clean, sigma)
        if k + 1 < len(sigmas):
            x = noised(clean, x, kept) if kept else clean
            x = noised(x, noise(k + 1), lower * eta * temperature) if eta else x
            state.save(checkpoint, consistency, x, k + 1, {} if last is None else {"last": last})
        state.watch(monitor, consistency, clean, k + 1, len(sigmas), sigma)
    return clean
