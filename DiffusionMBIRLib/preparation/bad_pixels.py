"""Pixels of the detector that do not see the object: blind in the flat image, dead or stuck after it was taken."""

from __future__ import annotations

import numpy as np

_FAR = 0.75  # line integrals between a pixel's median and that of its neighbours; rings stay far below
_OPAQUE = 6.5  # a line integral that no beam comes through (1.5 in 1000)
_ALIVE = 0.8  # share of views from which the next one differs, of a pixel that sees noise or a moving object
_BRIGHTER_THAN_BEAM = -0.25
_FEWEST_VIEWS = 8
_REACH = 3  # columns to each side


def dead_pixels(line: np.ndarray) -> np.ndarray:
    """Which pixels (rows, columns) of line integrals (views, rows, columns) are dead or stuck.

    Dead: their median over the views is far from that of their neighbours, and impossible (opaque, or brighter than
    the open beam) or not shared by the rows above and below, as an object on the rotation axis would be.  Stuck: they
    show one value in all views, where their neighbours do not.
    """
    views, rows, columns = line.shape
    if views < _FEWEST_VIEWS or columns < 2 * _REACH + 1:
        return np.zeros((rows, columns), dtype=bool)
    # A row at a time, for the memory's sake.
    usual = np.stack([np.median(line[:, row], axis=0) for row in range(rows)])
    far = usual - _beside(usual)
    impossible = (usual > _OPAQUE) | (usual < _BRIGHTER_THAN_BEAM)
    alone = np.zeros_like(impossible)
    if rows >= 3:
        padded = np.pad(far, ((1, 1), (0, 0)), mode="reflect")
        alone = np.abs(far) > 3 * np.maximum(np.abs(padded[:-2]), np.abs(padded[2:]))
    changes = np.stack([(np.diff(line[:, row], axis=0) != 0).mean(axis=0) for row in range(rows)])
    stuck = (changes == 0) & (_beside(changes) > _ALIVE)
    return ((np.abs(far) > _FAR) & (impossible | alone)) | stuck


def _beside(image: np.ndarray) -> np.ndarray:
    """Median of the pixels beside each pixel in its row."""
    padded = np.pad(image, ((0, 0), (_REACH, _REACH)), mode="reflect")
    columns = image.shape[1]
    shifts = [k for k in range(2 * _REACH + 1) if k != _REACH]
    median: np.ndarray = np.median([padded[:, k : k + columns] for k in shifts], axis=0)
    return median


def fill(line: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """A copy in which bad pixels (rows, columns) take their nearest good neighbour's value, in their row if there is
    one.
    """
    line = line.copy()
    seeing = np.flatnonzero(~bad.all(axis=1))
    for row in seeing[bad[seeing].any(axis=1)]:
        good = np.flatnonzero(~bad[row])
        nearest = good[np.abs(np.arange(bad.shape[1])[:, None] - good).argmin(axis=1)]
        line[:, row] = line[:, row][:, nearest]
    for row in np.flatnonzero(bad.all(axis=1)):
        line[:, row] = line[:, seeing[np.abs(seeing - row).argmin()]]
    return line
