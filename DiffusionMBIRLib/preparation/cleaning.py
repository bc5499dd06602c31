"""Counts, or what is said to be line integrals, to line integrals without what the detector got wrong."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from . import bad_pixels
from .consistency import edges
from .flat_dark import line_integrals
from .lost_views import lost_views
from .told import Told

MOST_LOST = 0.5  # of the views, or of the pixels
_LARGEST_LINE = 20.0
_TRANSMISSION_OF_AIR = 0.5


def cleaned(
    name: str,
    counts: np.ndarray,
    flat: np.ndarray | None,
    dark: np.ndarray | None,
    told: Told,
    remarks: list[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Line integrals (views, rows, columns) of the views that are kept, and which views (all,) these are.

    counts: (views, rows, columns), line integrals already where flat and dark are None.  remarks: what was done is
    added.  Raises InputError, naming the file, for what is no scan and cannot be repaired.
    """
    if flat is None or dark is None:
        line, blind = given_lines(name, counts), np.zeros(counts.shape[1:], dtype=bool)
    else:
        line, blind = line_integrals(counts, flat, dark, name)
    if not np.isfinite(line).all():
        bad = int(line.size - np.count_nonzero(np.isfinite(line)))
        raise InputError(f"{name}: {bad} of {line.size} values are NaN or infinite; repair or mask them first")
    if blind.any():
        line = bad_pixels.fill(line, blind)
        remarks.append(f"{int(blind.sum())} blind pixels of the detector take their neighbour's value")
    lost = lost_views(line) if told.wants("lost_views") else np.zeros(len(line), dtype=bool)
    if lost.any():
        if lost.mean() > MOST_LOST:
            raise InputError(f"{name}: {int(lost.sum())} of {len(lost)} views show no beam; is the flat image right?")
        remarks.append(
            f"{int(lost.sum())} of {len(lost)} views are left out: no beam, or not this object ({_few(lost)})"
        )
        line = line[~lost]
    dead = bad_pixels.dead_pixels(line) if told.wants("bad_pixels") else np.zeros(line.shape[1:], dtype=bool)
    if dead.any() and dead.mean() < MOST_LOST:
        line = bad_pixels.fill(line, dead)
        remarks.append(f"{int(dead.sum())} dead or stuck pixels of the detector take their neighbour's value")
    return line, ~lost


def given_lines(name: str, counts: np.ndarray) -> np.ndarray:
    """Values without flat and dark images: they must be line integrals already."""
    line = counts.astype(np.float32)
    low, high = float(line.min()), float(line.max())
    if not -_LARGEST_LINE < low <= high < _LARGEST_LINE:
        raise InputError(
            f"{name}: values from {low:.4g} to {high:.4g} are no line integrals; add flat and dark images "
            "(flat*.tif, dark*.tif), or take -log(counts / open beam) first"
        )
    if min(edges(line)) > max(_TRANSMISSION_OF_AIR, float(np.median(line))):
        raise InputError(
            f"{name}: its edges are brighter than the object, so these are no line integrals but transmissions; "
            "take -log of them first"
        )
    return line


def _few(which: np.ndarray) -> str:
    index = np.flatnonzero(which)
    return ", ".join(str(k) for k in index[:6]) + (" ..." if len(index) > 6 else "")
