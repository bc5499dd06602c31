"""Checkpoints that hold what files know everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .monitor import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

_COMPLEX = ".complex"  # marks names of complex tensors


@dataclass
class AsReal:
    """A checkpoint that keeps complex tensors as real ones with a last axis of two: files know those everywhere."""

    checkpoint: Checkpoint

    def load(self, stage: str) -> dict[str, Tensor] | None:
        stored = self.checkpoint.load(stage)
        if stored is None:
            return None
        split = {name: name.removesuffix(_COMPLEX) for name in stored}
        import torch

        return {plain: stored[n] if n == plain else torch.view_as_complex(stored[n]) for n, plain in split.items()}

    def save(self, stage: str, state: dict[str, Tensor]) -> None:
        import torch

        entries = {
            (name + _COMPLEX if value.is_complex() else name): torch.view_as_real(value)
            if value.is_complex()
            else value
            for name, value in state.items()
        }
        self.checkpoint.save(stage, entries)
