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
    monitor: Monitor | None = None,
    checkpoint: Checkpoint | None = None,
) -> Tensor:
    """Draw a volume (slices, rows, columns) that fits the data, from ``start``.

    sigmas: falling noise levels, one network evaluation each.  start: the volume or what makes it.  damping: how fast
    the dual shrinks as levels fall, 0: not at all.  temperature: the level that H fills up to, over sigma; the
    lower, the nearer to the mean of all that fits.  relaxation: in (0, 2), 1 for none.  antithetic: the mean of two
    evaluations, with the noise of H and with its negative, so that it counts in second order only.  Returns the last
    denoised volume, kept near the data by the dual.
    """
    monitor, checkpoint = monitor or Silent(), checkpoint or NoCheckpoint()
    done, guess = state.restore(checkpoint, data_step, start() if callable(start) else start)  # v - u
    dual = (checkpoint.load(STAGE) or {})["dual"] if done else torch.zeros_like(guess)
    for k in range(done, len(sigmas)):
        sigma = sigmas[k]
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
        guess = clean
        if k + 1 < len(sigmas):
            dual = dual.sub_(clean).mul_((sigmas[k + 1] / sigma) ** damping)
            guess = clean - dual
            state.save(checkpoint, data_step, guess, k + 1, {"dual": dual})
        state.watch(monitor, data_step, clean, k + 1, len(sigmas), sigma)
        del clean
    return guess
