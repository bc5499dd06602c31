"""The column of the rotation axis, from views that see the object mirrored or from the path of the centre of mass."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from .consistency import edges, sees_object, sinusoid

_OPPOSITE_DEG = 1.0
_LEAST_RANGE_DEG = 60.0  # for the path of the centre of mass
_MARGIN = 0.1  # of the columns, beside which an axis is not believed
_FEWEST_COLUMNS = 4  # that both of two opposite views must see
_MOST_PAIRS = 64
_SAME = 1.0  # columns between two estimates that agree


def rotation_axis(line: np.ndarray, angles_deg: np.ndarray, name: str) -> tuple[float, str]:
    """Column of the rotation axis and how it was found.  line: (slices, views, columns).

    In a scan over a full turn the axis may lie near an edge of the detector (half acquisition): there opposite
    views are compared where both see the object.  Raises InputError where no place is credible.
    """
    profiles = line.mean(axis=0, dtype=np.float64)  # (views, columns)
    columns = profiles.shape[1]
    pairs = opposite_views(angles_deg)
    turn = is_full_turn(angles_deg) and columns > 2 * _FEWEST_COLUMNS + 2
    later = half_a_turn_later(profiles, angles_deg) if turn else profiles
    if pairs or turn:
        some = [(profiles[i], profiles[j]) for i, j in pairs] or list(zip(profiles, later, strict=True))
        centre = float(np.median([_mirror_axis(view, opposite) for view, opposite in some]))
        centre = _of_overlap(profiles, later, centre) if turn else centre
        how = "from opposite views"
    elif len(angles_deg) >= 3 and np.ptp(angles_deg) >= _LEAST_RANGE_DEG and (profiles.sum(axis=1) > 0).all():
        path = profiles @ np.arange(columns) / profiles.sum(axis=1)
        centre, how = sinusoid(path, angles_deg)[1], "from the path of the centre of mass"
    else:
        return (columns - 1) / 2, "in the middle of the detector"
    margin = min(_FEWEST_COLUMNS, columns * _MARGIN) if turn else columns * _MARGIN
    if not margin < centre < columns - margin:
        raise InputError(
            f"{name}: its rotation axis cannot be found; is the object cut off, or the beam not parallel? "
            "Give the axis' column if it is known"
        )
    return centre, how


def is_full_turn(angles_deg: np.ndarray) -> bool:
    """True if the views go all around the object without a gap."""
    turned = np.unique(np.round(np.mod(angles_deg, 360.0), 3))
    if len(turned) < 4:
        return False
    gaps = np.diff(turned, append=turned[0] + 360.0)
    return bool(gaps.max() <= max(3 * np.median(gaps), 2 * _OPPOSITE_DEG))


def opposite_views(angles_deg: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of views half a turn apart, which see the object mirrored."""
    difference = np.abs(np.mod(angles_deg[:, None] - angles_deg, 360.0) - 180)
    nearest = difference.argmin(axis=1)
    return [(i, int(j)) for i, j in enumerate(nearest) if i < j and difference[i, j] <= _OPPOSITE_DEG]


def half_a_turn_later(profiles: np.ndarray, angles_deg: np.ndarray) -> np.ndarray:
    """The profiles (views, columns) of a full turn at each angle + 180 degrees, between the nearest views."""
    order = np.argsort(np.mod(angles_deg, 360.0), kind="stable")
    known = np.mod(angles_deg, 360.0)[order]
    wanted = np.mod(np.asarray(angles_deg) + 180.0, 360.0)
    after = np.searchsorted(known, wanted) % len(known)
    before = after - 1
    gap = np.mod(known[after] - known[before], 360.0)
    share = np.where(gap > 0, np.mod(wanted - known[before], 360.0) / np.where(gap > 0, gap, 1.0), 0.0)[:, None]
    later: np.ndarray = profiles[order[before]] * (1 - share) + profiles[order[after]] * share
    return later


def _mirror_axis(view: np.ndarray, opposite: np.ndarray) -> float:
    """Where to mirror one profile for the best fit of its edges with the other, to a fraction of a column."""
    a, b = np.gradient(view), -np.gradient(opposite)[::-1]
    length = 2 * len(view)
    fit = np.fft.irfft(np.fft.rfft(a, length) * np.conj(np.fft.rfft(b, length)), length)
    top = int(fit.argmax())
    shift = top + _vertex(-fit[top - 1], -fit[top], -fit[(top + 1) % length])
    return (len(view) - 1 + (shift - length if shift > len(view) else shift)) / 2


def _vertex(left: float, middle: float, right: float) -> float:
    """Where the parabola through values at -1, 0 and 1 is least; 0 where it has no minimum."""
    bend = left - 2 * middle + right
    return float(0.5 * (left - right) / bend) if bend > 0 else 0.0


def _of_overlap(profiles: np.ndarray, opposite: np.ndarray, first: float) -> float:
    """The axis about which opposite views agree best on the columns that both see; ``first`` where that is as good."""
    stride = -(-len(profiles) // _MOST_PAIRS)
    profiles, opposite = profiles[::stride], opposite[::stride]
    columns = profiles.shape[1]
    sums = np.arange(2 * _FEWEST_COLUMNS, 2 * (columns - _FEWEST_COLUMNS) - 1)  # of a column and its mirror image
    misfit = np.array([_misfit(profiles, opposite, int(s)) for s in sums])
    best = int(misfit.argmin())
    centre = sums[best] / 2.0
    if 0 < best < len(sums) - 1:
        centre += _vertex(*misfit[best - 1 : best + 2]) / 2
    near_first = misfit[np.clip(round(2 * first) - sums[0], 0, len(sums) - 1)]
    cut_off = any(sees_object(edge, profiles) for edge in edges(profiles))  # which draws ``first`` to the edge
    agree = not cut_off and abs(centre - first) <= _SAME
    return first if agree or misfit[best] > (1.0 if cut_off else 0.5) * near_first else float(centre)


def _misfit(profiles: np.ndarray, later: np.ndarray, total: int) -> float:
    """Squared difference over variance where views overlap, columns x and total - x; 1 where there is nothing."""
    columns = profiles.shape[1]
    x = np.arange(max(0, total - columns + 1), min(columns - 1, total) + 1)
    view, opposite = profiles[:, x], later[:, total - x]
    nothing = 1e-3 * profiles.var()
    return float((np.mean((view - opposite) ** 2) + nothing) / (view.var() + opposite.var() + nothing))
