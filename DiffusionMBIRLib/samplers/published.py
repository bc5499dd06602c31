"""The samplers of the published code, step for step, where it departs from its papers.

``sample_mbir`` follows the code of Chung et al. 2023 (arXiv 2211.10655), ``sample_dds`` that of DDS (arXiv 2303.05754).
What the setting ``published`` changes, beside the difference across slices and the conjugate gradient of
:mod:`DiffusionMBIRLib.solvers.published`:

==========================  ===============================================  ===========================================
what                        published                                        ours
==========================  ===============================================  ===========================================
start                       noise at the highest level of training           a classical volume plus noise, or noise
levels of mbir              geometric, every 15th place in them one too low  geometric
levels of dds               every (1000 // steps)-th of DDPM's               Karras et al. 2022
corrector of mbir           at the predictor's level, one step for a         at the level reached, a step for each slice
                            sub-batch
end of mbir                 noisy, then one normalised back-projection step  one more evaluation and ADMM step
end of dds                  last evaluation without added noise              noise before every evaluation
==========================  ===============================================  ===========================================

What stays ours: the projector, whose adjoint is exact where theirs is back-projection times pi / (2 views), and the
scale of strengths.  A published rho or lam is to be divided by the largest eigenvalue of the published A^T A, which is
1.52 times the width in pixels whatever the views: rho = 10 at 256 x 256 is 0.026 here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..monitor import Checkpoint, Monitor, NoCheckpoint, Silent
from ..priors.networks import ddpm_sigmas
from ..solvers.consistency import ZTVConsistency
from ..solvers.published import final_step
from . import state
from .noise import CORRECTOR, PREDICTOR, START, Noise
from .predictor_corrector import predict, score_of
from .schedules import published_dds_steps

SLICES_PER_BATCH = 12  # of the CT code


def mbir_levels(sigma_min: float, sigma_max: float, count: int) -> list[tuple[float, float]]:
    """(sigma that the network is told, length of the predictor's jump) of each step, falling.

    Time runs from 1 to 1e-10, where the argument of the function says 1e-5, and is turned into a place in the table of
    levels by cutting off decimals in float32: 137 of 2000 places are one too low.  The last jump goes down to zero.
    """
    time = torch.linspace(1.0, 1e-10, count)
    table = torch.linspace(math.log(sigma_min), math.log(sigma_max), count).exp()
    place = (time * (count - 1)).long()
    below = torch.where(place == 0, 0.0, table[place - 1])
    jump = (table[place].square() - below.square()).sqrt()
    told = sigma_min * (sigma_max / sigma_min) ** time
    return list(zip(told.tolist(), jump.tolist(), strict=True))


def sample_mbir(
    denoiser: Denoiser,
    consistency: ZTVConsistency,
    levels: Sequence[tuple[float, float]],
    noise: Noise,
    *,
    snr: float = 0.16,
    slices_per_batch: int = SLICES_PER_BATCH,
    end_on_data: bool = True,
    monitor: Monitor | None = None,
    checkpoint: Checkpoint | None = None,
) -> Tensor:
    """Draw a volume (slices, rows, columns) from noise over ``levels`` of :func:`mbir_levels`.

    Each step: predictor and corrector at the same level, then ADMM on the noisy volume.  The corrector's step is one
    number for each sub-batch, so that ``slices_per_batch`` changes the result.  The last noise stays in.
    end_on_data: add :func:`~DiffusionMBIRLib.solvers.published.final_step`, as for CT; the code for MRI has none.
    """
    monitor, checkpoint = monitor or Silent(), checkpoint or NoCheckpoint()
    x = noise(0, START) * levels[0][0]
    done, x = state.restore(checkpoint, consistency, x, len(levels))
    for k in range(done, len(levels)):
        sigma, jump = levels[k]
        x = predict(denoiser, x, sigma, jump, noise(k, PREDICTOR))
        x = correct_sub_batches(denoiser, x, sigma, snr, noise(k, CORRECTOR), slices_per_batch)
        x = consistency(x)
        state.save(checkpoint, consistency, x, k + 1)
        state.watch(monitor, consistency, x, k + 1, len(levels), sigma)
    return final_step(consistency.A, consistency.y, x) if end_on_data else x


def correct_sub_batches(denoiser: Denoiser, x: Tensor, sigma: float, snr: float, noise: Tensor, batch: int) -> Tensor:
    """One Langevin step of size e = 2 (snr mean|n| / mean|score|)^2, with the means over the slices of a sub-batch."""
    score = score_of(denoiser, x, sigma)
    pieces = [(t.split(sub_batches(len(x), batch))) for t in (x, score, noise)]
    out = []
    for part, gradient, fresh in zip(*pieces, strict=True):
        ratio = _mean_norm(fresh) / _mean_norm(gradient).clamp_min(1e-30)
        step = 2 * (snr * ratio).square()
        out.append(part + step * gradient + (2 * step).sqrt() * fresh)
    return torch.cat(out)


def sub_batches(slices: int, batch: int) -> list[int]:
    """Sizes of the published sub-batches: slices // batch + 1 pieces of equal size, the last ones smaller or absent."""
    return [len(piece) for piece in torch.arange(slices).chunk(slices // batch + 1)]


def _mean_norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=(1, 2)).mean()


def dds_sigmas(count: int) -> list[float]:
    """The published levels for ``count`` steps, falling to DDPM's very first."""
    return [float(s) for s in ddpm_sigmas()[list(reversed(published_dds_steps(count)))]]


def sample_dds(
    denoiser: Denoiser,
    consistency: ZTVConsistency,
    sigmas: Sequence[float],
    noise: Noise,
    *,
    eta: float = 0.85,
    monitor: Monitor | None = None,
    checkpoint: Checkpoint | None = None,
) -> Tensor:
    """Draw a volume (slices, rows, columns) from noise over ``sigmas`` of :func:`dds_sigmas`.

    The published x is ours divided by sqrt(1 + sigma^2), and there starts as noise of variance 1.  No noise is added
    before the last evaluation, though its network expects the lowest level.
    """
    monitor, checkpoint = monitor or Silent(), checkpoint or NoCheckpoint()
    x = noise(0, START) * math.sqrt(1 + sigmas[0] ** 2)
    clean = x
    done, x = state.restore(checkpoint, consistency, x, len(sigmas) - 1)
    for k in range(done, len(sigmas)):
        sigma = sigmas[k]
        denoised = denoiser(x, sigma)
        clean = consistency(denoised)
        if k + 2 < len(sigmas):
            kept = sigmas[k + 1] * math.sqrt(1 - eta**2) / sigma
            x = torch.add(clean, x.sub_(denoised), alpha=kept)
            x.add_(noise(k + 1), alpha=sigmas[k + 1] * eta)
        elif k + 2 == len(sigmas):
            x = clean * math.sqrt(1 + sigmas[k + 1] ** 2)
        if k + 1 < len(sigmas):  # after the last evaluation x is no longer what counts
            state.save(checkpoint, consistency, x, k + 1)
        state.watch(monitor, consistency, clean, k + 1, len(sigmas), sigma)
    return clean
