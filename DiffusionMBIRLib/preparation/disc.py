"""A disc of known size: where it stands, from the edges of its shadow, and which share of each pixel it covers."""

from __future__ import annotations

import numpy as np

from ..geometry import Grid, RayGeometry
from .field_of_view import ray

_CHORD = 0.06  # of the diameter: the length in the disc at which its shadow counts as begun
_FEWEST_EDGES = 6
_OFF = 0.02  # of the radius, root mean square, beyond which it is no such disc


def disc_centre(lengths_mm: np.ndarray, geometry: RayGeometry, radius_mm: float) -> tuple[float, float] | None:
    """Centre (x, y) in mm of a homogeneous disc in the isocentre world; None where no disc of the size fits.

    lengths_mm: of the rays in it, (views, columns).  A ray at the shadow's edge passes the centre at the radius, less
    how deep a chord of that length lies: two linear equations a view.
    """
    chord = 2 * radius_mm * _CHORD
    away = np.sqrt(radius_mm**2 - (chord / 2) ** 2)
    normals, distances = [], []
    for view, column, step in _edges(lengths_mm, chord):
        point, along = ray(geometry, column - (lengths_mm.shape[1] - 1) / 2, 0.0)
        normal = np.array([along[view, 1], -along[view, 0]]) / np.hypot(*along[view, :2])
        normal *= np.sign(normal @ geometry.poses().u[view, :2]) * step  # away from the disc
        normals.append(normal)
        distances.append(normal @ point[view, :2] - away)
    if len(normals) < _FEWEST_EDGES:
        return None
    (x, y), *_ = np.linalg.lstsq(np.array(normals), np.array(distances), rcond=None)
    off = np.array(normals) @ (x, y) - distances
    return (float(x), float(y)) if np.sqrt(np.mean(off**2)) < _OFF * radius_mm else None


def _edges(lengths_mm: np.ndarray, chord: float) -> list[tuple[int, float, int]]:
    """(view, column between the pixels' middles, -1 or 1) where rays begin, or end, to be longer than a chord."""
    found = []
    for view, lengths in enumerate(lengths_mm):
        inside = np.flatnonzero(lengths > chord)
        for last, step in ((inside[0], -1), (inside[-1], 1)) if len(inside) else ():
            beyond = int(last) + step
            if 0 <= beyond < len(lengths):
                share = (lengths[last] - chord) / (lengths[last] - lengths[beyond])
                found.append((view, float(last + step * share), step))
    return found


def disc_share(grid: Grid, centre_mm: tuple[float, float], radius_mm: float) -> np.ndarray:
    """Share of each pixel that lies in the disc, (1, rows, columns) float32, along the radius alone."""
    (rows, columns), (dx, dy), (middle_x, middle_y) = grid.in_plane, grid.spacing_mm[:2], grid.off_isocentre_mm[:2]
    x = (np.arange(columns) - (columns - 1) / 2) * dx + middle_x - centre_mm[0]
    y = (np.arange(rows) - (rows - 1) / 2) * dy + middle_y - centre_mm[1]
    depth = (radius_mm - np.hypot(x[None], y[:, None])) / max(dx, dy)
    return np.clip(depth + 0.5, 0, 1).astype(np.float32)[None]
