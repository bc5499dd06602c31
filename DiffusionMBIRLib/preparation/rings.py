"""Rings: what one pixel of the detector reads too much or too little in all views."""

from __future__ import annotations

import numpy as np

_REACH = 4  # columns to each side that a pixel is compared with
_DEVIATIONS = 4.0  # of the usual difference, beyond which a pixel is off
_LEAST = 2e-4  # line integrals
_FEWEST_VIEWS, _LEAST_SPAN_DEG = 90, 150.0  # of fewer an edge of the object may stay in its column
_ALIKE = 0.8  # share of the views in which a pixel is off to the same side
_MOST = 0.1  # of the pixels; more are the object's


def without_rings(line: np.ndarray, angles_deg: np.ndarray) -> tuple[np.ndarray, int]:
    """A copy of line integrals (views, rows, columns) in which pixels that stay off their neighbours in all views are
    set right, and how many these are.

    What a pixel is off is the median over the views of its distance from the median around it in its row; a pixel
    counts that lies beyond the scatter of all pixels' offs and differs from its neighbours more than they do among
    each other, as an edge of the object about the axis would not.
    """
    views, rows, columns = line.shape
    if views < _FEWEST_VIEWS or columns < 4 * _REACH or np.ptp(angles_deg) < _LEAST_SPAN_DEG:
        return line, 0
    off = np.stack([_off(line[:, row]) for row in range(rows)])
    scatter = 1.4826 * float(np.median(np.abs(off)))
    found = np.abs(off) > max(_DEVIATIONS * scatter, _LEAST)
    if not found.any() or found.mean() > _MOST:
        return line, 0
    return line - np.where(found, off, 0.0).astype(np.float32), int(found.sum())


def _off(views: np.ndarray) -> np.ndarray:
    """How far each column of one row (views, columns) lies off its neighbours in the median over the views."""
    padded = np.pad(views, ((0, 0), (_REACH, _REACH)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _REACH + 1, axis=1)
    around = np.median(np.delete(windows, _REACH, axis=2), axis=2)
    distance = views - around
    usual = np.median(distance, axis=0)
    alike = (np.sign(distance) == np.sign(usual)).mean(axis=0)
    return np.asarray(np.where(alike >= _ALIKE, usual, 0.0))
