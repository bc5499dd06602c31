"""Counts to line integrals by images without an object (flat) and without a beam (dark)."""

from __future__ import annotations

import numpy as np

from ..errors import InputError

WEAKEST_FLAT = 0.05  # of the median; darker pixels of the detector are blind
LEAST_TRANSMISSION = 1e-4
_FEWEST_FLATS = 5
_PHOTONS = (10.0, 1e9)  # of an open beam in a pixel; others come from flat images that are no single readings


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


def photons_counted(flats: np.ndarray, dark: np.ndarray) -> tuple[float, np.ndarray | None]:
    """Photons of the open beam, mean of the pixels, and how they spread over these (1, rows, columns).

    They follow from the scatter of flat images (images, rows, columns): of N photons the relative variance is 1 / N,
    whatever a detector makes of one.

    How the beam as a whole changes from image to image is taken off.  (0, None) where there are too few images, or none
    of such a scatter.
    """
    if flats.ndim != 3 or len(flats) < _FEWEST_FLATS:
        return 0.0, None
    with np.errstate(all="ignore"):
        beams = flats.astype(np.float64) - dark
        beams /= np.median(beams, axis=(1, 2), keepdims=True)
        mean = np.maximum(beams.mean(axis=0), WEAKEST_FLAT)
        # The variance of a pixel falls with its brightness; of few images each is rough, of all pixels not.
        photons = float(1.0 / np.mean(beams.var(axis=0, ddof=1) / mean))
    if not _PHOTONS[0] < photons < _PHOTONS[1]:
        return 0.0, None
    return photons * float(mean.mean()), (mean / mean.mean()).astype(np.float32)[None]


def photons_text(photons: float) -> str:
    """How it is told."""
    return f"{photons:.3g} photons a pixel in the open beam, by the scatter of the flat images, weigh the rays"


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
