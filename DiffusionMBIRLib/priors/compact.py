"""Our own prior: a compact 2D U-Net with EDM preconditioning.

Preconditioning and loss weight: Karras et al. 2022 (arXiv 2206.00364), Table 1 and equation 7.  The network works on a
2 x 2 space-to-depth grid (four times fewer positions, measured to pay on CPUs) and normalises over channels at each
position, so its statistics do not change with the size of the image.
"""

# On AVX2 (AMD EPYC Milan, busy with other work; least time of one thread) convolutions take 86 % of the float32
# time, at 85 GFLOP/s a core.  They are 15 to 25 % faster in channels-last than in contiguous memory; weights packed
# ahead gain nothing from batches of four on.  Winograd's F(4 x 4, 3 x 3) as products of matrices gains nothing at 64
# and 96 channels, whose transforms and slower products (55 to 65 GFLOP/s) eat what it saves, and 1.4 to 1.7 times
# at 128 and 192: reckoned from the layers, 4 % of the network.

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..schema import checked, schema_of


@dataclass(frozen=True)
class CompactConfig:
    """Architecture of :class:`CompactUNet`: image channels, widths per resolution level, residual blocks per level.

    light_levels: so many levels, from the finest on, have one block.  knows_pixels: the network is told the size of a
    pixel beside the noise level.
    """

    image_channels: int = 1
    widths: tuple[int, ...] = (64, 96, 128, 192)
    blocks: int = 2
    embedding: int = 128
    stem: int = 2
    dropout: float = 0.0
    light_levels: int = 0
    knows_pixels: bool = False

    def __post_init__(self) -> None:
        sizes = (self.image_channels, *self.widths, self.blocks, self.embedding, self.stem)
        if not self.widths or any(not isinstance(n, int) or n < 1 for n in sizes):
            raise InputError(f"compact-unet: sizes must be positive integers: {self}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"compact-unet: dropout must lie in [0, 1), not {self.dropout}")
        if not 0 <= self.light_levels <= len(self.widths):
            raise InputError(f"compact-unet: light_levels counts from 0 to {len(self.widths)}, not {self.light_levels}")

    def blocks_at(self, level: int) -> int:
        """Residual blocks of a stage, counted from the finest level on."""
        return 1 if level < self.light_levels else self.blocks

    @property
    def multiple(self) -> int:
        """Image sides are padded to a multiple of this."""
        return self.stem * 2 ** (len(self.widths) - 1)

    @property
    def reach(self) -> int:
        """Pixels from an image's pixel beyond which none counts for it: half the receptive field, or a little more.

        Convolutions of 3 x 3 reach a cell of their level, of which a stage has two a block and all levels but the
        lowest two stages; coming to a coarser level's grid adds up to less than one of the coarsest cells.
        """
        cells = [self.stem * 2**level for level in range(len(self.widths))]
        stages = [2 * self.blocks_at(level) * cell for level, cell in enumerate(cells)]
        return 2 * cells[0] + 2 * sum(stages) - stages[-1] + cells[-1] - 1

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "compact-unet", **asdict(self), "widths": list(self.widths)}

    @classmethod
    def from_dict(cls, entries: dict[str, Any]) -> CompactConfig:
        if entries.get("kind") != "compact-unet":
            raise InputError(f"network kind {entries.get('kind')!r} is not a compact-unet")
        chosen = checked(entries, schema_of(cls), "compact-unet", others=True)
        return cls(**{**chosen, "widths": tuple(chosen.get("widths", cls.widths))})


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels at each position (fast in channels-last memory)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self._norm(x, self.weight, self.bias)

    def modulated(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """norm(x) scale + shift, with scale and shift (batch or 1, channels)."""
        if len(scale) == 1:  # one noise level for the batch: the norm's own weight and bias take it up, a pass less
            return self._norm(x, self.weight * scale[0], self.bias * scale[0] + shift[0])
        return torch.addcmul(shift[:, :, None, None], self(x), scale[:, :, None, None])

    def _norm(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), weight, bias).permute(0, 3, 1, 2)


def silu_of_own(x: Tensor) -> Tensor:
    """SiLU of a tensor that nobody else reads: in its memory, unless a gradient needs what is there.

    One large block fewer at the peak: glibc then has no fresh pages to ask of the system at each evaluation.
    """
    return F.silu(x, inplace=not x.requires_grad)


class ResidualBlock(nn.Module):
    """norm-SiLU-conv twice; the noise level scales and shifts the second norm."""

    def __init__(self, inside: int, outside: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(inside), ChannelNorm(outside)
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * outside)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.modulation.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding).chunk(2, dim=1)
        hidden = self.conv1(silu_of_own(self.norm1(x)))
        hidden = self.norm2.modulated(hidden, 1 + scale, shift)
        return self.skip(x) + self.conv2(self.dropout(silu_of_own(hidden)))


class Stage(nn.ModuleList):
    """Residual blocks in a row at one resolution."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for block in self:
            x = block(x, embedding)
        return x


class CompactUNet(nn.Module):
    """The raw network F(x, c_noise): (batch, channels, rows, columns) -> same; sides a multiple of config.multiple.

    c_noise: (batch,), or (1,) for a batch of one noise level.  pixel_mm: as many sizes of a pixel, 0 where it is not
    known, for a network that knows of them; with None none is known.
    """

    frequencies: Tensor

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config = config
        widths, depth = config.widths, config.stem**2 * config.image_channels
        self.register_buffer("frequencies", torch.exp(torch.linspace(0, math.log(16), 16)) / 2, persistent=False)
        self.embed = nn.Sequential(
            nn.Linear(33, config.embedding), nn.SiLU(), nn.Linear(config.embedding, config.embedding), nn.SiLU()
        )
        if config.knows_pixels:
            self.pixels = nn.Linear(33, config.embedding, bias=False)
            nn.init.zeros_(self.pixels.weight)
        self.stem = nn.Conv2d(depth, widths[0], 3, padding=1)
        self.encoder, self.down = nn.ModuleList(), nn.ModuleList()
        self.decoder, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            self.encoder.append(self._blocks(level, width))
            if level + 1 < len(widths):
                self.down.append(nn.Conv2d(width, widths[level + 1], 2, stride=2))
                self.up.append(nn.Conv2d(widths[level + 1], 4 * width, 1))
                self.decoder.append(self._blocks(level, 2 * width))
        self.norm = ChannelNorm(widths[0])
        self.head = nn.Conv2d(widths[0], depth, 3, padding=1)
        nn.init.zeros_(self.head.weight)

    def _blocks(self, level: int, inside: int) -> Stage:
        c, outside = self.config, self.config.widths[level]
        sizes = [inside] + [outside] * (c.blocks_at(level) - 1)
        return Stage(ResidualBlock(size, outside, c.embedding, c.dropout) for size in sizes)

    def _embedding(self, noise_label: Tensor, pixel_mm: Tensor | None) -> Tensor:
        hidden = self.embed[0](self._features(noise_label))
        if pixel_mm is not None:
            known = self._features(pixel_mm.clamp_min(1e-3).log()) * (pixel_mm > 0)[:, None]
            hidden = hidden + self.pixels(known)
        return self.embed[1:](hidden)

    def _features(self, number: Tensor) -> Tensor:
        """(batch,) -> (batch, 33): the number, and its cosines and sines."""
        phase = number[:, None] * self.frequencies
        return torch.cat([number[:, None], phase.cos(), phase.sin()], dim=1)

    def forward(self, x: Tensor, noise_label: Tensor, pixel_mm: Tensor | None = None) -> Tensor:
        embedding = self._embedding(noise_label, pixel_mm)
        x = self.stem(F.pixel_unshuffle(x, self.config.stem))
        skips = []
        for level, stage in enumerate(self.encoder):
            x = stage(x, embedding)
            if level < len(self.down):
                skips.append(x)
                x = self.down[level](x)
        for level in reversed(range(len(self.up))):
            x = torch.cat([F.pixel_shuffle(self.up[level](x), 2), skips.pop()], dim=1)
            x = self.decoder[level](x, embedding)
        return F.pixel_shuffle(self.head(silu_of_own(self.norm(x))), self.config.stem)


def edm_denoise(
    network: nn.Module, x: Tensor, sigma: Tensor, sigma_data: float, pixel_mm: Tensor | None = None
) -> Tensor:
    """D(x; sigma) = c_skip x + c_out F(c_in x; ln(sigma) / 4), Karras et al. 2022, equation 7.

    sigma: (batch,), or (1,) for a batch of one noise level; pixel_mm likewise, for a :class:`CompactUNet` that knows of
    pixel sizes.
    """
    s = sigma.float()[:, None, None, None]
    variance = s.square() + sigma_data**2
    # A copy, since of one channel every layout passes for channels-last, and compiled code is made for one layout.
    scaled = (x * variance.rsqrt()).to(memory_format=torch.channels_last, copy=True)
    told = () if pixel_mm is None else (pixel_mm,)
    hidden = network(scaled, sigma.log() / 4, *told)
    return x * (sigma_data**2 / variance) + hidden.float() * (s * sigma_data * variance.rsqrt())


def pad_to_multiple(x: Tensor, multiple: int) -> tuple[Tensor, tuple[int, int]]:
    """Replicate-pad rows and columns at their ends to a multiple; returns the padded batch and the original size."""
    rows, columns = x.shape[-2:]
    extra_rows, extra_columns = -rows % multiple, -columns % multiple
    if extra_rows or extra_columns:
        x = F.pad(x, (0, extra_columns, 0, extra_rows), mode="replicate")
    return x, (rows, columns)
