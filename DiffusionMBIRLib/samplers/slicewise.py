"""Slice-wise diffusion: predictor and corrector, each followed by a step onto the data; slices are not coupled.

For MRI this is score-MRI (Chung and Ye 2022, doi 10.1016/j.media.2022.102479: x + A^H (y - A x)), for CT the solver
that Chung et al. 2023 (arXiv 2211.10655) compare with, where the step is divided by how much each pixel was measured,
A^T A 1, as in algebraic reconstruction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..monitor import Checkpoint, Monitor, NoCheckpoint, Silent
from ..operators.base import LinearOperator
from ..priors.base import Denoiser
from ..solvers.consistency import DataFit
from . import state
from .dds import noised_start, volume_noise, watch
from .mbir import correct, predict


class Projection(DataFit):
    """x + A^H (y - A x) / reach, ``steps`` times.

    For one coil of MRI, with reach 1, it puts the measured samples in their places.  normalised: reach = A^T A 1, for
    operators that sum many pixels into a value; pixels that nothing has measured stay.
    """

    def __init__(self, A: LinearOperator, y: Tensor, *, normalised: bool = False, steps: int = 1) -> None:
        super().__init__(A, y)
        self.steps = steps
        self._share: Tensor | None = None
        if normalised:
            reach = A.gram(torch.ones(A.domain, dtype=A.dtype, device=A.device))
            self._share = torch.where(reach > 1e-6 * reach.max(), 1 / reach, 0.0)

    def __call__(self, x: Tensor, sigma: float | None = None) -> Tensor:
        """x: (slices, rows, columns).  Returns the updated volume."""
        for _ in range(self.steps):
            step = self.slope(x)
            x = step.add_(x) if self._share is None else torch.addcmul(x, step, self._share)
        return x


def sample(
    denoiser: Denoiser,
    consistency: Projection,
    sigmas: Sequence[float],
    start: Tensor | Callable[[], Tensor],
    generator: torch.Generator,
    *,
    snr: float = 0.16,
    monitor: Monitor | None = None,
    checkpoint: Checkpoint | None = None,
) -> Tensor:
    """Draw a volume (slices, rows, columns) slice by slice, from ``start`` plus noise at ``sigmas[0]``.

    sigmas: falling noise levels, two network evaluations each and one at the end, which leaves no noise behind.
    start: the volume or what makes it.
    """
    monitor, checkpoint = monitor or Silent(), checkpoint or NoCheckpoint()
    x = noised_start(start, generator, sigmas[0])
    done, x = state.restore(checkpoint, consistency, generator, x)
    for k in range(done, len(sigmas)):
        sigma = sigmas[k]
        lower = sigmas[k + 1] if k + 1 < len(sigmas) else sigmas[-1]
        if lower < sigma:
            x = consistency(predict(denoiser, x, sigma, lower, volume_noise(x, generator)))
        x = consistency(correct(denoiser, x, lower, snr, volume_noise(x, generator)))
        state.save(checkpoint, consistency, generator, x, k + 1)
        watch(monitor, consistency, x, k + 1, len(sigmas) + 1, sigma)
    clean = consistency(denoiser(x, sigmas[-1]))
    watch(monitor, consistency, clean, len(sigmas) + 1, len(sigmas) + 1, sigmas[-1])
    return clean
