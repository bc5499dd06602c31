"""Half-widths that hold: sizes of errors are scaled, class by class, until they did on people the model had not seen.

Split conformal prediction with groups (Vovk et al. 2005; Lei et al. 2018, doi 10.1080/01621459.2017.1307116; Romano et
al. 2019, arXiv 1905.03222, for quantile regression).  The guarantee is for people like those of the calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST_VOXELS = 200  # of a class in a person, for them to count
_RATIOS = np.geomspace(0.05, 20, 1201)  # of error and half-width that are told apart
_ROUNDS = 4  # to find a level; each takes off nearly all that was amiss


@dataclass(frozen=True)
class Classes:
    """Kinds of tissue by the value of a voxel of the result: names, and the bounds between them (one fewer)."""

    names: tuple[str, ...]
    bounds: tuple[float, ...]

    def of(self, values: np.ndarray) -> np.ndarray:
        """Index of the class of each value."""
        return np.digitize(values, self.bounds)


CLASSES = {
    "CT": Classes(("air", "lung", "soft tissue", "bone"), (-850.0, -250.0, 150.0)),  # HU
    "MR": Classes(("background", "dark", "middle", "bright"), (0.05, 0.25, 0.6)),  # of the 99.5th percentile
}


@dataclass(frozen=True)
class Covered:
    """Of one person, for each class: the share of voxels whose error is at most each of a row of multiples of its
    half-width (classes, ratios), and how many voxels there are.
    """

    shares: np.ndarray
    voxels: np.ndarray

    @classmethod
    def of(cls, error: np.ndarray, width: np.ndarray, kinds: np.ndarray, count: int) -> Covered:
        """error: absolute; kinds: index of each voxel's class; all of one shape."""
        shares, voxels = np.ones((count, len(_RATIOS))), np.zeros(count, int)
        ratio = (error / width).ravel()
        for kind in range(count):
            mine = np.sort(ratio[(kinds == kind).ravel()])
            voxels[kind] = len(mine)
            if len(mine):
                shares[kind] = np.searchsorted(mine, _RATIOS, side="right") / len(mine)
        return cls(shares, voxels)


def scales(people: Sequence[Covered], share: float, weights: Sequence[float] | None = None) -> list[float]:
    """For each class the factor by which half-widths hold that share of its voxels, in the mean over people.

    People weigh as told, all alike by default.  A class that nobody has takes the largest factor of the others.
    """
    told = np.ones(len(people)) if weights is None else np.asarray(weights, float)
    found: list[float] = []
    for kind in range(len(people[0].voxels)):
        mine = [k for k, person in enumerate(people) if person.voxels[kind] >= LEAST_VOXELS and told[k] > 0]
        if not mine:
            found.append(float("nan"))
            continue
        mean = np.average([people[k].shares[kind] for k in mine], axis=0, weights=told[mine])
        place = min(int(np.searchsorted(mean, share)), len(_RATIOS) - 1)
        found.append(float(_RATIOS[place]))
    known = [value for value in found if np.isfinite(value)]
    widest = max(known, default=1.0)
    return [value if np.isfinite(value) else widest for value in found]


def held(person: Covered, factors: Sequence[float]) -> np.ndarray:
    """Share of each class's voxels within the scaled half-widths."""
    places = np.searchsorted(_RATIOS, factors)
    return person.shares[np.arange(len(factors)), np.minimum(places, len(_RATIOS) - 1)]


def held_of_others(
    people: Sequence[Covered], names: Sequence[str], share: float, weights: Sequence[float]
) -> float | None:
    """The share of voxels that is held, in the mean over people, each by factors of the others; None of one person.

    names: whose each of them is.
    """
    found, told = list[float](), list[float]()
    for person, name, weight in zip(people, names, weights, strict=True):
        others = [k for k, other in enumerate(names) if other != name]
        if others and person.voxels.sum():
            factors = scales([people[k] for k in others], share, [weights[k] for k in others])
            found.append(float(np.average(held(person, factors), weights=person.voxels)))
            told.append(weight)
    return float(np.average(found, weights=told)) if found else None


def level(people: Sequence[Covered], names: Sequence[str], share: float, weights: Sequence[float]) -> float:
    """The share to scale for, so that of people who were left out that very share is held.

    Factors suit those that they were made of, and classes are of unlike size in unlike people: what is asked of each
    class is not what is held of a new person.  Left out in turn, people tell the difference (the jackknife, as of
    Barber et al. 2021, doi 10.1214/20-AOS1965).
    """
    asked, reach = share, (1 - share) / 2
    for _ in range(_ROUNDS):
        got = held_of_others(people, names, asked, weights)
        if got is None:
            break
        asked = float(np.clip(asked + share - got, share - reach, share + reach))
    return asked
