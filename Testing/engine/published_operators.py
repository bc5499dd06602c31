"""The operators of the published code and its noise, for the replay of what was recorded with it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from DiffusionMBIRLib.operators import LinearOperator, Space


class RotatingRadon(LinearOperator):
    """Sums of the columns of turned slices, and an unfiltered back-projection times pi / (2 views): not the adjoint.

    x: (slices, size, size).  y: (slices, detector, views), as it was recorded.
    """

    exact_adjoint = False

    def __init__(self, size: int, angles_deg: Tensor, slices: int) -> None:
        self.size, self.angles = size, torch.deg2rad(angles_deg.float())
        self.wide = math.ceil(math.sqrt(2) * size)
        before = self.wide // 2 - size // 2  # the centres coincide
        self.margin = (before, self.wide - size - before)
        shape = (slices, self.wide, len(angles_deg))
        super().__init__(Space((slices, size, size)), Space(shape))

    def forward(self, x: Tensor) -> Tensor:
        wide = F.pad(x[:, None], (*self.margin, *self.margin))
        views = []
        for angle in self.angles:
            cos, sin = angle.cos(), angle.sin()
            turn = torch.stack([torch.stack([cos, sin, cos * 0]), torch.stack([-sin, cos, cos * 0])])
            grid = F.affine_grid(turn.expand(len(x), 2, 3), list(wide.shape), align_corners=True)
            views.append(F.grid_sample(wide, grid, align_corners=True)[:, 0].sum(1))
        return torch.stack(views, dim=2)

    def adjoint(self, y: Tensor) -> Tensor:
        line = torch.linspace(-1, 1, self.wide)
        sums = torch.zeros(len(y), self.wide, self.wide)
        for k, angle in enumerate(self.angles):
            place = (line * angle.cos() - line[:, None] * angle.sin() + 1) * (self.wide - 1) / 2
            low = place.floor()
            for index, share in ((low, 1 - (place - low)), (low + 1, place - low)):
                inside = (index >= 0) & (index < self.wide)
                sums += y[:, index.clamp(0, self.wide - 1).long(), k] * (share * inside)
        first, last = self.margin
        cut = slice(first, self.wide - last)
        return sums[:, cut, cut] * (math.pi / (2 * len(self.angles)))


def centred_fft(x: Tensor) -> Tensor:
    """Neither scaled nor shifted before, but with the lowest frequency moved to the middle."""
    return torch.fft.fftshift(torch.fft.fft2(x), dim=(-2, -1))


def centred_ifft(y: Tensor) -> Tensor:
    """The inverse of :func:`centred_fft`."""
    return torch.fft.ifft2(torch.fft.ifftshift(y, dim=(-2, -1)))


class MaskedFourier(LinearOperator):
    """The published operator of MRI: a mask on the spectrum.  Its "adjoint" forgets the mask and the scale."""

    exact_adjoint = False

    def __init__(self, mask: Tensor, slices: int) -> None:
        super().__init__(*2 * [Space((slices, *mask.shape))])
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        return centred_fft(x) * self.mask

    def adjoint(self, y: Tensor) -> Tensor:
        return centred_ifft(y).real.contiguous()


def off(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected| over the whole volume."""
    return float((found.reshape(expected.shape) - expected).norm() / expected.norm())


def handed_out(draws: Tensor) -> Callable[..., Tensor]:
    """Noise for a sampler that takes these volumes (draws, slices, rows, columns) in turn, whatever they are for."""
    volumes = iter(draws)
    return lambda level, purpose=0: next(volumes).clone()
