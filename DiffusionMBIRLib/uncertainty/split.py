"""What of a volume the measurement determines, and what the prior filled in."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..operators import LinearOperator
from ..solvers.cg import descend
from .cost import CG_STEPS

DETAIL = 0.25  # standard deviation of volumes in the value scale, which the noise of the data is compared with
LEAST_NOISE = 0.01  # relative: what the data say less exactly than this, they do not say
WINDOW = 5  # pixels across, of the mean energies that the share of a pixel is made of


def measured_part(
    A: LinearOperator, x: Tensor, noise: float, *, steps: int = CG_STEPS, poll: Callable[[], None] = lambda: None
) -> Tensor:
    """The part of x that the measurement determines: (A^T A + w)^-1 A^T A x, by conjugate gradient.

    Without noise and with all steps this is the projection of x onto the range of A^T; x less it is then what no
    measurement tells.  w = (noise / DETAIL)^2 is Wiener's weight for data with noise of that standard deviation, in the
    units of A x.  x: (slices, rows, columns) of A's domain, |A| = 1.
    """
    weight = max(noise / DETAIL, LEAST_NOISE) ** 2
    return descend(lambda z: A.gram(z).add_(z, alpha=weight), A.gram(x), torch.zeros_like(x), steps=steps, poll=poll)


def filled_share(measured: Tensor, filled: Tensor) -> Tensor:
    """How much of the detail around each pixel the prior filled in, from 0 to 1.

    The mean energy of the filled part in a window, over that of both parts less their means there; 0 where there is no
    detail at all.  measured, filled: (slices, rows, columns).
    """
    energies = [_mean((part - _mean(part)).square()) for part in (_real(measured), _real(filled))]
    both = energies[0] + energies[1]
    return torch.where(both > 1e-10, energies[1] / both.clamp_min(1e-10), 0.0)


def _real(x: Tensor) -> Tensor:
    return x.abs() if x.is_complex() else x


def _mean(x: Tensor) -> Tensor:
    padded = F.pad(x[:, None], [WINDOW // 2] * 4, mode="replicate")
    return F.avg_pool2d(padded, WINDOW, 1)[:, 0]
