"""The networks once more, the published ones plainly from the papers: what ours are compared with and timed against.

Functions of a state dictionary in the published layout and the configuration; in the precision of the weights,
contiguous memory, attention as two products around a softmax, FIR filters as zero insertion and a convolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from DiffusionMBIRLib.priors.adm import ADMConfig
from DiffusionMBIRLib.priors.compact import CompactConfig
from DiffusionMBIRLib.priors.ncsnpp import NCSNppConfig

Weights = Mapping[str, Tensor]


def fir(x: Tensor, taps: tuple[float, ...], up: int = 1, down: int = 1, window: int = 1) -> Tensor:
    """Insert zeros behind each pixel, pad with zeros, convolve with gain up^2, keep every down-th pixel.

    window: side of a convolution without padding that follows.
    """
    extra = len(taps) - 2 + window - 1
    pad = ((extra + 1) // 2 + up - 1, extra // 2)
    batch, channels, rows, columns = x.shape
    sparse = x.new_zeros(batch, channels, rows, up, columns, up)
    sparse[:, :, :, 0, :, 0] = x
    sparse = F.pad(sparse.reshape(batch * channels, 1, rows * up, columns * up), (*pad, *pad))
    line = torch.tensor(taps, dtype=x.dtype, device=x.device) / sum(taps)
    full = F.conv2d(sparse, (up * up * torch.outer(line, line)).flip(0, 1)[None, None])[..., ::down, ::down]
    return full.reshape(batch, channels, *full.shape[-2:])


def norm(w: Weights, name: str, x: Tensor, groups: int, eps: float) -> Tensor:
    parts = x.reshape(len(x), groups, -1)
    mean, variance = parts.mean(2, keepdim=True), parts.var(2, keepdim=True, unbiased=False)
    scaled = ((parts - mean) / (variance + eps).sqrt()).reshape(x.shape)
    return scaled * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]


def conv(w: Weights, name: str, x: Tensor) -> Tensor:
    weight = w[f"{name}.weight"]
    return F.conv2d(x, weight, w[f"{name}.bias"], padding=weight.shape[-1] // 2)


def dense(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(batch, channels, positions) each."""
    scores = torch.einsum("bcp,bcq->bpq", query, key) / math.sqrt(query.shape[1])
    return torch.einsum("bpq,bcq->bcp", scores.softmax(2), value)


class PlainNCSNpp:
    """NCSN++ (Song et al. 2021, appendix H); a call evaluates it."""

    def __init__(self, config: NCSNppConfig, weights: Weights) -> None:
        self.c, self.w = config, weights

    def norm(self, name: str, x: Tensor) -> Tensor:
        return norm(self.w, name, x, min(x.shape[1] // 4, 32), 1e-6)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return (a + b) / math.sqrt(2) if self.c.skip_rescale else a + b

    def next(self) -> str:
        self.unit += 1
        return f"all_modules.{self.unit - 1}"

    def block(self, x: Tensor, resample: str = "") -> Tensor:
        w, name = self.w, self.next()
        hidden = swish(self.norm(f"{name}.GroupNorm_0", x))
        if resample == "up":
            x, hidden = (fir(a, self.c.fir, up=2) for a in (x, hidden))
        elif resample == "down":
            x, hidden = (fir(a, self.c.fir, down=2) for a in (x, hidden))
        hidden = conv(w, f"{name}.Conv_0", hidden)
        hidden = hidden + dense(w, f"{name}.Dense_0", swish(self.embedding))[:, :, None, None]
        hidden = conv(w, f"{name}.Conv_1", swish(self.norm(f"{name}.GroupNorm_1", hidden)))
        return self.add(conv(w, f"{name}.Conv_2", x) if f"{name}.Conv_2.weight" in w else x, hidden)

    def attention(self, x: Tensor) -> Tensor:
        name, w = self.next(), self.w
        flat = self.norm(f"{name}.GroupNorm_0", x).flatten(2)
        linear = [lambda a, i=i: torch.einsum("io,bip->bop", w[f"{name}.NIN_{i}.W"], a) for i in range(4)]
        biases = [w[f"{name}.NIN_{i}.b"][:, None] for i in range(4)]
        query, key, value = (linear[i](flat) + biases[i] for i in range(3))
        return self.add(x, (linear[3](attend(query, key, value)) + biases[3]).reshape(x.shape))

    def embed(self, sigma: Tensor) -> Tensor:
        c = self.c
        if c.embedding == "fourier":
            phase = 2 * math.pi * torch.outer(sigma.log(), self.w[f"{self.next()}.W"].float())
        else:
            index = (c.scales - 1) * torch.log(c.sigma_max / sigma) / math.log(c.sigma_max / c.sigma_min)
            half = c.width // 2
            phase = torch.outer(index, 10000.0 ** (-torch.arange(half, device=sigma.device) / (half - 1)))
        features = torch.cat([phase.sin(), phase.cos()], 1)
        first = dense(self.w, self.next(), features.to(self.w["all_modules.1.weight"].dtype))
        return dense(self.w, self.next(), swish(first))

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        c, self.unit = self.c, 0
        self.embedding = self.embed(sigma)
        pyramid = (x if c.centered else 2 * x - 1).to(self.embedding.dtype)
        skips = [conv(self.w, self.next(), pyramid)]
        levels = range(len(c.multipliers))
        for level in levels:
            for _ in range(c.blocks):
                hidden = self.block(skips[-1])
                skips.append(self.attention(hidden) if level in c.attention_levels else hidden)
            if level < levels[-1]:
                hidden = self.block(skips[-1], "down")
                if c.progressive_input == "residual":
                    name = f"{self.next()}.Conv2d_0"
                    smooth = fir(pyramid, c.fir, window=3)
                    smaller = F.conv2d(smooth, self.w[f"{name}.weight"], self.w[f"{name}.bias"], stride=2)
                    hidden = pyramid = self.add(smaller, hidden)
                skips.append(hidden)
        hidden = self.block(self.attention(self.block(skips[-1])))
        for level in reversed(levels):
            for _ in range(c.blocks + 1):
                hidden = self.block(torch.cat([hidden, skips.pop()], 1))
            if level in c.attention_levels:
                hidden = self.attention(hidden)
            if level:
                hidden = self.block(hidden, "up")
        out = conv(self.w, f"all_modules.{self.unit + 1}", swish(self.norm(self.next(), hidden))).to(x.dtype)
        return out / sigma[:, None, None, None] if c.scale_by_sigma else out


class PlainADM:
    """The ADM U-Net (Dhariwal and Nichol 2021); a call evaluates it."""

    def __init__(self, config: ADMConfig, weights: Weights) -> None:
        self.c, self.w = config, weights

    def norm(self, name: str, x: Tensor) -> Tensor:
        return norm(self.w, name, x, 32, 1e-5)

    def block(self, name: str, x: Tensor, resample: str = "") -> Tensor:
        w = self.w
        scale, shift = dense(w, f"{name}.emb_layers.1", swish(self.embedding))[:, :, None, None].chunk(2, 1)
        hidden = swish(self.norm(f"{name}.in_layers.0", x))
        if resample == "up":
            x, hidden = (a.repeat_interleave(2, 2).repeat_interleave(2, 3) for a in (x, hidden))
        elif resample == "down":
            x, hidden = (a.unflatten(3, (-1, 2)).mean(4).unflatten(2, (-1, 2)).mean(3) for a in (x, hidden))
        hidden = self.norm(f"{name}.out_layers.0", conv(w, f"{name}.in_layers.2", hidden)) * (1 + scale) + shift
        skip = f"{name}.skip_connection"
        x = conv(w, skip, x) if f"{skip}.weight" in w else x
        return x + conv(w, f"{name}.out_layers.3", swish(hidden))

    def attention(self, name: str, x: Tensor) -> Tensor:
        channels, heads = x.shape[1], self.c.heads_of(x.shape[1])
        flat = self.norm(f"{name}.norm", x).flatten(2)
        mixed = F.conv1d(flat, self.w[f"{name}.qkv.weight"], self.w[f"{name}.qkv.bias"])
        if self.c.new_attention_order:
            parts = [part.chunk(heads, 1) for part in mixed.chunk(3, 1)]
        else:
            parts = list(zip(*(head.chunk(3, 1) for head in mixed.chunk(heads, 1)), strict=True))
        joined = torch.cat([attend(*head) for head in zip(*parts, strict=True)], 1)
        assert joined.shape[1] == channels
        return x + F.conv1d(joined, self.w[f"{name}.proj_out.weight"], self.w[f"{name}.proj_out.bias"]).reshape(x.shape)

    def __call__(self, x: Tensor, step: Tensor) -> Tensor:
        c, w = self.c, self.w
        frequencies = 10000.0 ** (-torch.arange(c.width // 2, device=step.device) / (c.width // 2))
        phase = torch.outer(step, frequencies)
        features = torch.cat([phase.cos(), phase.sin()], 1).to(w["time_embed.0.weight"].dtype)
        self.embedding = dense(w, "time_embed.2", swish(dense(w, "time_embed.0", features)))
        skips = [conv(w, "input_blocks.0.0", x.to(features.dtype))]
        levels = range(len(c.multipliers))
        for level in levels:
            if level:
                skips.append(self.block(f"input_blocks.{len(skips)}.0", skips[-1], "down"))
            for _ in range(c.blocks):
                name = f"input_blocks.{len(skips)}"
                hidden = self.block(f"{name}.0", skips[-1])
                skips.append(self.attention(f"{name}.1", hidden) if level in c.attention_levels else hidden)
        hidden = self.block("middle_block.0", skips[-1])
        hidden = self.block("middle_block.2", self.attention("middle_block.1", hidden))
        total = len(skips)
        for level in reversed(levels):
            for block in range(c.blocks + 1):
                name = f"output_blocks.{total - len(skips)}"
                hidden = self.block(f"{name}.0", torch.cat([hidden, skips.pop()], 1))
                if level in c.attention_levels:
                    hidden = self.attention(f"{name}.1", hidden)
                if level and block == c.blocks:
                    hidden = self.block(f"{name}.{2 if level in c.attention_levels else 1}", hidden, "up")
        return conv(w, "out.2", swish(self.norm("out.0", hidden))).to(x.dtype)


class PlainCompact:
    """Our compact U-Net; a call evaluates it for one noise label a slice."""

    def __init__(self, config: CompactConfig, weights: Weights) -> None:
        self.c, self.w = config, weights

    def norm(self, name: str, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, 1, keepdim=True, unbiased=False)
        scaled = (x - mean) / (variance + 1e-5).sqrt()
        return scaled * self.w[f"{name}.weight"][:, None, None] + self.w[f"{name}.bias"][:, None, None]

    def block(self, name: str, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = dense(self.w, f"{name}.modulation", embedding)[:, :, None, None].chunk(2, 1)
        hidden = conv(self.w, f"{name}.conv1", swish(self.norm(f"{name}.norm1", x)))
        hidden = self.norm(f"{name}.norm2", hidden) * (1 + scale) + shift
        skip = conv(self.w, f"{name}.skip", x) if f"{name}.skip.weight" in self.w else x
        return skip + conv(self.w, f"{name}.conv2", swish(hidden))

    def stage(self, name: str, x: Tensor, embedding: Tensor) -> Tensor:
        block = 0
        while f"{name}.{block}.conv1.weight" in self.w:
            x, block = self.block(f"{name}.{block}", x, embedding), block + 1
        return x

    def waves(self, number: Tensor) -> Tensor:
        phase = number[:, None] * 16 ** torch.linspace(0, 1, 16, dtype=number.dtype) / 2
        return torch.cat([number[:, None], phase.cos(), phase.sin()], 1)

    def __call__(self, x: Tensor, label: Tensor, pixel_mm: Tensor | None = None) -> Tensor:
        embedding = dense(self.w, "embed.0", self.waves(label))
        if pixel_mm is not None:
            embedding += self.waves(pixel_mm.log()) @ self.w["pixels.weight"].T
        embedding = swish(dense(self.w, "embed.2", swish(embedding)))
        x = conv(self.w, "stem", F.pixel_unshuffle(x, self.c.stem))
        skips = []
        for level in range(len(self.c.widths)):
            x = self.stage(f"encoder.{level}", x, embedding)
            if level + 1 < len(self.c.widths):
                skips.append(x)
                x = F.conv2d(x, self.w[f"down.{level}.weight"], self.w[f"down.{level}.bias"], stride=2)
        for level in reversed(range(len(skips))):
            x = torch.cat([F.pixel_shuffle(conv(self.w, f"up.{level}", x), 2), skips.pop()], 1)
            x = self.stage(f"decoder.{level}", x, embedding)
        return F.pixel_shuffle(conv(self.w, "head", swish(self.norm("norm", x))), self.c.stem)
