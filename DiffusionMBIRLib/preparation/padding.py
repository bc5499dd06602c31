"""Rows and grids that reach beyond what the detector sees, where the object does: else what lies outside is pressed
inside.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..geometry import Grid, RayGeometry
from .completion import TRUST, cut_sides, with_outer_columns

_WIDER = 0.5  # of the width, for an object that is cut off at the sides and not known to end
_DIVISIBLE = 8  # pixels of a widened grid, for coarser ones to start on
_ROWS = 3  # at the detector's ends


def widened(
    line: np.ndarray,
    geometry: RayGeometry,
    grid: Grid,
    rays: dict[str, Any],
    remarks: list[str],
    water: float | None = None,
) -> tuple[np.ndarray, RayGeometry, Grid]:
    """Line integrals (rows, views, columns), geometry and grid that reach as far as the object does, about.

    rays: fields of a ``Measurement`` on its rays; photons of the new columns are added, and how far they are trusted.
    water: attenuation in 1/mm of patients.
    """
    found = with_outer_columns(line, geometry, water)
    grid = padded(grid, line, geometry, remarks, found.reach_mm if found else None)
    if found is None:
        return line, geometry, grid
    profile = rays.get("photon_profile")
    if profile is not None and profile.shape[2] > 1:
        rays["photon_profile"] = np.pad(profile, ((0, 0), (0, 0), found.added), mode="edge")
    rays["weights"] = found.trust
    left, right = found.added
    remarks.append(
        f"rows of the detector end within the object: {left} columns on the left and {right} on the right are made up, "
        f"as of {'water' if water else 'a disc that fits the views'}; fits to the data trust them by {TRUST:g} "
        "(--prepare padding=off: none)"
    )
    return found.line, found.geometry, grid


def padded(
    grid: Grid, line: np.ndarray, geometry: RayGeometry, remarks: list[str], reach_mm: float | None = None
) -> Grid:
    """The grid, wider and higher where the edges or ends of line integrals (rows, views, columns) see the object.

    reach_mm: how far from the axis the object reaches, where that is known.
    """
    wider = any(cut_sides(line, geometry))
    ends = (False, False) if geometry.STACKED else _cut_at_ends(line)
    if not wider and not any(ends):
        return grid
    slices, rows, columns = grid.shape
    aside = _aside(grid, reach_mm) if wider else 0
    above = _beyond_ends(grid, geometry) if any(ends) else 0
    below, over = (above if end else 0 for end in ends)
    added = [f"{aside} pixels on each side"] if wider else []
    added += [f"{below} and {over} slices at its ends"] if any(ends) else []
    remarks.append(
        f"the object reaches beyond the detector, so the grid is widened by {' and by '.join(added)}; what lies there "
        "is not to be relied on"
    )
    x, y, z = grid.spacing_mm
    origin = np.asarray(grid.origin_mm) - grid.matrix @ np.array([aside * x, aside * y, below * z])
    half = (np.asarray(grid.shape[::-1]) - 1) / 2 * np.asarray(grid.spacing_mm)
    isocentre = grid.isocentre_mm or _three(np.asarray(grid.origin_mm) + grid.matrix @ half)
    shape = (slices + below + over, rows + 2 * aside, columns + 2 * aside)
    return replace(grid, shape=shape, origin_mm=_three(origin), isocentre_mm=isocentre)


def _three(vector: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in vector)
    return x, y, z


def _aside(grid: Grid, reach_mm: float | None) -> int:
    """Pixels to add at each side."""
    widest = max(grid.in_plane)
    if reach_mm is None:
        return int(np.ceil(_WIDER / 2 * widest))
    added = max(int(np.ceil(reach_mm / min(grid.spacing_mm[:2]) - widest / 2)), 0)
    return added + next((k for k in range(_DIVISIBLE) if (widest + 2 * (added + k)) % _DIVISIBLE == 0), 0)


def _cut_at_ends(line: np.ndarray) -> tuple[bool, bool]:
    """Whether the detector's first and last rows see more than air."""
    if line.shape[0] <= 2 * _ROWS:
        return False, False
    ends = (line[:_ROWS], line[-_ROWS:])
    first, last = (bool(np.percentile(end, 95) > 0.1 * float(line.max())) for end in ends)
    return first, last


def _beyond_ends(grid: Grid, geometry: RayGeometry) -> int:
    """How many slices beyond the ends rays meet that lead to the detector's outermost rows."""
    poses = geometry.poses()
    if poses.source is None:
        return 0
    out = poses.centre - poses.source
    rows = geometry.detector[0]
    steep = np.abs(out[:, None, 2] + np.outer([-rows / 2, rows / 2], poses.v[:, 2]).T)
    slope = float(np.max(steep / np.hypot(out[:, 0], out[:, 1])[:, None]))
    radius = max(grid.in_plane) * max(grid.spacing_mm[:2]) / 2
    return max(int(np.ceil(slope * radius / grid.spacing_mm[2])), 1)
