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
