"""What a log-linear model of error sizes misses: a small network that corrects it, voxel by voxel.

Its inputs are the features of that model, the kind of tissue and the kind of scan; it tells the logarithm of a factor.
It is trained to be the most likely scale of Laplace errors (Nix and Weigend 1994, doi 10.1109/ICNN.1994.374138, do so
for Gaussian ones), with dropout, since people are few.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

WIDTHS = (32, 16)
_MOST_APART = 4.0  # spreads of an input from its mean, beyond which it counts as no further
_BATCH, _PASSES, _STEPS = 2048, 10, 2500  # voxels; over all of them at most, and steps at most
_RATE, _DECAY, _DROPPED = 3e-3, 0.1, 0.2
_LEAST_ERROR = 1e-3  # added to errors, in the value scale


@dataclass(frozen=True)
class Voxels:
    """Some voxels of a known run.  inputs: (voxels, inputs); predicted: logarithm of the size that the log-linear
    model tells; error: absolute; share: how much the run weighs.
    """

    inputs: Tensor
    predicted: Tensor
    error: Tensor
    share: float


@dataclass(frozen=True)
class Refinement:
    """mean and spread of the inputs, and weights and biases of three layers."""

    mean: Tensor
    spread: Tensor
    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor
    last: Tensor
    last_bias: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logarithms of factors (...) of inputs (..., inputs)."""
        at = [getattr(self, part.name).to(inputs.device) for part in fields(self)]
        x = ((inputs - at[0]) / at[1]).clamp(-_MOST_APART, _MOST_APART)
        x = nn.functional.silu(nn.functional.linear(x, at[2], at[3]))
        x = nn.functional.silu(nn.functional.linear(x, at[4], at[5]))
        return nn.functional.linear(x, at[6], at[7])[..., 0]

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        return {f"refinement.{part.name}": getattr(self, part.name).contiguous() for part in fields(self)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], inputs: int) -> Refinement | None:
        """The inverse; None of a file without.  Raises ValueError for tensors that do not fit."""
        found = {name: tensor.float() for name, tensor in tensors.items() if name.startswith("refinement.")}
        if not found:
            return None
        one, two = WIDTHS
        shapes = [(inputs,), (inputs,), (one, inputs), (one,), (two, one), (two,), (1, two), (1,)]
        made = []
        for part, shape in zip(fields(cls), shapes, strict=True):
            tensor = found.get(f"refinement.{part.name}")
            if tensor is None or tuple(tensor.shape) != shape or not bool(tensor.isfinite().all()):
                raise ValueError(part.name)
            made.append(tensor)
        if not bool((made[1] > 0).all()):
            raise ValueError("spread")
        return cls(*made)


def inputs_of(features: Tensor, kinds: Tensor, classes: int, amount: float, coils: int) -> Tensor:
    """Inputs (voxels, inputs) of features (voxels, features), whose last one is constant, classes of the voxels, and
    of the kind of scan how much was measured and by how many coils.
    """
    of_scan = torch.tensor([math.log(max(amount, 1e-6)), float(coils > 1)], device=features.device)
    own = nn.functional.one_hot(kinds, classes).to(features.dtype)
    return torch.cat([features[:, :-1], own, of_scan.expand(len(features), 2)], dim=1)


def input_count(features: int, classes: int) -> int:
    return features - 1 + classes + 2


def trained(runs: Sequence[Voxels], seed: int = 0) -> Refinement:
    """The network of known runs; the same for the same runs on one machine."""
    inputs, predicted, error = (
        torch.cat([getattr(run, name) for run in runs]) for name in ("inputs", "predicted", "error")
    )
    weight = torch.cat([torch.full((len(run.error),), run.share / len(run.error)) for run in runs])
    spread, mean = torch.std_mean(inputs, dim=0)
    spread = spread + 1e-3
    x = ((inputs - mean) / spread).clamp(-_MOST_APART, _MOST_APART)
    steps = max(1, min(_STEPS, _PASSES * len(x) // _BATCH))
    with torch.random.fork_rng(devices=[]), torch.inference_mode(mode=False), torch.enable_grad():
        torch.manual_seed(seed)
        layers = [nn.Linear(x.shape[1], WIDTHS[0]), nn.Linear(*WIDTHS), nn.Linear(WIDTHS[1], 1)]
        network = nn.Sequential(layers[0], nn.SiLU(), nn.Dropout(_DROPPED), layers[1], nn.SiLU(), layers[2])
        with torch.no_grad():
            layers[2].weight.mul_(0.1)
            layers[2].bias.zero_()
        ways = list(network.parameters())
        optimizer = torch.optim.AdamW(ways, _RATE, weight_decay=_DECAY, fused=True)
        pace = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps + 1, pct_start=0.1)
        for mine in torch.multinomial(weight, steps * _BATCH, replacement=True).split(_BATCH):
            log_size = predicted[mine] + network(x[mine])[:, 0]
            misfit = (log_size + (error[mine] + _LEAST_ERROR) * torch.exp(-log_size)).mean()
            optimizer.zero_grad(set_to_none=True)
            misfit.backward()
            nn.utils.clip_grad_norm_(ways, 1.0)
            optimizer.step()
            pace.step()
        parts = [tensor.detach() for layer in layers for tensor in (layer.weight, layer.bias)]
    return Refinement(mean, spread, *parts)
