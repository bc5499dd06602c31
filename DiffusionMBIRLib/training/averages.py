"""Averages of weights whose width is chosen after training.

Source: Karras et al. 2024 (arXiv 2312.02696), section 3: an average with the profile p(s; t, gamma) =
(gamma + 1) s^gamma / t^(gamma + 1) over the steps s up to t forgets its beginning and needs no width in steps.  Its
relative width is the standard deviation over t.  Two of them, kept from time to time, combine to any other width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from .base import StateFile

WIDTHS = (0.05, 0.10)  # of the two that are kept


@dataclass(frozen=True)
class Profile:
    """An average up to a step, of an exponent gamma."""

    step: int
    gamma: float


def gamma_of(width: float) -> float:
    """The exponent of a relative width: the only positive root of width^2 = (g + 1) / ((g + 2)^2 (g + 3)).

    Raises InputError for widths that no such profile has.
    """
    if not 0 < width < 0.28:
        raise InputError(f"width {width:g} of an average: choose a number between 0 and 0.28")
    inverse = width**-2
    return float(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real.max())


def overlap(first: Profile, second: Profile) -> float:
    """The integral of the product of two profiles."""
    early, late = sorted((first, second), key=lambda profile: profile.step)
    ratio = (early.step / late.step) ** late.gamma / late.step
    return (early.gamma + 1) * (late.gamma + 1) / (early.gamma + late.gamma + 1) * ratio


def combination(kept: Sequence[Profile], wanted: Profile) -> np.ndarray:
    """The factors (kept,) whose sum of the kept profiles comes closest to the wanted one (least squares)."""
    products = np.array([[overlap(a, b) for b in kept] for a in kept])
    return np.linalg.lstsq(products, np.array([overlap(a, wanted) for a in kept]), rcond=1e-12)[0]


class RunningAverages:
    """The two averages of a network's weights during training."""

    def __init__(self, network: nn.Module) -> None:
        self.weights = [{k: v.detach().clone() for k, v in network.named_parameters()} for _ in WIDTHS]
        self.gammas = [gamma_of(width) for width in WIDTHS]

    def update(self, network: nn.Module, step: int) -> None:
        """step: counted from 1, at which the averages are the weights."""
        now = [v.detach() for v in network.parameters()]
        for weights, gamma in zip(self.weights, self.gammas, strict=True):
            torch._foreach_lerp_(list(weights.values()), now, 1 - (1 - 1 / step) ** (gamma + 1))

    def state(self) -> list[dict[str, Tensor]]:
        return self.weights

    def load(self, state: Sequence[Mapping[str, Tensor]]) -> None:
        """Raises ValueError for the averages of another network."""
        for weights, loaded in zip(self.weights, state, strict=True):
            for name, value in weights.items():
                value.copy_(loaded[name])

    def keep(self, folder: Path, step: int) -> None:
        """Write a snapshot of both averages, in half precision."""
        folder.mkdir(exist_ok=True)
        halves = [{k: v.half() for k, v in weights.items()} for weights in self.weights]
        StateFile(folder / f"{step:09d}.pt").save({"averages": halves})


def snapshots(folder: Path, *, until: int) -> dict[int, Path]:
    """The files that :meth:`RunningAverages.keep` wrote, by their step."""
    files = {int(path.stem): path for path in sorted(folder.glob("[0-9]*.pt"))}
    return {step: path for step, path in files.items() if step <= until}


def average_of(files: Mapping[int, Path], width: float) -> dict[str, Tensor]:
    """The average of a relative width up to the last snapshot, in float32, by the names of the weights."""
    kept = [Profile(step, gamma_of(w)) for step in files for w in WIDTHS]
    factors = combination(kept, Profile(max(files), gamma_of(width))).reshape(len(files), len(WIDTHS))
    sums: dict[str, Tensor] = {}
    for path, shares in zip(files.values(), factors, strict=True):
        state = StateFile(path).load(torch.device("cpu")) or {}
        for weights, share in zip(state["averages"], shares, strict=True):
            for name, value in weights.items():
                sums[name] = sums.get(name, torch.zeros(())) + float(share) * value.float()
    return sums
