"""The state of a sampler's loop: what must be kept so that a killed run goes on to the same volume, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..monitor import Checkpoint
from ..solvers.consistency import DataFit

STAGE = "diffusion"


def restore(checkpoint: Checkpoint, consistency: DataFit, generator: torch.Generator, x: Tensor) -> tuple[int, Tensor]:
    """(steps that are done, x); puts the ADMM's variable and the generator back to where they were."""
    state = checkpoint.load(STAGE)
    if state is None:
        return 0, x
    consistency.restore(state)
    generator.set_state(state["generator"].cpu())
    return int(state["done"]), state["x"]


def save(
    checkpoint: Checkpoint,
    consistency: DataFit,
    generator: torch.Generator,
    x: Tensor,
    done: int,
    more: Mapping[str, Tensor] | None = None,
) -> None:
    """Offer the state after ``done`` steps; more: what a sampler keeps besides."""
    entries = {"x": x, "done": torch.tensor(done), "generator": generator.get_state()}
    checkpoint.save(STAGE, entries | consistency.state() | dict(more or {}))
