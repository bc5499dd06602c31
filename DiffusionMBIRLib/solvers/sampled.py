"""A preconditioner for k-space that was sampled along a trajectory: one over how densely it was.

A^H A of a Fourier transform at any points is a convolution of the image with the trajectory's point spread, between a
product with each coil's map and one with its conjugate.  The circulant matrix nearest to it (T. Chan 1988, doi
10.1137/0909051) holds the point spread times the maps' autocorrelation, and is undone by a Fourier transform each way.
Of a radial scan that is the ramp, as blurred in k-space as the coils vary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEAST_DENSITY = 1.5  # of the mean over all of k-space, below which it counts as not sampled
_SLICES_AT_ONCE = 8


class SamplingPreconditioner:
    """An approximate inverse of A^H A + pull + rho D^H D, where D takes differences across slices.

    kernel: complex (2 rows, 2 columns), the point spread as :func:`..operators.toeplitz.point_spread` gives it.
    maps: complex (slices, coils, rows, columns), of some slices; None: of one coil that sees all alike.
    coupling: rho times the square of D's weight.  pull: of the identity, which may change from call to call.
    Volumes are complex (slices, rows, columns).
    """

    def __init__(
        self,
        kernel: Tensor,
        slices: int,
        maps: Tensor | None = None,
        *,
        coupling: float,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.pull = 0.0
        density = sampling_density(kernel, maps)
        self._density = density.clamp_min_(LEAST_DENSITY * float(density.mean())).to(device, dtype.to_real())
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


def sampling_density(kernel: Tensor, maps: Tensor | None = None) -> Tensor:
    """Real (rows, columns), lowest frequency in the corner: samples for each cell of k-space as the coils see it."""
    rows, columns = (n // 2 for n in kernel.shape)
    maps = torch.ones(1, 1, rows, columns) if maps is None else maps
    folded = (kernel * _autocorrelation(maps)).reshape(2, rows, 2, columns).sum((0, 2))
    return torch.fft.fft2(folded).real.clamp_min(0)  # distances that differ by the size are one


def _autocorrelation(maps: Tensor) -> Tensor:
    """complex128 (2 rows, 2 columns) at every distance, 1 at [rows, columns]: of maps, summed over slices and coils."""
    rows, columns = maps.shape[-2:]
    power = torch.zeros(2 * rows, 2 * columns, dtype=torch.float64)
    for coil in maps.flatten(0, 1).to("cpu", torch.complex128):
        power += torch.view_as_real(torch.fft.fft2(coil, s=(2 * rows, 2 * columns))).square().sum(-1)
    correlation = torch.fft.fftshift(torch.fft.ifft2(power))
    return correlation / correlation[rows, columns].real
