"""NCSN++: the score network of the published 3D priors, in the layout of their checkpoints.

Source: Song et al. 2021 (arXiv 2011.13456), appendix H: a U-Net of BigGAN residual blocks (Brock et al. 2019,
arXiv 1809.11096) with FIR resampling, a residual image pyramid at its input and random Fourier features of ln(sigma)
(Tancik et al. 2020, arXiv 2006.10739).  A checkpoint numbers the units of the network in the order in which they run,
``all_modules.N``, and so does this class: ``roles`` says what the forward pass does with each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .fir import fir_convolve_down, fir_down, fir_kernel, fir_up
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

KIND = "ncsnpp"
FOURIER_SCALE = 16.0  # standard deviation of the random frequencies, Song et al. 2021, appendix H.1


@dataclass(frozen=True)
class NCSNppConfig:
    """Architecture of :class:`NCSNpp`.  The defaults are the published network for CT slices of 256 x 256.

    The published networks for single-coil MRI differ in nothing or, for complex images, in ``image_channels`` = 2.
    Attention always follows the first block at the lowest resolution, and each block of ``attention_levels`` (0 is full
    resolution).  Unless ``centered``, images in [0, 1] are expected and moved to [-1, 1].  ``sigma_min``, ``sigma_max``
    and ``scales`` define the geometric sequence of noise levels, whose positions the positional embedding encodes.
    """

    image_channels: int = 1
    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 4
    attention_levels: tuple[int, ...] = ()
    embedding: str = "fourier"  # or "positional"
    progressive_input: str = "residual"  # or "none"
    fir: tuple[float, ...] = (1, 3, 3, 1)
    skip_rescale: bool = True  # sums of two branches are divided by sqrt(2)
    scale_by_sigma: bool = True  # the output is divided by sigma
    centered: bool = False
    sigma_min: float = 0.01
    sigma_max: float = 378.0
    scales: int = 2000
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_levels(self, KIND)
        if self.width % 2:
            raise InputError(f"{KIND}: width must be even, not {self.width}")
        if self.embedding not in ("fourier", "positional") or self.progressive_input not in ("residual", "none"):
            raise InputError(
                f"{KIND}: embedding is fourier or positional, progressive_input residual or none; "
                f"not {self.embedding!r} and {self.progressive_input!r}"
            )
        if not 0 < self.sigma_min < self.sigma_max or self.scales < 2:
            raise InputError(f"{KIND}: noise levels must be positive, increasing and at least two: {self}")
        fir_kernel(self.fir)

    @property
    def multiple(self) -> int:
        """Image sides must be multiples of this."""
        return int(2 ** (len(self.multipliers) - 1))

    def to_dict(self) -> dict[str, Any]:
        return entries_of(self, KIND)

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> NCSNppConfig:
        return from_entries(cls, KIND, entries)


def group_norm(channels: int) -> nn.GroupNorm:
    """At most 32 groups of at least four channels."""
    groups = max(1, min(channels // 4, 32))
    if channels % groups:
        raise InputError(f"{KIND}: {channels} channels cannot be split into {groups} groups; choose a rounder width")
    return nn.GroupNorm(groups, channels, eps=1e-6)


class FourierFeatures(nn.Module):
    """(batch,) -> (batch, 2 n): sines and cosines of 2 pi W times the label, with n fixed random frequencies W."""

    W: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("W", torch.randn(count) * FOURIER_SCALE)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FourierFeatures:
        # Phases reach hundreds of turns, so that W stays in float32 when the network is cast to fewer digits.
        exact = self.W
        super()._apply(fn, recurse)
        if self.W.dtype != exact.dtype:
            self.W = exact.to(self.W.device)
        return self

    def forward(self, label: Tensor) -> Tensor:
        phase = label[:, None] * self.W * 2 * math.pi
        return torch.cat([phase.sin(), phase.cos()], dim=1)


def positional_features(position: Tensor, count: int) -> Tensor:
    """(batch,) -> (batch, count): the transformer's embedding, wavelengths from 2 pi to 20000 pi (arXiv 1706.03762)."""
    half = count // 2
    exponents = torch.arange(half, device=position.device, dtype=torch.float32) / max(half - 1, 1)
    phase = position[:, None] * torch.exp(-math.log(10000) * exponents)
    return torch.cat([phase.sin(), phase.cos()], dim=1)


class ResidualBlock(nn.Module):
    """GroupNorm-SiLU-conv twice; the noise level shifts the second norm's input; may resample both branches."""

    kernel: Tensor

    def __init__(self, config: NCSNppConfig, inside: int, outside: int, resample: str = "none") -> None:
        super().__init__()
        self.resample = resample
        self.gain = math.sqrt(0.5) if config.skip_rescale else 1.0
        self.GroupNorm_0 = group_norm(inside)
        self.Conv_0 = nn.Conv2d(inside, outside, 3, padding=1)
        self.Dense_0 = nn.Linear(4 * config.width, outside)
        self.GroupNorm_1 = group_norm(outside)
        self.dropout = nn.Dropout(config.dropout)
        self.Conv_1 = nn.Conv2d(outside, outside, 3, padding=1)
        if inside != outside or resample != "none":
            self.Conv_2 = nn.Conv2d(inside, outside, 1)
        self.register_buffer("kernel", fir_kernel(config.fir), persistent=False)

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "none":
            return x
        return fir_up(x, self.kernel) if self.resample == "up" else fir_down(x, self.kernel)

    def forward(self, parts: list[Tensor], embedding: Tensor) -> Tensor:
        """parts: maps to join along the channels, taken out of the list."""
        # Maps are large, hence the order.  A joined one is the block's own, and wider than the result, so that the skip
        # is another map: it may be overwritten.
        own = len(parts) > 1
        x = joined(parts)
        skip = self._resampled(x)
        if hasattr(self, "Conv_2"):
            skip = self.Conv_2(skip)
        hidden = group_norm_silu_(x, self.GroupNorm_0) if own else F.silu(self.GroupNorm_0(x), inplace=True)
        del x
        hidden = self.Conv_0(self._resampled(hidden)).add_(self.Dense_0(embedding)[:, :, None, None])
        hidden = self.dropout(F.silu(self.GroupNorm_1(hidden), inplace=True))
        hidden = self.Conv_1(hidden)
        return hidden.add_(skip).mul_(self.gain)


class ChannelMap(nn.Module):
    """One linear map of the channels for all positions: (batch, positions, in) -> (batch, positions, out)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.W = nn.Parameter(nn.init.xavier_uniform_(torch.empty(channels, channels)))
        self.b = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.W.T, self.b)


class Attention(nn.Module):
    """Self-attention over all positions, one head."""

    def __init__(self, config: NCSNppConfig, channels: int) -> None:
        super().__init__()
        self.gain = math.sqrt(0.5) if config.skip_rescale else 1.0
        self.GroupNorm_0 = group_norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (ChannelMap(channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.GroupNorm_0(x).flatten(2).transpose(1, 2)[:, None]
        mixed = F.scaled_dot_product_attention(self.NIN_0(tokens), self.NIN_1(tokens), self.NIN_2(tokens))
        return (x + self.NIN_3(mixed)[:, 0].transpose(1, 2).reshape(x.shape)).mul_(self.gain)


class PyramidStep(nn.Module):
    """Halves the image pyramid and brings it to the width of the level that it joins."""

    kernel: Tensor

    def __init__(self, config: NCSNppConfig, inside: int, outside: int) -> None:
        super().__init__()
        self.Conv2d_0 = nn.Conv2d(inside, outside, 3)
        self.register_buffer("kernel", fir_kernel(config.fir), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return fir_convolve_down(x, self.kernel, self.Conv2d_0.weight, self.Conv2d_0.bias)


def _units(c: NCSNppConfig) -> Iterator[tuple[str, nn.Module]]:
    """The units in the order of the published layout, each with its role in :meth:`NCSNpp.forward`."""
    widths = [c.width * m for m in c.multipliers]
    if c.embedding == "fourier":
        yield "features", FourierFeatures(c.width)
    yield "embed", nn.Linear(2 * c.width if c.embedding == "fourier" else c.width, 4 * c.width)
    yield "embed", nn.Linear(4 * c.width, 4 * c.width)
    yield "convolve", nn.Conv2d(c.image_channels, c.width, 3, padding=1)
    channels, pyramid, skips = c.width, c.image_channels, [c.width]
    for level, width in enumerate(widths):
        for _ in range(c.blocks):
            yield "encode", ResidualBlock(c, channels, width)
            channels = width
            if level in c.attention_levels:
                yield "attend", Attention(c, width)
            skips.append(width)
        if level + 1 < len(widths):
            yield "encode", ResidualBlock(c, width, width, "down")
            if c.progressive_input == "residual":
                yield "pyramid", PyramidStep(c, pyramid, width)
                pyramid = width
            skips.append(width)
    yield "encode", ResidualBlock(c, channels, channels)
    yield "attend", Attention(c, channels)
    yield "refine", ResidualBlock(c, channels, channels)
    for level, width in reversed(list(enumerate(widths))):
        for _ in range(c.blocks + 1):
            yield "decode", ResidualBlock(c, channels + skips.pop(), width)
            channels = width
        if level in c.attention_levels:
            yield "attend", Attention(c, width)
        if level:
            yield "refine", ResidualBlock(c, width, width, "up")
    yield "normalise", group_norm(channels)
    yield "convolve", nn.Conv2d(channels, c.image_channels, 3, padding=1)


class NCSNpp(nn.Module):
    """The score network s(x, sigma): (batch, channels, rows, columns) -> same; sides multiples of config.multiple.

    Its weights have the published names without the prefix ``module.``; the order of its parameters is that of the
    published moving averages, to which the Fourier frequencies do not belong.  It computes in the type of its weights,
    or under autocast.
    """

    def __init__(self, config: NCSNppConfig) -> None:
        super().__init__()
        self.config = config
        units = list(_units(config))
        self.roles = tuple(role for role, _ in units)
        self.all_modules = nn.ModuleList(unit for _, unit in units)
        self.gain = math.sqrt(0.5) if config.skip_rescale else 1.0

    def _position(self, sigma: Tensor) -> Tensor:
        """Where sigma lies in the geometric sequence from sigma_max (0) down to sigma_min (scales - 1)."""
        c = self.config
        return (c.scales - 1) * (c.sigma_max / sigma.float()).log() / math.log(c.sigma_max / c.sigma_min)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """x: images with noise of standard deviation sigma (batch,); returns grad ln p(x; sigma) in x's type.

        Without ``scale_by_sigma`` the output is the network's own, in whatever scale it was trained.
        """
        c = self.config
        check_image(x, c.image_channels, c.multiple)
        weights = type_of(self)
        pyramid = (x if c.centered else 2 * x - 1).to(weights)
        maps = [pyramid]  # what the units pass on comes last, below it what the decoder awaits
        embedding = positional_features(self._position(sigma), c.width).to(weights)
        for role, unit in zip(self.roles, self.all_modules, strict=True):
            match role:
                case "features":
                    embedding = unit(sigma.log()).to(weights)
                case "embed":
                    embedding = F.silu(unit(embedding))
                case "encode":  # its input stays for the decoder
                    maps.append(unit([maps[-1]], embedding))
                case "pyramid":
                    pyramid = self.gain * (maps.pop() + unit(pyramid))
                    maps.append(pyramid)
                case "decode":
                    maps.append(unit([maps.pop(), maps.pop()], embedding))
                case "refine":
                    maps.append(unit([maps.pop()], embedding))
                case "normalise":
                    maps.append(F.silu(unit(maps.pop()), inplace=True))
                case _:  # "convolve", "attend"
                    maps.append(unit(maps.pop()))
        score = maps.pop().to(x.dtype)
        return score / sigma.to(x.dtype)[:, None, None, None] if c.scale_by_sigma else score


def infer_config(weights: Mapping[str, Tensor]) -> NCSNppConfig:
    """The configuration of a network with weights of these names (without ``module.``) and shapes.

    What leaves no trace in the weights (fir, skip_rescale, scale_by_sigma, centered, noise levels, dropout) has its
    published value; use dataclasses.replace to change it.  Raises InputError if no supported network has such weights.
    """
    units: dict[int, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        found = re.fullmatch(r"all_modules\.(\d+)\.(.+)", name)
        if found:
            units.setdefault(int(found[1]), {})[found[2]] = tensor
    try:
        config = _read_units(units)
    except (KeyError, IndexError):
        raise InputError(f"these are not the weights of a {KIND} network") from None
    check_weights(on_meta(NCSNpp, config), weights, KIND)
    return config


def _read_units(units: Mapping[int, Mapping[str, Tensor]]) -> NCSNppConfig:
    fourier = "W" in units[0]
    width = len(units[0]["W"]) if fourier else units[0]["weight"].shape[1]
    stem = units[3 if fourier else 2]["weight"]
    places = [n for n in sorted(units) if "Conv_0.weight" in units[n]]
    # A block that maps its input without changing the width resamples; the first of them ends level 0.
    shapes = [units[n]["Conv_0.weight"].shape for n in places]
    resampling = (i for i, n in enumerate(places) if "Conv_2.weight" in units[n] and shapes[i][0] == shapes[i][1])
    blocks = next(resampling, (len(places) - 3) // 2)
    # blocks each in the encoder, two in the middle, blocks + 1 in the decoder; all levels but one have a step each way.
    firsts = [level * (blocks + 1) for level in range(len(places) // (2 * blocks + 3))]
    pyramid = any("Conv2d_0.weight" in unit for unit in units.values())
    return NCSNppConfig(
        image_channels=stem.shape[1],
        width=width,
        multipliers=tuple(shapes[first][0] // width for first in firsts),
        blocks=blocks,
        attention_levels=tuple(i for i, first in enumerate(firsts) if "NIN_0.W" in units.get(places[first] + 1, {})),
        embedding="fourier" if fourier else "positional",
        progressive_input="residual" if pyramid or len(firsts) == 1 else "none",
    )
