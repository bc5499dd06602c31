"""Checkpoints that hold what files know everywhere, and what their states must look like to be gone on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .monitor import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

Form = tuple[Sequence[int], Any]  # shape and dtype of a tensor

COMPLEX = ".complex"  # marks names of complex tensors


@dataclass
class AsReal:
    """A checkpoint that keeps complex tensors as real ones with a last axis of two: files know those everywhere."""

    checkpoint: Checkpoint

    def load(self, stage: str) -> dict[str, Tensor] | None:
        stored = self.checkpoint.load(stage)
        if stored is None:
            return None
        split = {name: name.removesuffix(COMPLEX) for name in stored}
        import torch

        return {plain: stored[n] if n == plain else torch.view_as_complex(stored[n]) for n, plain in split.items()}

    def save(self, stage: str, state: dict[str, Tensor]) -> None:
        import torch

        entries = {
            (name + COMPLEX if value.is_complex() else name): torch.view_as_real(value) if value.is_complex() else value
            for name, value in state.items()
        }
        self.checkpoint.save(stage, entries)


def form_of(x: Tensor) -> Form:
    """Shape and dtype."""
    return tuple(x.shape), x.dtype


def fitting(state: Mapping[str, Tensor], forms: Mapping[str, Form], steps: int | None = None) -> dict[str, Tensor]:
    """The tensors of a state by the names in ``forms``, each found to have its form.

    steps: the most that the state may have behind it ("done").  Raises ValueError for what is missing, or would be
    broadcast or cast in silence: a state of other content may have been written with a right digest.
    """
    for name, (shape, dtype) in forms.items():
        if name not in state:
            raise ValueError(f"the state lacks {name}")
        if form_of(state[name]) != (tuple(shape), dtype):
            raise ValueError(f"{name} is {form_of(state[name])}; needed is {(tuple(shape), dtype)}")
    if steps is not None and int(state["done"]) > steps:
        raise ValueError(f"the state has {int(state['done'])} steps behind it; the run has {steps}")
    return {name: state[name] for name in forms}
