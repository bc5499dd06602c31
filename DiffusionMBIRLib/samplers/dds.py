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

from ..monitor import Checkpoint, Monitor, NoCheckpoint, Silent
from ..priors.base import Denoiser
from ..solvers.consistency import DataFit, ZTVConsistency
from . import state


def volume_noise(like: Tensor, generator: torch.Generator, span: int = 1) -> Tensor:
    """Standard normal noise for a whole volume; drawn at once, so that sub-batches never change a result.

    Complex: of variance 1 in the real and in the imaginary part, each of which a prior sees as an image.
    span: every so many slices an independent image; slices between two of them are cos(t) one + sin(t) other, which
    keeps the variance (noise shared along z, after ISCS, arXiv 2602.04162).
    """
    if span > 1:
        return _interpolated_noise(like, generator, span)
    n, rows, columns = like.shape
    if like.is_complex():
        parts = torch.randn((n, rows, columns, 2), generator=generator, device=generator.device, dtype=like.real.dtype)
        return torch.view_as_complex(parts).to(like.device)
    noise = torch.randn((rows, columns, n), generator=generator, device=generator.device, dtype=like.dtype)
    return noise.to(like.device).permute(2, 0, 1)


def _interpolated_noise(like: Tensor, generator: torch.Generator, span: int) -> Tensor:
    """Noise that turns from one independent image to the next over ``span`` slices."""
    n = len(like)
    images = volume_noise(like[:1].expand((n - 1) // span + 2, -1, -1), generator)
    slices = torch.arange(n, device=like.device)
    before = slices // span
    angle = (slices - span * before) * (0.5 * math.pi / span)
    shares = images.new_zeros((len(images), n))
    shares[before, slices], shares[before + 1, slices] = angle.cos().to(shares), angle.sin().to(shares)
    noise = torch.matmul(images.permute(1, 2, 0), shares).permute(2, 0, 1)
    return noise.contiguous() if like.is_complex() else noise  # each in the layout that its operators like


def noised(x: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """x + sigma noise, in the memory of the noise."""
    return torch.add(x, noise, alpha=sigma, out=noise)


def noised_start(
    start: Tensor | Callable[[], Tensor], generator: torch.Generator, sigma: float, span: int = 1
) -> Tensor:
    """start + sigma noise.  A function is asked for the volume here, so that nobody else goes on holding it."""
    volume = start() if callable(start) else start
    return noised(volume, volume_noise(volume, generator, span), sigma)


def watch(monitor: Monitor, consistency: DataFit, estimate: Tensor, done: int, total: int, sigma: float) -> None:
    """Tell of a step that is over: the estimate for whoever looks, and how well it fits the data.

    The fit is looked at in every fifth step: it takes half a step of conjugate gradient and the device has to wait.
    """
    if done % 5 == 1 or done == total or consistency.misfit is None:
        consistency.misfit = consistency.residual(estimate)
    monitor.preview(lambda: estimate, done)
    monitor.tick(state.STAGE, done, total, sigma=sigma, residual=consistency.misfit)


def sample(
    denoiser: Denoiser,
    consistency: ZTVConsistency,
    sigmas: Sequence[float],
    start: Tensor | Callable[[], Tensor],
    generator: torch.Generator,
    *,
    eta: float,
    noise_span: int = 1,
    share_variables: bool = True,
    extrapolation: float = 0.0,
    monitor: Monitor | None = None,
    checkpoint: Checkpoint | None = None,
) -> Tensor:
    """Draw a volume (slices, rows, columns) that fits the data, from ``start`` plus noise at ``sigmas[0]``.

    sigmas: falling noise levels, one network evaluation each.  start: the volume or what makes it.  eta in [0, 1]:
    share of fresh noise in each renoising (0 repeats the noise that the network saw, 1 draws all of it anew).
    noise_span: see :func:`volume_noise`.  share_variables: z and w live on from one level to the next.  extrapolation:
    so much of its change since the last level is added to each denoised volume, since few levels are far apart.
    Returns the last data-consistent estimate.
    """
    monitor, checkpoint = monitor or Silent(), checkpoint or NoCheckpoint()
    x = noised_start(start, generator, sigmas[0], noise_span)
    done, x = state.restore(checkpoint, consistency, generator, x)
    last = (checkpoint.load(state.STAGE) or {}).get("last") if extrapolation and done else None
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
            x = noised(x, volume_noise(x, generator, noise_span), lower * eta) if eta else x
            state.save(checkpoint, consistency, generator, x, k + 1, {} if last is None else {"last": last})
        watch(monitor, consistency, clean, k + 1, len(sigmas), sigma)
    return clean
