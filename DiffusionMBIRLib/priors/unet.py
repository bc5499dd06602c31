"""What the published networks share: configurations as dictionaries, images, files' weights, and frugal layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..schema import checked, schema_of

Config = TypeVar("Config")
Network = TypeVar("Network", bound=nn.Module)


class Levelled(Protocol):
    """A configuration of a U-Net with one multiplier of the base width per resolution level."""

    @property
    def image_channels(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def multipliers(self) -> tuple[int, ...]: ...
    @property
    def blocks(self) -> int: ...
    @property
    def attention_levels(self) -> tuple[int, ...]: ...
    @property
    def dropout(self) -> float: ...


def check_levels(config: Levelled, kind: str) -> None:
    """Raise InputError unless the sizes are positive integers, the levels exist and dropout lies in [0, 1)."""
    sizes = (config.image_channels, config.width, *config.multipliers, config.blocks)
    if not config.multipliers or any(not isinstance(n, int) or n < 1 for n in sizes):
        raise InputError(f"{kind}: sizes must be positive integers: {config}")
    if any(level not in range(len(config.multipliers)) for level in config.attention_levels):
        raise InputError(f"{kind}: attention_levels must count resolutions from 0: {config.attention_levels}")
    if not 0 <= config.dropout < 1:
        raise InputError(f"{kind}: dropout must lie in [0, 1), not {config.dropout}")


def entries_of(config: Any, kind: str) -> dict[str, Any]:
    """A configuration as a JSON object, its kind first; tuples become lists."""
    entries = {"kind": kind, **asdict(config)}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in entries.items()}


def from_entries(cls: type[Config], kind: str, entries: Mapping[str, Any]) -> Config:
    """The inverse of :func:`entries_of`; entries of other names are passed over, InputError says what is wrong."""
    if entries.get("kind") != kind:
        raise InputError(f"network kind {entries.get('kind')!r} is not {kind}")
    chosen = checked(entries, schema_of(cls), kind, others=True)
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in chosen.items()})


def check_image(x: Tensor, channels: int, multiple: int) -> None:
    """Raise InputError unless x is (batch, channels, rows, columns) with sides that the network can halve."""
    if x.dim() != 4 or x.shape[1] != channels or x.shape[2] % multiple or x.shape[3] % multiple:
        raise InputError(
            f"the network takes (batch, {channels}, rows, columns) with sides in multiples of {multiple}, "
            f"not {tuple(x.shape)}; pad the slices"
        )


def check_weights(network: nn.Module, state: Mapping[str, Tensor], kind: str) -> None:
    """Raise InputError unless the state's names and shapes are just those of the network."""
    expected = {k: v.shape for k, v in network.state_dict().items()}
    wrong = [k for k, shape in expected.items() if k not in state or state[k].shape != shape]
    wrong += [k for k in state if k not in expected]
    if wrong:
        first = ", ".join(wrong[:3])
        raise InputError(f"{len(wrong)} weights are not those of a supported {kind} network, first {first}")


def on_meta(build: Callable[[Config], Network], config: Config) -> Network:
    """The network without memory for its weights: names and shapes only."""
    with torch.device("meta"):
        return build(config)


def type_of(network: nn.Module) -> torch.dtype:
    """The type of a network's weights, in which it wants its input."""
    return next(network.parameters()).dtype


def joined(parts: list[Tensor]) -> Tensor:
    """The maps side by side along the channels.  The list is emptied, so that they do not outlive their use."""
    x = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
    parts.clear()
    return x


def group_norm_silu_(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """SiLU of the group norm of x, which is overwritten a few groups at a time: no second map of its size is needed.

    Except with gradients, which need x as it was, and on accelerators, where many small steps cost more than memory.
    """
    if torch.is_grad_enabled() or not x.is_cpu:
        return F.silu(norm(x), inplace=True)
    size = x.shape[1] // norm.num_groups
    channels = size * math.ceil(16 / size)  # fewer would be slow to gather
    pieces = zip(x.split(channels, dim=1), norm.weight.split(channels), norm.bias.split(channels), strict=True)
    for piece, weight, bias in pieces:
        piece.copy_(F.silu(F.group_norm(piece, len(weight) // size, weight, bias, norm.eps), inplace=True))
    return x
