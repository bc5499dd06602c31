"""Rings: what one pixel of the detector reads too much or too little in all views."""

from __future__ import annotations

from typing import Literal

import numpy as np

Beyond = Literal["odd", "even"]

_REACH = 4  # columns to each side that a pixel is compared with
_DEVIATIONS = 5.0  # of the noise of a median over the views, beyond which a pixel is off
_LEAST = 2e-3  # line integrals
_FEWEST_VIEWS, _LEAST_SPAN_DEG = 90, 150.0  # of fewer an edge of the object may stay in its column
_PARTS = 4  # of the views, in each of which a pixel is off as much as in the others,
_UNLIKE, _NOISE = 0.35, 2.5  # within this share or so many deviations of the noise
_OF_BEND, _ALONE = 2.5, 2.0  # a slope or hump of the object is shared by the pixels beside it
_MOST = 0.1  # of the pixels; more are the object's


def without_rings(line: np.ndarray, angles_deg: np.ndarray) -> tuple[np.ndarray, int]:
    """A copy of line integrals (views, rows, columns) in which pixels that stay off their neighbours in all views are
    set right, and how many these are.

    What a pixel is off is the median over the views of its distance from the median around it in its row.  A pixel
    counts that is off by the same in every part of the views, beyond the noise and beyond what pixels about it differ
    from one to the next, which they do near the axis, where the object itself stays in its columns.
    """
    views, rows, columns = line.shape
    if views < _FEWEST_VIEWS or columns < 4 * _REACH or np.ptp(angles_deg) < _LEAST_SPAN_DEG:
        return line, 0
    # An edge of the detector may cut a slope off or an object's border: what is off must be so either way.
    (off, found), (_, again) = _told(line, rows, "odd"), _told(line, rows, "even")
    found &= again
    if not found.any() or found.mean() > _MOST:
        return line, 0
    return line - np.where(found, off, 0.0).astype(np.float32), int(found.sum())


def _told(line: np.ndarray, rows: int, beyond: Beyond) -> tuple[np.ndarray, np.ndarray]:
    """How far pixels (rows, columns) are off and which are, with the detector mirrored ``beyond`` its edges so."""
    found_in = [_off(line[:, row], beyond) for row in range(rows)]
    off, stays, bend = (np.stack(part) for part in zip(*found_in, strict=True))
    near = np.lib.stride_tricks.sliding_window_view(np.pad(np.abs(off), ((0, 0), (3, 3)), mode="reflect"), 7, axis=1)
    found = (
        stays & (np.abs(off) > np.maximum(_OF_BEND * bend, _LEAST)) & (np.abs(off) > _ALONE * np.median(near, axis=2))
    )
    return off, found


def _off(views: np.ndarray, beyond: Beyond) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each column of one row (views, columns): how far it lies off its neighbours in the median over the views,
    whether it does so beyond the noise and in every part of them, and how much the medians of columns about it bend, in
    the median.
    """
    padded = np.pad(views, ((0, 0), (_REACH, _REACH)), mode="reflect", reflect_type=beyond)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _REACH + 1, axis=1)
    around = np.median(np.delete(windows, _REACH, axis=2), axis=2)
    distance = views - around
    usual = np.median(distance, axis=0)
    parts = np.stack([np.median(part, axis=0) for part in np.array_split(distance, _PARTS)])
    noise = 1.25 * 1.4826 * np.median(np.abs(distance - usual), axis=0) / np.sqrt(len(views))  # of a median
    allowed = np.maximum(_UNLIKE * np.abs(usual), _NOISE * np.sqrt(_PARTS) * noise)
    stays = (np.abs(parts - usual) < allowed).all(axis=0) & (np.abs(usual) > _DEVIATIONS * noise)
    bends = np.abs(np.diff(np.pad(np.median(views, axis=0), 1, mode="edge"), 2)) / 2
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(bends, 2 * _REACH, mode="reflect"), 4 * _REACH + 1)
    return usual, stays, np.median(windows, axis=1)
