"""Counts to line integrals by images without an object (flat) and without a beam (dark)."""

from __future__ import annotations

import numpy as np

from ..errors import InputError

WEAKEST_FLAT = 0.05  # of the median; darker pixels of the detector are blind
LEAST_TRANSMISSION = 1e-4


def line_integrals(counts: np.ndarray, flat: np.ndarray, dark: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """-log of the transmission (views, rows, columns), float32, and which pixels (rows, columns) are blind.

    counts: (views, rows, columns); flat, dark: (rows, columns).  Raises InputError where the flat image is no
    brighter than the dark one.
    """
    with np.errstate(all="ignore"):  # what is not finite is counted and told afterwards
        return _line_integrals(counts, flat, dark, name)


def _line_integrals(counts: np.ndarray, flat: np.ndarray, dark: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    beam = flat - dark
    blind = ~(beam > WEAKEST_FLAT * np.median(beam))
    if blind.mean() > 0.5:
        raise InputError(f"{name}: the flat image is not brighter than the dark one; are they exchanged?")
    transmission = (counts - dark) / np.where(blind, 1, beam)
    return -np.log(np.maximum(transmission, LEAST_TRANSMISSION)).astype(np.float32), blind


def drift(flats: np.ndarray, at: tuple[float, ...], dark: np.ndarray, views: int) -> np.ndarray:
    """What to add to line integrals (views, 1 or rows, columns) that were taken with the mean of all flat images.

    flats: (groups, rows, columns), taken before, between or after the views at the places ``at`` in growing order; in
    between the beam changes evenly.
    """
    beams = np.maximum(flats - dark, np.float32(WEAKEST_FLAT) * np.median(flats.mean(axis=0) - dark))
    part = (beams / beams.mean(axis=0)).astype(np.float32)
    place = np.interp(np.arange(views), at, np.arange(len(at)))
    before = np.minimum(place.astype(int), len(at) - 2)
    share = (place - before).astype(np.float32)[:, None, None]
    return np.asarray(np.log(part[before] * (1 - share) + part[before + 1] * share))
