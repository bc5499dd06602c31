"""Grids that reach beyond what the detector sees, where the object does: else what lies outside is pressed inside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..geometry import Grid, RayGeometry
from .consistency import edges, sees_object
from .field_of_view import edge_distances
from .half_acquisition import OFF_CENTRE
from .rotation_axis import is_full_turn

_WIDER = 0.5  # of the width, for an object that is cut off at the sides
_ROWS = 3  # at the detector's ends


def padded(grid: Grid, line: np.ndarray, geometry: RayGeometry, remarks: list[str]) -> Grid:
    """The grid, wider and higher where the edges or ends of line integrals (rows, views, columns) see the object."""
    wider = _cut_at_sides(line, geometry)
    ends = (False, False) if geometry.STACKED else _cut_at_ends(line)
    if not wider and not any(ends):
        return grid
    slices, rows, columns = grid.shape
    aside = int(np.ceil(_WIDER / 2 * max(rows, columns))) if wider else 0
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


def _cut_at_sides(line: np.ndarray, geometry: RayGeometry) -> bool:
    first, last = (sees_object(edge, line) for edge in edges(line))
    near, far = edge_distances(geometry)
    beside = min(near, far) < OFF_CENTRE * max(near, far) and is_full_turn(np.asarray(geometry.angles_deg))
    if not beside:
        return first or last
    return last if near < far else first  # the edge near the axis of a shifted detector sees the object as it should


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
