"""A preconditioner for k-space that was sampled along a trajectory: one over how densely it was.

A^H A of a Fourier transform at any points is a convolution of the image with the trajectory's point spread; the
circulant one nearest to it (T. Chan 1988, doi 10.1137/0909051) is undone by a Fourier transform each way.  Of a radial
scan that is the ramp.  Coils whose maps have sum |S|^2 = 1 change little of it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEAST_DENSITY = 0.5  # samples a cell, below which k-space counts as not sampled
_SLICES_AT_ONCE = 8


class SamplingPreconditioner:
    """An approximate inverse of A^H A + pull + rho D^H D, where D takes differences across slices.

    kernel: complex (2 rows, 2 columns), the point spread as :func:`..operators.toeplitz.point_spread` gives it.
    coupling: rho times the square of D's weight.  pull: of the identity, which may change from call to call.
    Volumes are complex (slices, rows, columns).
    """

    def __init__(
        self, kernel: Tensor, slices: int, *, coupling: float, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.pull = 0.0
        self._density = sampling_density(kernel).clamp_min(LEAST_DENSITY).to(device, dtype.to_real())
        turns = torch.arange(slices, dtype=torch.float64) * (math.pi / slices)
        waves = torch.cos(turns[:, None] * (torch.arange(slices, dtype=torch.float64) + 0.5))
        self._waves = (waves / torch.linalg.vector_norm(waves, dim=1, keepdim=True)).to(device, dtype)
        self._across = [coupling * (2 - 2 * math.cos(turn)) for turn in turns.tolist()]

    def __call__(self, r: Tensor) -> Tensor:
        coupled = any(self._across)
        parts = torch.tensordot(self._waves, r, dims=1) if coupled else r.clone()
        for k, across in enumerate(self._across):
            spectrum = torch.fft.fft2(parts[k])
            torch.view_as_real(spectrum).div_((self._density + (self.pull + across))[..., None])
            parts[k] = torch.fft.ifft2(spectrum)
        return torch.tensordot(self._waves.T, parts, dims=1) if coupled else parts


def sampling_density(kernel: Tensor) -> Tensor:
    """Real (rows, columns), lowest frequency in the corner: samples for each cell of k-space, smoothed."""
    rows, columns = (n // 2 for n in kernel.shape)
    down, across = (1 - (torch.arange(2 * n, dtype=torch.float64) - n).abs() / n for n in (rows, columns))
    windowed = kernel * down[:, None] * across
    folded = windowed.reshape(2, rows, 2, columns).sum((0, 2))  # distances that differ by the size are one
    return torch.fft.fft2(folded).real.clamp_min(0)
