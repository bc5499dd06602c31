"""Sampling masks of Cartesian k-space, with the lowest frequency in the middle.  Needs numpy only.

:func:`sampling_mask` makes those of a simulation, with as many positions as the acceleration says.
Those of :func:`line_mask` and :func:`point_mask` follow Chung et al. 2023 (arXiv 2211.10655), number for number from
the same seed.  They draw positions with replacement, so that fewer are sampled than ``acceleration`` says;
``distinct=True`` mends this.
"""

from __future__ import annotations

import numpy as np

from ..config import MASKS
from ..errors import InputError

KINDS = ("uniform", "gaussian")
GAUSSIAN_WIDTH = 15 / 128  # standard deviation of drawn lines over their number, as published


def line_mask(
    size: int,
    *,
    acceleration: int,
    centre_fraction: float,
    kind: str = "uniform",
    seed: int = 0,
    distinct: bool = False,
) -> np.ndarray:
    """Which of ``size`` phase-encoding lines are measured: bool (size,).

    A block of ``centre_fraction * size`` lines in the middle is always measured.  'uniform' draws the rest of
    size / acceleration lines evenly over all lines, the middle among them; 'gaussian' draws 1.2 times
    size / acceleration around the middle, with a standard deviation of 15 / 128 of the size.

    distinct: draw 'uniform' lines without replacement and outside of the block, so that just size / acceleration of
    them are measured.  Raises InputError for numbers out of range or, with distinct, for 'gaussian'.
    """
    if kind not in KINDS:
        raise InputError(f"mask {kind!r} is not known; use one of {', '.join(KINDS)}")
    centre = int(size * centre_fraction)
    if size < 1 or acceleration < 1 or not 0 <= centre_fraction <= 1:
        raise InputError("a mask needs size and acceleration of at least 1 and a centre_fraction from 0 to 1")
    wanted, random = size // acceleration, np.random.RandomState(seed)
    mask = np.zeros(size, dtype=bool)
    first = size // 2 - centre // 2
    mask[first : first + centre] = True
    if kind == "gaussian":
        if distinct:
            raise InputError("distinct lines are drawn evenly only; use kind='uniform'")
        drawn = random.normal(size // 2, size * (15 / 128), int(wanted * 1.2)).astype(int)
        mask[drawn.clip(0, size - 1)] = True
    elif wanted > centre:
        mask[random.choice(np.flatnonzero(~mask) if distinct else size, wanted - centre, replace=not distinct)] = True
    return mask


def point_mask(size: int, *, acceleration: int, kind: str = "gaussian", seed: int = 0) -> np.ndarray:
    """Which points of a square k-space are measured: bool (size, size), size^2 / acceleration draws with replacement.

    'uniform' draws evenly; 'gaussian' around the middle, with a variance of 1.5 / 128 size^2.  Raises InputError for
    an unknown kind or numbers below 1.
    """
    if kind not in KINDS:
        raise InputError(f"mask {kind!r} is not known; use one of {', '.join(KINDS)}")
    if size < 1 or acceleration < 1:
        raise InputError("a mask needs size and acceleration of at least 1")
    wanted, random = size**2 // acceleration, np.random.RandomState(seed)
    mask = np.zeros((size, size), dtype=bool)
    if kind == "uniform":
        mask.flat[random.choice(size**2, wanted)] = True
    else:
        variance = size * (size * (1.5 / 128))
        drawn = random.multivariate_normal([size // 2] * 2, np.eye(2) * variance, wanted).astype(int)
        mask[tuple(drawn.clip(0, size - 1).T)] = True
    return mask


def sampling_mask(
    shape: tuple[int, int], kind: str = "uniform1d", *, acceleration: float, acs: float, seed: int = 0
) -> np.ndarray:
    """Which of (rows, columns) positions are measured: bool, size / acceleration of them as nearly as can be.

    The lines of 'uniform1d', 'gaussian1d' (around the middle) and 'equispaced' (with a random offset) are left out
    along the columns; 'poisson2d' draws points that keep a distance that grows away from the middle.  acs: the share
    of the lines in the middle that is always measured, for points the share of each side.  Raises InputError for an
    unknown kind, for numbers out of range and for a centre that is more than the acceleration leaves.
    """
    if kind not in MASKS:
        raise InputError(f"mask {kind!r} is not known; use one of {', '.join(MASKS)}")
    if not 1 <= acceleration <= min(64, shape[1]):
        raise InputError(f"acceleration must be from 1 to {min(64, shape[1])} here, not {acceleration:g}")
    if not 0 < acs <= 1:
        raise InputError(f"acs must lie above 0 and at most at 1, not {acs:g}: the middle of k-space is needed")
    rows, columns = shape
    points = kind == "poisson2d"
    side = [max(1, round(n * acs)) for n in shape] if points else [rows, max(1, round(columns * acs))]
    mask = np.zeros(shape, dtype=bool)
    top, left = (n // 2 - size // 2 for n, size in zip(shape, side, strict=True))
    mask[top : top + side[0], left : left + side[1]] = True
    wanted = mask.size / acceleration
    if acceleration > 1 and np.count_nonzero(mask) > wanted + rows:
        raise InputError(f"acs {acs:g} alone is more than acceleration {acceleration:g} leaves; lower one of them")
    generator = np.random.default_rng(seed)
    if points:
        return _poisson_disc(mask, round(wanted), generator)
    return np.broadcast_to(_lines(mask[0], kind, round(columns / acceleration), generator), shape).copy()


def _lines(centre: np.ndarray, kind: str, wanted: int, generator: np.random.Generator) -> np.ndarray:
    """The lines of the centre and others, ``wanted`` in all."""
    mask, free = centre.copy(), np.flatnonzero(~centre)
    count = min(max(0, wanted - int(centre.sum())), len(free))
    if count == 0:
        return mask
    if kind == "equispaced":
        places = (np.arange(count) + generator.random()) * (len(free) / count)
        mask[free[places.astype(int)]] = True
        return mask
    chance = np.ones(len(free))
    if kind == "gaussian1d":
        width = GAUSSIAN_WIDTH * len(centre)
        chance = np.exp(-0.5 * ((free - len(centre) // 2) / width) ** 2) + 1e-9
    mask[generator.choice(free, count, replace=False, p=chance / chance.sum())] = True
    return mask


def _poisson_disc(centre: np.ndarray, wanted: int, generator: np.random.Generator) -> np.ndarray:
    """Points beside the centre in random order, each taken unless another is too near; the distance is bisected."""
    columns = centre.shape[1]
    order = generator.permutation(centre.size)
    r, c = np.meshgrid(*(np.abs(np.arange(n) - n // 2) / (n / 2) for n in centre.shape), indexing="ij")
    growth = 0.5 + np.hypot(r, c)

    def draw(distance: float) -> np.ndarray:
        mask, blocked = centre.copy(), centre.copy()
        for place in order:
            row, column = divmod(int(place), columns)
            if blocked[row, column]:
                continue
            mask[row, column] = True
            radius = distance * growth[row, column]
            reach = int(radius)
            top, left = max(0, row - reach), max(0, column - reach)
            window = blocked[top : row + reach + 1, left : column + reach + 1]
            dy, dx = np.ogrid[top - row : top - row + window.shape[0], left - column : left - column + window.shape[1]]
            window |= dy * dy + dx * dx <= radius * radius
        return mask

    low, high = 0.0, 2.0 * (centre.size / max(wanted, 1)) ** 0.5
    best = draw(low)
    for _ in range(8):
        middle = (low + high) / 2
        mask = draw(middle)
        if abs(mask.sum() - wanted) < abs(int(best.sum()) - wanted):
            best = mask
        low, high = (middle, high) if mask.sum() > wanted else (low, middle)
    surplus = int(best.sum()) - wanted
    if surplus > 0:  # the rest by chance, so that the number is right
        best.flat[generator.choice(np.flatnonzero(best & ~centre), surplus, replace=False)] = False
    elif surplus < 0:
        best.flat[generator.choice(np.flatnonzero(~best), -surplus, replace=False)] = True
    return best
