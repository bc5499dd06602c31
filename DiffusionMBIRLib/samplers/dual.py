"""The dual-coupled sampler: 10 to 50 network evaluations a slice, with a dual variable between data and prior.

After dual-coupled plug-and-play diffusion (arXiv 2602.23214).  Data and prior are the two halves of an ADMM, whose
scaled dual u remembers what the denoiser took away from the data, so that it is not lost at the next level:

    x <- the data step, started at v - u
    w <- relaxation x + (1 - relaxation) v
    v <- D(H(w + u), sigma)
    u <- (sigma' / sigma)^damping (u + w - v)          sigma': the next level

A scaled dual shrinks as its penalty grows; where that of the data step is (noise / sigma)^2, damping 2 is ADMM's.
Relaxation above 1 goes further than the data step did, which few levels gain from (Eckstein and Bertsekas 1992, doi
10.1007/BF01581204).  H adds noise where the spectrum of (x + u) - v, which is what the data step has changed, lies
below that of white noise of level temperature times sigma: at 1 the denoiser sees an error of the level that it is
told.  At sqrt(2) a level is, where no data speak, a step of Langevin dynamics of size sigma^2 by Tweedie's formula, and
samples spread about as the posterior does; at 1 they have half of its variance or less.

Where no sample of the data depends on a voxel, every level is such a step, and the more levels the farther the volume
walks to what the prior makes up.  There u is 0 and v takes the step of the probability flow's ODE (Euler, as DDIM), the
share 1 - sigma' / sigma of the way to D, so that many levels go no farther than few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..monitor import Checkpoint, Monitor, NoCheckpoint, Silent
from ..solvers.consistency import DataFit
from . import state
from .noise import Noise
from .schedules import STAGE
from .spectrum import completed


def sample(
    denoiser: Denoiser,
    data_step: DataFit,
    sigmas: Sequence[float],
    start: Tensor | Callable[[], Tensor],
    noise: Noise,
    *,
    damping: float,
    temperature: float = 1.0,
    relaxation: float = 1.0,
    antithetic: bool = False,
    unseen: Tensor | None = None,
    monitor: Monitor | None = None,
    checkpoint: Checkpoint | None = None,
) -> Tensor:
    """Draw a volume (slices, rows, columns) that fits the data, from ``start``.

    sigmas: falling noise levels, one network evaluation each.  start: the volume or what makes it.  damping: how fast
    the dual shrinks as levels fall, 0: not at all.  temperature: the level that H fills up to, over sigma; the
    lower, the nearer to the mean of all that fits.  relaxation: in (0, 2), 1 for none.  antithetic: the mean of two
    evaluations, with the noise of H and with its negative, so that it counts in second order only.  unseen: true where
    the data do not depend on a voxel; None if there is no such voxel.  Returns the last denoised volume, kept near the
    data by the dual.
    """
    monitor, checkpoint = monitor or Silent(), checkpoint or NoCheckpoint()
    done, guess = state.restore(checkpoint, data_step, start() if callable(start) else start)  # v - u
    dual = (checkpoint.load(STAGE) or {})["dual"] if done else torch.zeros_like(guess)
    blind = None if unseen is None else unseen.flatten().nonzero()[:, 0]
    for k in range(done, len(sigmas)):
        sigma = sigmas[k]
        made_up = None if blind is None else guess.view(-1)[blind]
        x = data_step(guess, sigma)
        x -= guess  # what the data step has changed; each volume goes as soon as it can
        dual.mul_(2 - relaxation).add_(guess).add_(x, alpha=relaxation)  # w + u, where guess is v - u
        del guess
        seen = completed(dual, x, noise(k), temperature * sigma, noise.space.slabs)
        del x
        clean = denoiser(seen, sigma)
        if antithetic:
            clean = clean.add_(denoiser(seen.neg_().add_(dual, alpha=2), sigma)).div_(2)
        del seen
        if blind is not None and made_up is not None:
            clean.view(-1).index_copy_(0, blind, made_up.lerp_(clean.view(-1)[blind], _share(sigmas, k)))
            del made_up
        guess = clean
        if k + 1 < len(sigmas):
            dual = dual.sub_(clean).mul_((sigmas[k + 1] / sigma) ** damping)
            if blind is not None:
                dual.view(-1).index_fill_(0, blind, 0)
            guess = clean - dual
            state.save(checkpoint, data_step, guess, k + 1, {"dual": dual})
        state.watch(monitor, data_step, clean, k + 1, len(sigmas), sigma)
        del clean
    return guess


def _share(sigmas: Sequence[float], k: int) -> float:
    """Of the way to the denoised volume, what Euler's step from level k takes; at the last level as at that before."""
    at = min(k, len(sigmas) - 2)
    return 1 - sigmas[at + 1] / sigmas[at] if at >= 0 else 1.0
