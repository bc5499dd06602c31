"""The column that the rotation axis is projected to by a fan or cone of rays, from rays that are measured twice.

A ray of fan angle g in the view b runs along the ray of -g in the view b + 180 - 2 g the other way.  Both read the same
only if g counts from the ray through the axis.
"""

from __future__ import annotations

import numpy as np

_COARSE = 96  # columns of the first search
_MOST_VIEWS = 180  # whose rays are compared
_FEWEST_COLUMNS = 6
_LEAST_SHARE = 0.02  # of the rays that have a partner
_SMOOTH = 1.5  # columns; interpolation between columns must not smooth more than this
_CREDIBLE = 0.5  # misfit over variance
_STEP = 0.25  # columns of the last search, and its reach
_REACH = 1.5


def fan_axis(
    profiles: np.ndarray, angles_deg: np.ndarray, pitch_mm: float, sdd_mm: float, *, arc: bool
) -> tuple[float, float] | None:
    """(column of the axis, misfit over variance there); None where too few rays are measured twice, or none agree.

    profiles: line integrals (views, columns) of one row in the plane of the source.
    """
    views, columns = profiles.shape
    if columns < 2 * _FEWEST_COLUMNS or views < 8:
        return None
    factor = max(columns // _COARSE, 1)
    whole = columns // factor
    coarse = profiles[:, : whole * factor].reshape(views, whole, factor).mean(axis=2)
    rough = _Twice(_smoothed(coarse), angles_deg, pitch_mm * factor, sdd_mm, arc)
    places = np.arange(_FEWEST_COLUMNS / 2, whole - _FEWEST_COLUMNS / 2, 0.5)
    misfit = np.array([rough.misfit(c) for c in places])
    if not np.isfinite(misfit).any():
        return None
    first = (float(places[np.nanargmin(misfit)]) + 0.5) * factor - 0.5
    fine = _Twice(_smoothed(profiles), angles_deg, pitch_mm, sdd_mm, arc)
    for step in dict.fromkeys((max(factor / 2, _STEP), _STEP)):
        near = first + np.arange(-_REACH, _REACH + 1e-9, _STEP) / _STEP * step
        misfit = np.array([fine.misfit(c) for c in near])
        if not np.isfinite(misfit).all():
            return None
        first = _lowest(near, misfit)
    best = fine.misfit(first)
    return (first, best) if best < _CREDIBLE else None


def _lowest(places: np.ndarray, misfit: np.ndarray) -> float:
    """The vertex of the parabola through the values about the lowest one, within the places."""
    k = int(misfit.argmin())
    some = slice(max(k - 3, 0), k + 4)
    bend, slope, _ = np.polyfit(places[some] - places[k], misfit[some], 2)
    vertex = places[k] - slope / (2 * bend) if bend > 0 else places[k]
    return float(np.clip(vertex, places[0], places[-1]))


def _smoothed(profiles: np.ndarray) -> np.ndarray:
    reach = int(np.ceil(3 * _SMOOTH))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _SMOOTH) ** 2)
    padded = np.pad(profiles.astype(np.float64), ((0, 0), (reach, reach)), mode="edge")
    return np.apply_along_axis(np.convolve, 1, padded, kernel / kernel.sum(), mode="valid")


class _Twice:
    """Rays and their partners in views of a fan."""

    def __init__(self, profiles: np.ndarray, angles_deg: np.ndarray, pitch_mm: float, sdd_mm: float, arc: bool) -> None:
        order = np.argsort(np.mod(angles_deg, 360.0), kind="stable")
        self._angles = np.mod(angles_deg, 360.0)[order]
        self._profiles = profiles[order]
        self._some = np.arange(len(profiles))[:: -(-len(profiles) // _MOST_VIEWS)]
        self._step, self._arc = pitch_mm / sdd_mm, arc
        gaps = np.diff(self._angles, append=self._angles[0] + 360.0)
        self._widest = 3 * float(np.median(gaps)) + 1e-6

    def misfit(self, centre: float) -> float:
        """Squared difference of rays and partners over their variance if the axis lies at a column; NaN for too few."""
        columns = self._profiles.shape[1]
        j = np.arange(columns)
        mirrored = 2 * centre - j
        seen = (mirrored >= 0) & (mirrored <= columns - 1)
        j, mirrored = j[seen], mirrored[seen]
        if len(j) < _FEWEST_COLUMNS:
            return float("nan")
        away = (j - centre) * self._step
        fan = np.degrees(away if self._arc else np.arctan(away))
        wanted = np.mod(self._angles[self._some][:, None] + 180.0 - 2 * fan, 360.0)
        theirs, known = self._at(wanted, mirrored)
        mine = self._profiles[self._some][:, j]
        if known.mean() < _LEAST_SHARE:
            return float("nan")
        mine, theirs = mine[known], theirs[known]
        nothing = 1e-3 * float(self._profiles.var()) + 1e-30
        return float((np.mean((mine - theirs) ** 2) + nothing) / (mine.var() + theirs.var() + nothing))

    def _at(self, angles: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values at (views, columns) between views and columns, and where both neighbouring views are near."""
        after = np.searchsorted(self._angles, angles) % len(self._angles)
        before = after - 1
        gap = np.mod(self._angles[after] - self._angles[before], 360.0)
        share = np.where(gap > 0, np.mod(angles - self._angles[before], 360.0) / np.where(gap > 0, gap, 1.0), 0.0)
        left = np.minimum(columns.astype(int), self._profiles.shape[1] - 2)
        part = columns - left
        values = 0.0
        for view, weight in ((before, 1 - share), (after, share)):
            values = values + weight * (self._profiles[view, left] * (1 - part) + self._profiles[view, left + 1] * part)
        return np.asarray(values), gap <= self._widest
