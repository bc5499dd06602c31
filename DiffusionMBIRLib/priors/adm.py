"""The ADM U-Net: the noise network of DDS, in the layout of its published checkpoints.

Source: Dhariwal and Nichol 2021 (arXiv 2105.05233), section 3: residual blocks that also resample, norms that the
diffusion step scales and shifts, attention with several heads; it returns the noise and, for learned variances (Nichol
and Dhariwal 2021, arXiv 2102.09672), as many channels again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .unet import (
    check_image,
    check_levels,
    check_weights,
    entries_of,
    from_entries,
    group_norm_silu_,
    joined,
    on_meta,
    type_of,
)

KIND = "adm"
GROUPS = 32


@dataclass(frozen=True)
class ADMConfig:
    """Architecture of :class:`ADMUNet`.  The defaults are the published network for CT slices of 256 x 256.

    The published network for complex MRI slices of 320 x 320 has ``image_channels`` = 2 and no ``attention_levels``
    (0 is full resolution): attention follows each block of these levels, and always the first at the lowest resolution.
    Heads have ``head_channels`` channels each, or there are ``heads`` of them where ``head_channels`` is 0.
    """

    image_channels: int = 1
    width: int = 256
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    blocks: int = 1
    attention_levels: tuple[int, ...] = (4,)
    head_channels: int = 64
    heads: int = 4
    new_attention_order: bool = False  # queries, keys and values split before the heads, not within each head
    learned_variance: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_levels(self, KIND)
        if any(self.width * m % GROUPS for m in self.multipliers) or self.width % GROUPS:
            raise InputError(f"{KIND}: width must be a multiple of {GROUPS}, not {self.width}")
        attentive = {self.width * self.multipliers[i] for i in (*self.attention_levels, -1)}
        if self.head_channels < 0 or self.heads < 1 or any(n % (self.head_channels or self.heads) for n in attentive):
            raise InputError(f"{KIND}: head_channels (or heads) must divide the widths with attention: {self}")

    @property
    def multiple(self) -> int:
        """Image sides must be multiples of this."""
        return int(2 ** (len(self.multipliers) - 1))

    @property
    def output_channels(self) -> int:
        return 2 * self.image_channels if self.learned_variance else self.image_channels

    def heads_of(self, channels: int) -> int:
        """Attention heads in a layer of so many channels."""
        return channels // self.head_channels if self.head_channels else self.heads

    def to_dict(self) -> dict[str, Any]:
        return entries_of(self, KIND)

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> ADMConfig:
        return from_entries(cls, KIND, entries)


def step_features(step: Tensor, count: int) -> Tensor:
    """(batch,) -> (batch, count): cosines and sines of the step, wavelengths from 2 pi to almost 20000 pi."""
    half = count // 2
    exponents = torch.arange(half, device=step.device, dtype=torch.float32) / half
    phase = step.float()[:, None] * torch.exp(-math.log(10000) * exponents)
    return torch.cat([phase.cos(), phase.sin()], dim=1)


class ResidualBlock(nn.Module):
    """GroupNorm-SiLU-conv twice; the step scales and shifts the second norm; both branches may be resampled."""

    def __init__(self, config: ADMConfig, inside: int, outside: int, resample: nn.Module | None = None) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, inside), nn.SiLU(inplace=True), nn.Conv2d(inside, outside, 3, padding=1)
        )
        self.resample = resample or nn.Identity()
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * config.width, 2 * outside))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, outside),
            nn.SiLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Conv2d(outside, outside, 3, padding=1),
        )
        self.skip_connection = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, parts: list[Tensor], embedding: Tensor) -> Tensor:
        """parts: maps to join along the channels, taken out of the list."""
        # A map of 256 x 256 has 67 MB, hence the order.  A joined one is the block's own, and wider than the result, so
        # that the skip is another map: it may be overwritten.
        scale, shift = self.emb_layers(embedding)[:, :, None, None].chunk(2, dim=1)
        own = len(parts) > 1
        x = joined(parts)
        skip = self.skip_connection(x)
        hidden = group_norm_silu_(x, cast(nn.GroupNorm, self.in_layers[0])) if own else self.in_layers[:2](x)
        del x
        hidden = self.in_layers[2](self.resample(hidden))
        hidden = self.out_layers[0](hidden).mul_(1 + scale).add_(shift)
        hidden = self.out_layers[1:](hidden)
        return hidden.add_(self.resample(skip))


class Attention(nn.Module):
    """Self-attention over all positions, added to its input."""

    def __init__(self, config: ADMConfig, channels: int) -> None:
        super().__init__()
        self.heads, self.new_order = config.heads_of(channels), config.new_attention_order
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        mixed = F.linear(tokens, self.qkv.weight[..., 0], self.qkv.bias)
        if self.new_order:
            query, key, value = mixed.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        else:
            query, key, value = mixed.unflatten(2, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        mixed = F.linear(mixed, self.proj_out.weight[..., 0], self.proj_out.bias)
        return x + mixed.transpose(1, 2).reshape(x.shape)


class Stage(nn.ModuleList):
    """Layers in a row; those that depend on the diffusion step are given its embedding."""

    def forward(self, parts: list[Tensor], embedding: Tensor) -> Tensor:
        """parts: what a first residual block joins, or one map; taken out of the list."""
        for layer in self:
            parts = [layer(parts, embedding) if isinstance(layer, ResidualBlock) else layer(parts.pop())]
        return parts.pop()


class ADMUNet(nn.Module):
    """The noise network: (batch, channels, rows, columns) -> (batch, output_channels, rows, columns).

    Sides are multiples of config.multiple.  Its weights have the published names.  It computes in the type of its
    weights, or under autocast.
    """

    def __init__(self, config: ADMConfig) -> None:
        super().__init__()
        self.config = c = config
        self.time_embed = nn.Sequential(nn.Linear(c.width, 4 * c.width), nn.SiLU(), nn.Linear(4 * c.width, 4 * c.width))
        self.input_blocks, skips = self._encoder()
        lowest = skips[-1]
        self.middle_block = Stage(
            [ResidualBlock(c, lowest, lowest), Attention(c, lowest), ResidualBlock(c, lowest, lowest)]
        )
        self.output_blocks = self._decoder(skips)
        self.out = nn.Sequential(
            nn.GroupNorm(GROUPS, c.width * c.multipliers[0]),
            nn.SiLU(inplace=True),
            nn.Conv2d(c.width * c.multipliers[0], c.output_channels, 3, padding=1),
        )

    def _encoder(self) -> tuple[nn.ModuleList, list[int]]:
        """The stages down and the channels that each leaves for the decoder."""
        c = self.config
        channels = c.width * c.multipliers[0]
        stages, skips = nn.ModuleList([Stage([nn.Conv2d(c.image_channels, channels, 3, padding=1)])]), [channels]
        for level, multiplier in enumerate(c.multipliers):
            if level:
                stages.append(Stage([ResidualBlock(c, channels, channels, nn.AvgPool2d(2))]))
                skips.append(channels)
            for _ in range(c.blocks):
                layers: list[nn.Module] = [ResidualBlock(c, channels, c.width * multiplier)]
                channels = c.width * multiplier
                if level in c.attention_levels:
                    layers.append(Attention(c, channels))
                stages.append(Stage(layers))
                skips.append(channels)
        return stages, skips

    def _decoder(self, skips: list[int]) -> nn.ModuleList:
        """The stages up; each level's last one doubles the resolution."""
        c, channels, stages, skips = self.config, skips[-1], nn.ModuleList(), list(skips)
        for level, multiplier in reversed(list(enumerate(c.multipliers))):
            for block in range(c.blocks + 1):
                layers: list[nn.Module] = [ResidualBlock(c, channels + skips.pop(), c.width * multiplier)]
                channels = c.width * multiplier
                if level in c.attention_levels:
                    layers.append(Attention(c, channels))
                if level and block == c.blocks:
                    layers.append(ResidualBlock(c, channels, channels, nn.Upsample(scale_factor=2)))
                stages.append(Stage(layers))
        return stages

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """x: noisy images; step: (batch,), real numbers from 0 to 999.  Returns the noise in x's type.

        With learned variances the second half of the channels interpolates between their bounds in the logarithm.
        """
        check_image(x, self.config.image_channels, self.config.multiple)
        weights = type_of(self)
        embedding = self.time_embed(step_features(step, self.config.width).to(weights))
        (stem, *encoder), (*decoder, last) = self.input_blocks, self.output_blocks
        image = x.to(weights)
        maps = [stem([image], embedding)]
        for stage in encoder:
            maps.append(stage([maps[-1]], embedding))
        maps.append(self.middle_block([maps[-1]], embedding))
        del maps[0]  # its 67 MB are soon computed again for the last stage
        for stage in decoder:
            maps.append(stage([maps.pop(), maps.pop()], embedding))
        maps.append(last([maps.pop(), stem([image], embedding)], embedding))
        return self.out(maps.pop()).to(x.dtype)


def infer_config(weights: Mapping[str, Tensor], *, head_channels: int | None = None) -> ADMConfig:
    """The configuration of a network with weights of these names and shapes.

    head_channels leaves no trace in the weights: by default it is 64, as published, or the network's width where that
    is less.  The order of the heads and dropout leave none either and have their published values; use
    dataclasses.replace to change them.  Raises InputError if no supported network has such weights.
    """
    try:
        config = _read_stages(weights, head_channels)
    except (KeyError, IndexError):
        raise InputError(f"these are not the weights of an {KIND} network") from None
    check_weights(on_meta(ADMUNet, config), weights, KIND)
    return config


def _read_stages(weights: Mapping[str, Tensor], head_channels: int | None) -> ADMConfig:
    width = weights["time_embed.0.weight"].shape[1]
    image_channels = weights["input_blocks.0.0.weight"].shape[1]
    count = len({name.split(".")[1] for name in weights if name.startswith("output_blocks.")})
    if not width or count < 2:
        raise KeyError("output_blocks")
    # The decoder's first stage with a second residual block ends the lowest level.
    doubled = [i for i in range(count) for n in (1, 2) if f"output_blocks.{i}.{n}.in_layers.0.weight" in weights]
    blocks = [*doubled, count - 1][0]
    # The encoder counts the stem, then blocks for level 0, then one step down and blocks for each further level.
    firsts = range(1, count, blocks + 1)
    return ADMConfig(
        image_channels=image_channels,
        width=width,
        multipliers=tuple(weights[f"input_blocks.{i}.0.out_layers.0.weight"].shape[0] // width for i in firsts),
        blocks=blocks,
        attention_levels=tuple(n for n, i in enumerate(firsts) if f"input_blocks.{i}.1.qkv.weight" in weights),
        head_channels=min(64, width) if head_channels is None else head_channels,
        learned_variance=weights["out.2.weight"].shape[0] == 2 * image_channels,
    )
