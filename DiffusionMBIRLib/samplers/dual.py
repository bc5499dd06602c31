"""The dual-coupled sampler: 10 to 50 network evaluations a slice, with a dual variable between data and prior.

After dual-coupled plug-and-play diffusion (arXiv 2602.23214).  Data and prior are the two halves of an ADMM, whose
scaled dual u remembers what the denoiser took away from the data, so that it is not lost at the next level:

    x <- the data step, started at v - u
    v <- D(H(x + u), sigma)
    u <- (sigma' / sigma)^damping (u + x - v)          sigma': the next level

A scaled dual shrinks as its penalty grows; where that of the data step is (noise / sigma)^2, damping 2 is ADMM's.  H
adds noise where the spectrum of (x + u) - v, which is what the data step has changed, lies below that of white noise of
level sigma: the denoiser then sees an error of the level that it is told, at temperature 1.
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
    monitor: Monitor | None = None,
    checkpoint: Checkpoint | None = None,
) -> Tensor:
    """Draw a volume (slices, rows, columns) that fits the data, from ``start``.

    sigmas: falling noise levels, one network evaluation each.  start: the volume or what makes it.  damping: how fast
    the dual shrinks as levels fall, 0: not at all.  temperature: the level that H fills up to, over sigma; the
    lower, the nearer to the mean of all that fits.  Returns the last denoised volume, kept near the data by the dual.
    """
    monitor, checkpoint = monitor or Silent(), checkpoint or NoCheckpoint()
    done, guess = state.restore(checkpoint, data_step, start() if callable(start) else start)  # v - u
    dual = (checkpoint.load(STAGE) or {})["dual"] if done else torch.zeros_like(guess)
    for k in range(done, len(sigmas)):
        sigma = sigmas[k]
        x = data_step(guess, sigma)
        dual += x
        x -= guess  # what the data step has changed; each volume goes as soon as it can
        del guess
        clean = denoiser(completed(dual, x, noise(k), temperature * sigma), sigma)
        guess = clean
        if k + 1 < len(sigmas):
            dual = dual.sub_(clean).mul_((sigmas[k + 1] / sigma) ** damping)
            guess = clean - dual
            state.save(checkpoint, data_step, guess, k + 1, {"dual": dual})
        state.watch(monitor, data_step, clean, k + 1, len(sigmas), sigma)
        del x, clean
    return guess
