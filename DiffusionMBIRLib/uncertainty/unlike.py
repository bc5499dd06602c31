"""Whether a scan is unlike those that a prior was calibrated with: other objects, units, or angles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .signals import LEVELS

BODY = 0.1  # above it lies the object, in the value scale
LEAST_SPREAD = 0.1  # of a logarithm between people: fewer of them may look more alike than they are
QUANTILE = 0.99
ODD = 0.05  # of the people of a calibration, who are not taken for usual
SHRINKAGE = 0.1  # of correlations, which few people tell badly


def features_of(maps: Tensor, misfit: float) -> list[float]:
    """Logarithms of what a run is like, all over the object: how far the prior moves it at each level against the
    noise, what the prior filled in and what stays unexplained against the object's contrast, misfit, contrast, size,
    how bright the brightest twentieth is, and how the prior's largest moves compare with all.

    maps, misfit: those of its signals.
    """
    value = maps[:, 0]
    inside = value > BODY
    if int(inside.sum()) < 16:
        inside = torch.ones_like(inside)
    contrast = float(value[inside].std())
    moved = [_rms(maps[:, 2 + k], inside) / level for k, level in enumerate(LEVELS)]
    filled, unexplained = _rms(maps[:, 1], inside), _rms(maps[:, 4], inside)
    edges = 0.5 * (_rms(value.diff(dim=1), inside[:, 1:]) + _rms(value.diff(dim=2), inside[:, :, 1:]))
    largest = _quantile(maps[:, 1 + len(LEVELS)][inside].abs(), 0.99) / LEVELS[-1]
    sizes = (
        *moved, filled / max(contrast, 1e-6), unexplained, misfit, contrast,
        float(value[inside].mean()), float(inside.float().mean()), edges, _quantile(value[inside], 0.95),
        largest / max(moved[-1], 1e-6),
    )  # fmt: skip
    return [math.log(max(size, 1e-6)) for size in sizes]


def _quantile(x: Tensor, share: float) -> float:
    """Of any number of values, which torch.quantile refuses."""
    return float(x.kthvalue(max(1, round(share * x.numel()))).values)


def _rms(x: Tensor, where: Tensor) -> float:
    return float(x[where].square().mean().sqrt()) if bool(where.any()) else 0.0


def usual_of(runs: Sequence[Sequence[float]]) -> dict[str, Any]:
    """What runs of one kind are like: mean and spread of each feature, and how each goes with the others."""
    return _usual(torch.tensor(runs, dtype=torch.float64))


def distances_left_out(runs: Sequence[Sequence[float]], people: Sequence[str]) -> list[float]:
    """How far each run of one kind lies from those of the other people.  people: whose each run is."""
    return [apart for _, apart in _left_out(runs, people)]


def _left_out(runs: Sequence[Sequence[float]], people: Sequence[str]) -> list[tuple[str, float]]:
    table, found = torch.tensor(runs, dtype=torch.float64), []
    for person in dict.fromkeys(people):
        others = torch.tensor([other != person for other in people])
        if int(others.sum()) > 1:
            usual = _usual(table[others])
            found += [(person, distance(row.tolist(), usual)) for row in table[~others]]
    return found


def ordinary(kinds: Sequence[tuple[Sequence[Sequence[float]], Sequence[str]]]) -> set[str]:
    """People but for the oddest one in twenty, who would make anything usual.  kinds: of each kind of scan runs, and
    whose they are; the largest distance of a person counts.
    """
    furthest: dict[str, float] = {}
    for runs, people in kinds:
        furthest |= dict.fromkeys(people, 0.0) | furthest
        for person, apart in _left_out(runs, people):
            furthest[person] = max(furthest[person], apart)
    by_distance = sorted(furthest, key=lambda person: furthest[person])
    return set(by_distance[: len(by_distance) - int(ODD * len(by_distance))])


def limit_of(distances: Sequence[float]) -> float:
    """What one in a hundred passes; of all kinds of scans together, as of one alone it would be its oddest person."""
    return float(torch.quantile(torch.tensor(distances or [0.0], dtype=torch.float64), QUANTILE))


def _usual(table: Tensor) -> dict[str, Any]:
    mean, spread = table.mean(dim=0), table.std(dim=0, unbiased=len(table) > 1).clamp_min(LEAST_SPREAD)
    apart = (table - mean) / spread
    alike = torch.eye(table.shape[1], dtype=table.dtype)
    inverse = torch.linalg.inv((1 - SHRINKAGE) * apart.T @ apart / len(table) + SHRINKAGE * alike)
    given = inverse / inverse.diagonal().sqrt()[:, None]
    return {"mean": mean.tolist(), "spread": spread.tolist(), "given": given.tolist()}


def distance(features: Sequence[float], usual: Mapping[str, Any]) -> float:
    """How far the feature that stands out most lies from what the others let expect, in spreads of that.

    The rows of ``given`` are those of the inverse correlation over the roots of its diagonal: they take from each
    feature what its regression on the others explains (Cox and Wermuth 1996, Multivariate Dependencies).  Wrong angles,
    or an object that is no person, show in one feature that does not go with the rest.
    """
    apart = [(float(f) - m) / s for f, m, s in zip(features, usual["mean"], usual["spread"], strict=True)]
    return max(abs(sum(g * a for g, a in zip(row, apart, strict=True))) for row in usual["given"])
