"""Zingers: single readings that a stray gamma ray made too bright, or a lost one left dark."""

from __future__ import annotations

import numpy as np

_BRIGHT = 0.1  # line integrals below the neighbours
_DARK = 3.0  # above them, for a reading that is opaque
_OPAQUE = 6.5
_DEVIATIONS = 8.0  # of the neighbours' scatter
_REACH = 2  # columns to each side
_DENSE_DEG = 6.0  # only views this close to each other tell whether a spot stays


def without_zingers(line: np.ndarray, angles_deg: np.ndarray) -> tuple[np.ndarray, int]:
    """A copy of line integrals (views, rows, columns) with zingers replaced by their neighbours' median; their number.

    A zinger lies beyond what is two columns beside it, beyond the median around it, and in dense views beyond the views
    before and after it.
    """
    if line.shape[2] < 2 * _REACH + 1:
        return line, 0
    found_in = [np.nonzero(_candidates(view)) for view in line]  # a view at a time, for the memory's sake
    view = np.repeat(np.arange(len(line)), [len(rows) for rows, _ in found_in])
    row, column = (np.concatenate(index) for index in zip(*found_in, strict=True))
    if not len(view):
        return line, 0
    rows = np.clip(row[:, None] + [-1, 0, 1], 0, line.shape[1] - 1)
    columns = _mirrored(column[:, None] + np.arange(-_REACH, _REACH + 1), line.shape[2])
    around = line[view[:, None, None], rows[:, :, None], columns[:, None, :]]
    around = _level(around).reshape(len(view), -1)
    usual = np.median(around, axis=1)
    scatter = 1.4826 * np.median(np.abs(around - usual[:, None]), axis=1)
    value = line[view, row, column]
    bright = usual - value > np.maximum(_BRIGHT, _DEVIATIONS * scatter)
    dark = (value > _OPAQUE) & (value - usual > np.maximum(_DARK, _DEVIATIONS * scatter))
    if len(line) >= 3 and np.median(np.abs(np.diff(angles_deg))) <= _DENSE_DEG:
        # A spot that stays, such as a pore on the axis, is no zinger.
        before, after = (line[_mirrored(view + k, len(line)), row, column] for k in (-1, 1))
        half = (usual - value) / 2
        bright &= (before - value > half) & (after - value > half)
        dark &= (value - before > -half) & (value - after > -half)
    found = bright | dark
    repaired = line.copy()
    repaired[view[found], row[found], column[found]] = usual[found]
    return repaired, int(np.count_nonzero(found))


def _level(around: np.ndarray) -> np.ndarray:
    """Windows (spots, rows, columns) without their slope along the columns, which is no scatter."""
    left, right = (np.median(side, axis=(1, 2)) for side in (around[..., :_REACH], around[..., _REACH + 1 :]))
    slope = (right - left) / (_REACH + 1)
    return around - slope[:, None, None] * np.arange(-_REACH, _REACH + 1)


def _candidates(view: np.ndarray) -> np.ndarray:
    columns = _mirrored(np.arange(view.shape[-1])[:, None] + [-_REACH, _REACH], view.shape[-1])
    left, right = view[..., columns[:, 0]], view[..., columns[:, 1]]
    bright = view < np.minimum(left, right) - _BRIGHT
    return bright | ((view > _OPAQUE) & (view > np.maximum(left, right) + _DARK))


def _mirrored(index: np.ndarray, size: int) -> np.ndarray:
    index = np.abs(index)
    return np.where(index >= size, 2 * (size - 1) - index, index)
