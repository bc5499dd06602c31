"""Which positions of an array were sampled: those that are not zero - unless zero is a value that was measured.

Receivers give whole numbers, and in a quiet part of k-space some of these are 0 in every coil.  How many, the samples
around tell; many more than that were left out by the scan.  A simulation without noise has a few zeros as well.
"""

from __future__ import annotations

import numpy as np

_REACH = 2  # positions to each side that tell how large the samples are
_STRONG = 0.05  # probability of a zero, below which zeros tell a pattern of sampling
_MORE = 4.0  # zeros than expected, and
_SOME = 5  # so many on top, make a pattern
_STRAY = 0.01  # of the positions of sampled lines; no scan leaves out so few
_LARGEST_COUNT = 1 << 20  # steps; values beyond that are no counts
_LOOK_AT = 200_000  # values


def measured(data: np.ndarray) -> tuple[np.ndarray, int]:
    """What was sampled, and how many measured zeros there are among it.

    data: complex (slices, partitions, coils, rows, columns); the first is bool, without coils.
    """
    sampled: np.ndarray = (data != 0).any(axis=2)
    lines: np.ndarray = np.asarray(sampled.any(axis=-1, keepdims=True) & sampled.any(axis=-2, keepdims=True))
    holes = lines & ~sampled
    count = int(np.count_nonzero(holes))
    if count <= _STRAY * np.count_nonzero(lines):
        return lines, count
    step = _step(data)
    return (lines, count) if step and _zeros_are_expected(data, sampled, holes, step) else (sampled, 0)


def _step(data: np.ndarray) -> float:
    """The unit of real and imaginary parts that are whole multiples of one, else 0."""
    parts = np.ascontiguousarray(data).view(data.real.dtype).reshape(-1)
    parts = np.abs(parts[parts != 0][: 2 * _LOOK_AT])
    step = float(parts.min())
    counts = parts / step
    whole = counts.max() < _LARGEST_COUNT and np.abs(counts - np.rint(counts)).max() < 0.02
    return step if whole and len(np.unique(np.rint(counts))) < len(counts) else 0.0


def _zeros_are_expected(data: np.ndarray, sampled: np.ndarray, holes: np.ndarray, step: float) -> bool:
    strong = expected = 0.0
    seen = seen_strong = 0
    for coils, there, empty in zip(
        data.reshape(-1, *data.shape[2:]), *(a.reshape(-1, *a.shape[2:]) for a in (sampled, holes)), strict=True
    ):
        around = np.maximum(_box(there.astype(np.float32)), 1e-6)
        variance = _box(np.abs(coils).astype(np.float64) ** 2) / (2 * around)  # of real and imaginary parts
        probable = np.prod(np.minimum(step**2 / (2 * np.pi * np.maximum(variance, step**2 / 12)), 1), axis=0)
        at = there | empty
        expected += float(probable[at].sum())
        seen += int(np.count_nonzero(empty))
        at &= probable < _STRONG
        strong += float(probable[at].sum())
        seen_strong += int(np.count_nonzero(empty & at))
    return seen_strong <= _MORE * strong + _SOME and seen <= _MORE * expected + _SOME


def _box(values: np.ndarray) -> np.ndarray:
    """Sums over the neighbours along the last two axes."""
    for axis in (-2, -1):
        wide = np.pad(values, [(0, 0)] * (values.ndim + axis) + [(_REACH, _REACH)] + [(0, 0)] * (-1 - axis))
        values = sum(
            (np.take(wide, range(k, k + values.shape[axis]), axis=axis) for k in range(2 * _REACH + 1)),
            start=np.zeros_like(values),
        )
    return values
