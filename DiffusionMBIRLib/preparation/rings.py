"""Rings: what one pixel of the detector reads too much or too little in all views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..geometry import RayGeometry
from . import ring_fit

Beyond = Literal["odd", "even"]

_REACH = 4  # columns to each side that a pixel is compared with
_DEVIATIONS = 5.0  # of the noise of a median over the views, beyond which a pixel is off
_LEAST = 2e-3  # line integrals
_FEWEST_VIEWS, _LEAST_SPAN_DEG = 90, 150.0  # of fewer an edge of the object may stay in its column
_PARTS = 4  # of the views, in each of which a pixel is off as much as in the others,
_UNLIKE, _NOISE = 0.35, 2.5  # within this share or so many deviations of the noise
_OF_BEND, _ALONE = 2.5, 2.0  # a slope or hump of the object is shared by the pixels beside it
_MOST = 0.1  # of the pixels; more are the object's


@dataclass(frozen=True)
class Rings:
    """What is known of rings before the rotation axis is.

    off: what pixels (rows, columns) read too much beside their neighbours in a row.  rows: (rows,), which of them an
    object is to be fitted to, as they may have rings or edges that look like some.
    """

    off: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, line: np.ndarray, angles_deg: np.ndarray) -> Rings:
        """Of line integrals (views, rows, columns)."""
        return cls(beside_neighbours(line, angles_deg), suspected(line, angles_deg))

    def near(self, line: np.ndarray) -> np.ndarray:
        """Line integrals (rows, views, columns) as they are to look for the axis in."""
        return line - self.off[:, None] if self.off.any() else line

    def taken_off(self, line: np.ndarray, geometry: RayGeometry, remarks: list[str]) -> np.ndarray:
        """Line integrals (rows, views, columns) without rings."""
        off, how = self.off, "beside their neighbours"
        if self.rows.any() and geometry.STACKED:
            fitted = ring_fit.offsets(line[self.rows], geometry)
            if fitted is None:
                how += f"; {int(self.rows.sum())} rows are too much for a fit of the object, which finds more of them"
            else:
                off, how = np.zeros_like(off), "beside an object that fits all views"
                off[self.rows] = fitted
        if not off.any():
            return line
        remarks.append(
            f"{np.count_nonzero(off)} pixels that read too much or too little in all views are set right, against "
            f"rings ({how})"
        )
        return np.asarray(line - off[:, None])


def suspected(line: np.ndarray, angles_deg: np.ndarray) -> np.ndarray:
    """Rows (rows,) of line integrals (views, rows, columns) in which a pixel is off its neighbours in all views alike:
    by itself, or as the edge of an object is that is round about the axis.
    """
    if not _tells(line, angles_deg):
        return np.zeros(line.shape[1], bool)
    found = (_off(line[:, row], "odd")[:2] for row in range(line.shape[1]))
    return np.array([bool((stays & (np.abs(off) > _LEAST)).any()) for off, stays in found])


def beside_neighbours(line: np.ndarray, angles_deg: np.ndarray) -> np.ndarray:
    """What pixels (rows, columns) read too much in all views, float32, 0 of those that read right.

    line: integrals (views, rows, columns).  What a pixel is off is the median over the views of its distance from the
    median around it in its row.  A pixel counts that is off by the same in every part of the views, beyond the noise
    and beyond what pixels about it differ from one to the next, which they do near the axis, where the object itself
    stays in its columns.
    """
    rows = line.shape[1]
    if not _tells(line, angles_deg):
        return np.zeros(line.shape[1:], np.float32)
    # An edge of the detector may cut a slope off or an object's border: what is off must be so either way.
    (off, found), (_, again) = _told(line, rows, "odd"), _told(line, rows, "even")
    found &= again
    return np.where(found & (found.mean() <= _MOST), off, 0.0).astype(np.float32)


def _tells(line: np.ndarray, angles_deg: np.ndarray) -> bool:
    views, _, columns = line.shape
    return views >= _FEWEST_VIEWS and columns >= 4 * _REACH and float(np.ptp(angles_deg)) >= _LEAST_SPAN_DEG


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
