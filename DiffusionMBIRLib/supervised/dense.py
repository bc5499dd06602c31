"""The dilated residual dense network of DuDoRNet (Zhou and Zhou 2020, arXiv 2001.03799), for images and for k-space.

Smaller than published: it works on 2 x 2 blocks of pixels, as all compact networks here do.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DILATIONS = (1, 2, 4, 4)  # of the convolutions of a block
_SQUEEZE = 8


class ChannelAttention(nn.Module):
    """Each channel times a number that the means of all channels tell (squeeze and excitation, Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inside = max(1, channels // _SQUEEZE)
        self.tell = nn.Sequential(nn.Linear(channels, inside), nn.ReLU(), nn.Linear(inside, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        told: Tensor = self.tell(x.mean(dim=(2, 3)))
        return x * told[:, :, None, None]


class DilatedDenseBlock(nn.Module):
    """Convolutions of which each sees all before it, a fusion of all, attention, and a skip."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(channels + k * growth, growth, 3, padding=dilation, dilation=dilation)
            for k, dilation in enumerate(DILATIONS)
        )
        self.fusion = nn.Conv2d(channels + len(DILATIONS) * growth, channels, 1)
        self.attention = ChannelAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for layer in self.layers:
            seen = torch.cat([seen, F.relu(layer(seen))], dim=1)
        out: Tensor = x + self.attention(self.fusion(seen))
        return out


class DenseNetwork(nn.Module):
    """x + what the blocks find: (batch, channels, rows, columns) -> same, sides a multiple of ``stem``.

    The last layer starts at zero, so that an untrained network changes nothing.
    """

    def __init__(self, channels: int, growth: int, blocks: int, stem: int) -> None:
        super().__init__()
        self.stem, depth = stem, channels * stem**2
        self.first = nn.Conv2d(depth, growth, 3, padding=1)
        self.second = nn.Conv2d(growth, growth, 3, padding=1)
        self.blocks = nn.ModuleList(DilatedDenseBlock(growth, growth) for _ in range(blocks))
        self.fusion = nn.Sequential(nn.Conv2d(blocks * growth, growth, 1), nn.Conv2d(growth, growth, 3, padding=1))
        self.last = nn.Conv2d(growth, depth, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        if self.last.bias is not None:
            nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """condition: not looked at; the data steps tell the network what was measured."""
        return x + self.found(x)

    def found(self, x: Tensor) -> Tensor:
        """What is added to x."""
        shallow = self.first(F.pixel_unshuffle(x, self.stem))
        hidden, seen = self.second(shallow), []
        for block in self.blocks:
            hidden = block(hidden)
            seen.append(hidden)
        out: Tensor = self.last(shallow + self.fusion(torch.cat(seen, dim=1)))
        return F.pixel_shuffle(out, self.stem)


class KSpaceDenseNetwork(DenseNetwork):
    """The same on k-space (real and imaginary part), lowest frequency at the index size // 2.

    Amplitudes of images fall about as 1 / |k|: the network sees them times the distance from the middle in cycles per
    pixel, so that all of k-space counts alike and sizes do not matter.
    """

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        rows, columns = x.shape[-2:]
        r = (torch.arange(rows, device=x.device) - rows // 2) / rows
        c = (torch.arange(columns, device=x.device) - columns // 2) / columns
        emphasis = 1 / math.sqrt(rows * columns) + torch.hypot(r[:, None], c[None])
        # Not the sum in one: in half precision the large values of the middle would be rounded.
        return x + self.found((x * emphasis).contiguous(memory_format=torch.channels_last)).float() / emphasis
