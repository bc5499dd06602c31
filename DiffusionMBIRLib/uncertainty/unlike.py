"""Whether a scan is unlike those that a prior was calibrated with: other objects, units, or angles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .signals import LEVELS, Signals

BODY = 0.1  # above it lies the object, in the value scale
LEAST_SPREAD = 0.1  # of a logarithm between people: fewer of them may look more alike than they are
QUANTILE = 0.99


def features_of(signals: Signals) -> list[float]:
    """Logarithms of what a run is like, all over the object: how far the prior moves it at each level against the
    noise, what the prior filled in and what stays unexplained against the object's contrast, misfit, contrast, size.
    """
    maps = signals.maps
    value = maps[:, 0]
    inside = value > BODY
    if int(inside.sum()) < 16:
        inside = torch.ones_like(inside)
    contrast = float(value[inside].std())
    moved = [_rms(maps[:, 2 + k], inside) / level for k, level in enumerate(LEVELS)]
    filled, unexplained = _rms(maps[:, 1], inside), _rms(maps[:, 4], inside)
    edges = 0.5 * (_rms(value.diff(dim=1), inside[:, 1:]) + _rms(value.diff(dim=2), inside[:, :, 1:]))
    sizes = (
        *moved, filled / max(contrast, 1e-6), unexplained, signals.misfit, contrast,
        float(value[inside].mean()), float(inside.float().mean()), edges,
    )  # fmt: skip
    return [math.log(max(size, 1e-6)) for size in sizes]


def _rms(x: Tensor, where: Tensor) -> float:
    return float(x[where].square().mean().sqrt()) if bool(where.any()) else 0.0


def usual_of(people: Sequence[Sequence[float]]) -> dict[str, Any]:
    """What runs of one kind are like: mean and spread of each feature, and the distance of the most unlike person from
    the others.
    """
    table = torch.tensor(people, dtype=torch.float64)
    usual = _usual(table)
    alone = [
        distance(row.tolist(), _usual(torch.cat([table[:k], table[k + 1 :]]))) for k, row in enumerate(table)
    ] if len(table) > 2 else [0.0]  # fmt: skip
    return usual | {"limit": float(torch.quantile(torch.tensor(alone, dtype=torch.float64), QUANTILE))}


def _usual(table: Tensor) -> dict[str, Any]:
    spread = table.std(dim=0, unbiased=len(table) > 1).clamp_min(LEAST_SPREAD)
    return {"mean": table.mean(dim=0).tolist(), "spread": spread.tolist()}


def distance(features: Sequence[float], usual: Mapping[str, Any]) -> float:
    """The largest distance of a feature from its mean, in spreads: wrong angles show in one alone."""
    return max(abs(f - m) / s for f, m, s in zip(features, usual["mean"], usual["spread"], strict=True))
