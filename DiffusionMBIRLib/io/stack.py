"""Slices that a scanner measured, as one stack: parallel, in order, evenly spaced - or refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ..errors import InputError

_SAME_DIRECTION = 1e-2
_SAME_PLACE_MM = 1e-3
_REGULAR = 0.05  # of the spacing, by which a slice may lie off its place
_ASIDE_MM = 1.0  # by which slices may be shifted within their plane


@dataclass(frozen=True)
class SliceStack:
    """order: for each slice its place along the normal; spacing_mm: 0 where positions do not tell it."""

    order: np.ndarray
    spacing_mm: float

    @property
    def middle(self) -> int:
        """Which slice lies in the middle of the stack."""
        return int(np.flatnonzero(self.order == len(self.order) // 2)[0])


def stacked(name: str, positions: np.ndarray, directions: np.ndarray, guessed: list[str]) -> SliceStack:
    """Find the order of slices.

    positions: (slices, 3) mm of their centres; directions: (slices, 3, 3) with the normal in the last column.
    Raises InputError for slices that are not parallel, evenly spaced and above each other.
    """
    count = len(positions)
    off = np.abs(directions - directions[0]).max(axis=(1, 2))
    if not (off <= _SAME_DIRECTION).all():
        raise InputError(
            f"{name}: slice {int(np.argmax(~(off <= _SAME_DIRECTION)))} has another orientation than slice 0 (a "
            "localizer?); put the slices that belong together into a file of their own"
        )
    if count == 1:
        return SliceStack(np.zeros(1, dtype=int), 0.0)
    along = positions @ directions[0, :, 2]
    if not np.isfinite(along).all() or np.ptp(along) < _SAME_PLACE_MM:
        guessed.append("order and distance of the slices (positions are not told)")
        return SliceStack(np.arange(count), 0.0)
    ranked = np.argsort(along, kind="stable")
    gaps = np.diff(along[ranked])
    _require_even(name, ranked, gaps)
    spacing = float(gaps.mean())
    aside = positions - np.outer(along, directions[0, :, 2])
    widest = float(np.linalg.norm(aside - aside[0], axis=1).max())
    if widest > _ASIDE_MM:
        raise InputError(
            f"{name}: its slices are shifted against each other by up to {widest:.1f} mm within their plane; put "
            "those above each other into a file of their own"
        )
    order = np.empty(count, dtype=int)
    order[ranked] = np.arange(count)
    return SliceStack(order, spacing)


def _require_even(name: str, ranked: np.ndarray, gaps: np.ndarray) -> None:
    closest, widest, spacing = int(gaps.argmin()), int(gaps.argmax()), float(gaps.mean())
    if gaps[closest] < _SAME_PLACE_MM:
        raise InputError(
            f"{name}: slices {ranked[closest]} and {ranked[closest + 1]} lie at the same position; leave one out"
        )
    drift = np.cumsum(gaps) - spacing * np.arange(1, len(gaps) + 1)
    if np.abs(drift).max() > _REGULAR * spacing:
        sizes = ", ".join(f"{n} x {gap:g} mm" for gap, n in Counter(np.round(gaps, 3).tolist()).most_common(5))
        raise InputError(
            f"{name}: irregular gaps between slices ({sizes}; the widest between slices {ranked[widest]} and "
            f"{ranked[widest + 1]}); bring evenly spaced ones"
        )
