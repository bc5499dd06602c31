"""Sampling masks of Cartesian k-space, with the lowest frequency in the middle.  Needs numpy only.

The random masks follow those of Chung et al. 2023 (arXiv 2211.10655), number for number from the same seed.  They draw
positions with replacement, so that fewer are sampled than ``acceleration`` says; ``distinct=True`` mends this.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError

KINDS = ("uniform", "gaussian")


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
