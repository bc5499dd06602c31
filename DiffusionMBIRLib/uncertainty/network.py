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

    Dilated convolutions that see 31 pixels across, on the signals and on their sizes over the whole slice, which tell
    few views from many.  Quantile regression: Koenker and Bassett 1978 (doi 10.2307/1913643).
    """

    def __init__(self, width: int = 24, dilations: tuple[int, ...] = (1, 2, 4, 6)) -> None:
        super().__init__()
        self.entry = nn.Conv2d(_MAPS + _MAPS - 1, width, 3, padding=1, padding_mode="replicate")
        self.middle = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=d, dilation=d, padding_mode="replicate") for d in dilations
        )
        self.exit = nn.Conv2d(width, len(SHARES), 1)

    def forward(self, maps: Tensor) -> Tensor:
        x = F.gelu(self.entry(_entered(maps)))
        for layer in self.middle:
            x = x + F.gelu(layer(x))
        first, *more = self.exit(x).split(1, dim=1)
        sizes = [first.clamp(-9, 2).exp() + _LEAST]
        for step in more:  # wider for a larger share, whatever the weights
            sizes.append(sizes[-1] * (1 + F.softplus(step)))
        return torch.cat(sizes, dim=1)


def _entered(maps: Tensor) -> Tensor:
    value, rest = maps[:, :1], maps[:, 1:]
    bent = torch.asinh(rest / _BEND)
    sizes = (rest.square().mean(dim=(2, 3), keepdim=True).sqrt() / _BEND + 1e-3).log()
    return torch.cat([2 * value - 1, bent, sizes.expand_as(rest)], dim=1)


def quantile_loss(widths: Tensor, error: Tensor) -> Tensor:
    """Pinball loss of the logarithms, so that small errors count as large ones do; error: absolute, (slices, rows,
    columns).
    """
    gap = (error[:, None] + _LEAST).log() - widths.log()
    shares = torch.tensor(SHARES, device=gap.device).reshape(1, -1, 1, 1)
    return torch.maximum(shares * gap, (shares - 1) * gap).mean()
