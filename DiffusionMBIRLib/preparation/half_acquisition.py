"""Scans over a full turn with the rotation axis near an edge of the detector, which sees half of the object at a time.

Half a turn later it sees the other half, so the scan is complete on a grid as wide as twice the far edge's distance.
"""

from __future__ import annotations

import numpy as np

from .consistency import edges, sees_object
from .rotation_axis import half_a_turn_later, is_full_turn

OFF_CENTRE = 0.8  # near edge over far edge, below which the detector counts as shifted


def reach(columns: int, centre: float) -> tuple[float, float]:
    """Distance in columns of the near and of the far edge of a detector from the axis at column ``centre``."""
    left, right = centre + 0.5, columns - 0.5 - centre
    return min(left, right), max(left, right)


def is_half_acquisition(line: np.ndarray, angles_deg: np.ndarray, centre: float) -> bool:
    """True if the near edge of a shifted detector sees the object, all around it.  line: (slices, views, columns)."""
    columns = line.shape[-1]
    near, far = reach(columns, centre)
    at_near = edges(line)[0 if centre < columns / 2 else 1]
    return near < OFF_CENTRE * far and is_full_turn(angles_deg) and sees_object(at_near, line)


def stitched(line: np.ndarray, angles_deg: np.ndarray, centre: float) -> np.ndarray:
    """Whole profiles (1, views, width) about the axis from each view and its opposite one, means over the slices.

    line: (slices, views, columns) of a half acquisition.
    """
    profiles = line.mean(axis=0, dtype=np.float64)
    columns = profiles.shape[1]
    far = reach(columns, centre)[1]
    width = 2 * int(np.ceil(far))
    place = np.arange(width) - (width - 1) / 2
    index = np.arange(columns) - centre
    mine = np.array([np.interp(place, index, p, left=np.nan, right=np.nan) for p in profiles])
    theirs = half_a_turn_later(mine, angles_deg)[:, ::-1]
    whole = np.where(np.isnan(mine), theirs, mine)
    return np.nan_to_num(whole)[None]
