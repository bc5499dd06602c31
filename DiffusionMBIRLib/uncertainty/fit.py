"""Fits the network of error sizes to runs whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..monitor import Monitor, Silent
from ..training.base import seeded
from .network import ErrorNet, quantile_loss

STEPS, BATCH, SIZE = 2500, 8, 64
RATE = 2e-3


@dataclass(frozen=True)
class KnownRun:
    """A finished run beside its truth.  maps: (slices, 5, rows, columns), of ``Signals``; error: absolute, (slices,
    rows, columns), in the value scale.
    """

    person: str
    maps: Tensor
    error: Tensor


def fit_network(
    runs: Sequence[KnownRun],
    *,
    steps: int = STEPS,
    size: int = SIZE,
    seed: int = 0,
    monitor: Monitor | None = None,
    stage: str = "fit",
) -> ErrorNet:
    """An ErrorNet by quantile regression on random windows of size x size pixels, at a rate that falls from 0.002 to 0
    as a cosine does; people count alike.
    """
    network = seeded(ErrorNet, seed)
    optimizer = torch.optim.AdamW(network.parameters(), RATE)
    generator, watched = np.random.default_rng(seed), monitor or Silent()
    by_person: dict[str, list[KnownRun]] = {}
    for run in runs:
        by_person.setdefault(run.person, []).append(run)
    people = list(by_person.values())
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / (1 + steps // 25)) * 0.5 * (1 + math.cos(math.pi * step / steps))
        batch = [_window(people, size, generator) for _ in range(BATCH)]
        maps, error = (torch.stack(part) for part in zip(*batch, strict=True))
        loss = quantile_loss(network(maps), error)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        watched.tick(stage, step + 1, steps, **({"loss": loss.item()} if step % 50 == 0 else {}))
    return network.eval()


def _window(people: Sequence[Sequence[KnownRun]], size: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    runs = people[int(generator.integers(len(people)))]
    run = runs[int(generator.integers(len(runs)))]
    index = int(generator.integers(len(run.maps)))
    maps, error = run.maps[index], run.error[index]
    for axis in (-2, -1):
        whole = error.shape[axis]
        start, length = int(generator.integers(max(1, whole - size + 1))), min(size, whole)
        maps, error = maps.narrow(axis, start, length), error.narrow(axis, start, length)
        if generator.random() < 0.5:
            maps, error = maps.flip(axis), error.flip(axis)
    missing = (0, size - error.shape[1], 0, size - error.shape[0])
    if any(missing):
        maps = torch.nn.functional.pad(maps[None], missing, mode="replicate")[0]
        error = torch.nn.functional.pad(error[None, None], missing, mode="replicate")[0, 0]
    return maps, error
