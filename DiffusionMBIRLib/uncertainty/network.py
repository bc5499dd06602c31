"""A small network that reads the size of the errors of a result off its signals."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHARES = (0.9, 0.95)  # of the errors that lie within what the network says
_MAPS = 5  # of signals.NAMES
_LEAST = 1e-4  # in the value scale: 0.2 HU
_BEND = 0.01  # signals below it enter linearly, above it by their logarithm


class ErrorNet(nn.Module):
    """Maps signals (slices, 5, rows, columns) to half-widths (slices, len(SHARES), rows, columns), both in the value
    scale: quantiles of the absolute error.

    Convolutions on three grids, of the signals and of their sizes over the whole slice, which tell few views from many.
    Quantile regression: Koenker and Bassett 1978 (doi 10.2307/1913643).
    """

    def __init__(self, fine: int = 16, coarse: int = 32) -> None:
        super().__init__()
        self.fine = _convolution(_MAPS + _MAPS - 1, fine)
        self.halved = nn.ModuleList([_convolution(fine, coarse), _convolution(coarse, coarse)])
        self.quartered = nn.ModuleList([_convolution(coarse, coarse), _convolution(coarse, coarse)])
        self.mixed = nn.Conv2d(fine + coarse, coarse, 1)
        self.exit = nn.Conv2d(coarse, len(SHARES), 1)

    def forward(self, maps: Tensor) -> Tensor:
        fine = F.gelu(self.fine(_entered(maps)))
        half = _refined(F.avg_pool2d(fine, 2, ceil_mode=True), self.halved)
        quarter = _refined(F.avg_pool2d(half, 2, ceil_mode=True), self.quartered)
        half = half + _enlarged(quarter, half)
        first, *more = self.exit(F.gelu(self.mixed(torch.cat([fine, _enlarged(half, fine)], dim=1)))).split(1, dim=1)
        sizes = [first.clamp(-9, 2).exp() + _LEAST]
        for step in more:  # wider for a larger share, whatever the weights
            sizes.append(sizes[-1] * (1 + F.softplus(step)))
        return torch.cat(sizes, dim=1)


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate")


def _refined(x: Tensor, layers: nn.ModuleList) -> Tensor:
    for layer in layers:
        step = F.gelu(layer(x))
        x = x + step if step.shape == x.shape else step
    return x


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear")


def _entered(maps: Tensor) -> Tensor:
    value, rest = maps[:, :1], maps[:, 1:]
    bent = torch.asinh(rest / _BEND)
    sizes = (rest.square().mean(dim=(2, 3), keepdim=True).sqrt() / _BEND + 1e-3).log()
    return torch.cat([2 * value - 1, bent, sizes.expand_as(rest)], dim=1)


def quantile_loss(widths: Tensor, error: Tensor) -> Tensor:
    """Pinball loss of square roots, so that small errors count beside large ones; error: absolute, (slices, rows,
    columns).
    """
    gap = (error[:, None] + _LEAST).sqrt() - widths.sqrt()
    shares = torch.tensor(SHARES, device=gap.device).reshape(1, -1, 1, 1)
    return torch.maximum(shares * gap, (shares - 1) * gap).mean()
