"""The state of a sampler's loop: what must be kept so that a killed run goes on to the same volume, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..checkpoints import fitting, form_of
from ..monitor import Checkpoint, Monitor
from ..solvers.consistency import DataFit
from .schedules import STAGE


def restore(checkpoint: Checkpoint, consistency: DataFit, x: Tensor, steps: int | None = None) -> tuple[int, Tensor]:
    """(steps that are done, x); puts the ADMM's variable back to where it was.

    steps: the most that a state may have behind it.  Raises ValueError for a state of another volume or data step.
    """
    state = checkpoint.load(STAGE)
    if state is None:
        return 0, x
    kept = fitting(state, {"x": form_of(x), **consistency.forms(x)}, steps)
    consistency.restore(kept)
    return int(state["done"]), kept["x"]


def kept(checkpoint: Checkpoint, name: str, like: Tensor) -> Tensor | None:
    """A further volume that :func:`save` was given, None where nothing was saved; errors as of :func:`restore`."""
    state = checkpoint.load(STAGE)
    return None if state is None else fitting(state, {name: form_of(like)})[name]


def save(
    checkpoint: Checkpoint,
    consistency: DataFit,
    x: Tensor,
    done: int,
    more: Mapping[str, Tensor] | None = None,
) -> None:
    """Offer the state after ``done`` steps; more: what a sampler keeps besides."""
    entries = {"x": x, "done": torch.tensor(done)}
    checkpoint.save(STAGE, entries | consistency.state() | dict(more or {}))


def watch(monitor: Monitor, consistency: DataFit, estimate: Tensor, done: int, total: int, sigma: float) -> None:
    """Tell of a step that is over: the estimate for whoever looks, and how well it fits the data.

    The fit is looked at in every fifth step: it takes half a step of conjugate gradient and the device has to wait.
    """
    if done % 5 == 1 or done == total or consistency.misfit is None:
        consistency.misfit = consistency.residual(estimate)
    monitor.preview(lambda: estimate, done)
    monitor.tick(STAGE, done, total, sigma=sigma, residual=consistency.misfit)
