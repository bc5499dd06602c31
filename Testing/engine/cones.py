"""Cone beams, helices and poses for tests, and what ellipsoids do to their rays, by formula."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from DiffusionMBIRLib.geometry import ConeBeam, Grid, HelicalCone, PointSource, PosedBeam

ANGLES = (0.0, 33.0, 90.0, 190.0)
GRID = Grid((7, 9, 11), (1.5, 1.5, 2.0))
# (middle, half axes, turn about z in degrees, density)
ELLIPSOIDS = (
    ((0.0, 0.0, 0.0), (40.0, 30.0, 28.0), 20.0, 1.0),
    ((10.0, -8.0, 6.0), (9.0, 12.0, 7.0), 50.0, -0.5),
    ((-15.0, 5.0, -10.0), (6.0, 8.0, 10.0), 0.0, 0.7),
)


def random_poses(views: int, distance_mm: float, seed: int, *, arc: bool = False) -> PosedBeam:
    """Sources all around, detectors turned at will and, where flat, not quite square to the middle ray."""
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(views, 3))
    source *= distance_mm / np.linalg.norm(source, axis=1, keepdims=True)
    centre = -0.7 * source + rng.normal(size=(views, 3))
    ahead = centre - source
    u = np.cross(ahead, rng.normal(size=(views, 3)))
    v = np.cross(ahead, u)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    if not arc:
        u = u + 0.05 * ahead / np.linalg.norm(ahead, axis=1, keepdims=True)
    pitch = 0.057 * distance_mm
    return PosedBeam(tuple(range(views)), 24, 26, pitch, 1.1 * pitch, source, centre, u, v, arc)


def scanners() -> dict[str, PointSource]:
    """One of each kind that a kernel tells apart, around ``GRID``."""
    flat = ConeBeam.covering(GRID, ANGLES)
    shifted = replace(flat, offset_mm=2.3, row_offset_mm=-1.1, shifts_mm=(0.0, 1.0, 2.0, -1.0))
    return {
        "flat": flat,
        "arc": ConeBeam.covering(GRID, ANGLES, arc=True),
        "shifted": shifted,
        "rolled": replace(flat, roll_deg=5.0),
        "rolled arc": replace(flat, arc=True, roll_deg=-8.0, offset_mm=1.0),
        "helix": HelicalCone.covering(GRID, ANGLES, rows=4),
        "poses": random_poses(3, 30.0, 0),
        "arc poses": random_poses(3, 30.0, 1, arc=True),
    }


def _turn(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def _through(source: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Line integrals from a source to points: of q = o + t e in units of an ellipsoid's axes, |q| = 1 at two t."""
    rays = points - source
    rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    total = np.zeros(rays.shape[:-1])
    for middle, axes, turn, density in ELLIPSOIDS:
        o, e = _turn(turn) @ (source - np.array(middle)) / axes, rays @ _turn(turn).T / axes
        a, b = (e * e).sum(-1), (e * o).sum(-1)
        total += density * 2 * np.sqrt(np.maximum(b * b - a * (o @ o - 1), 0)) / a
    return total


def ellipsoids_seen(geometry: PointSource, parts: int = 4) -> np.ndarray:
    """Line integrals through the ellipsoids (rows, views, columns), means of parts x parts rays a detector cell."""
    poses, (rows, columns) = geometry.poses(), geometry.detector
    seen = np.zeros((rows, geometry.views, columns))
    places = (np.arange(parts) + 0.5) / parts - 0.5
    for view, source in enumerate(poses.source):
        u, v, middle = poses.u[view], poses.v[view], poses.centre[view]
        for across in places:
            for up in places:
                k = np.arange(columns) - (columns - 1) / 2 + across
                r = (np.arange(rows) - (rows - 1) / 2 + up)[:, None, None] * v
                if poses.arc:
                    up_part = (middle - source) @ v / (v @ v) * v
                    ahead = middle - source - up_part
                    turn = (k * np.linalg.norm(u) / np.linalg.norm(ahead))[:, None]
                    column = np.cos(turn) * ahead + np.sin(turn) * u / np.linalg.norm(u) * np.linalg.norm(ahead)
                    seen[:, view] += _through(source, source + up_part + column + r)
                else:
                    seen[:, view] += _through(source, middle + k[:, None] * u + r)
    return seen / parts**2


def ellipsoids_on(grid: Grid, parts: int = 4) -> np.ndarray:
    """Their means over the voxels of a grid."""
    half = (np.array(grid.shape[::-1]) - 1) / 2
    fine = [
        ((np.arange(n * parts) + 0.5) / parts - 0.5 - h) * d + o
        for n, h, d, o in zip(grid.shape[::-1], half, grid.spacing_mm, grid.off_isocentre_mm, strict=True)
    ]
    x, y, z = np.meshgrid(*fine, indexing="ij", sparse=True)
    total = np.zeros([len(axis) for axis in fine])
    for (cx, cy, cz), (ax, ay, az), turn, density in ELLIPSOIDS:
        (c, s, _), _, _ = _turn(turn)
        along, across = c * (x - cx) + s * (y - cy), c * (y - cy) - s * (x - cx)
        total += density * ((along / ax) ** 2 + (across / ay) ** 2 + ((z - cz) / az) ** 2 <= 1)
    nz, ny, nx = grid.shape
    return total.reshape(nx, parts, ny, parts, nz, parts).mean(axis=(1, 3, 5)).transpose(2, 1, 0)


def through_voxels(geometry: PointSource, grid: Grid, x: np.ndarray, parts: int = 4, steps: int = 300) -> np.ndarray:
    """Line integrals (rows, views, columns) through voxels that are constant inside, means of parts x parts rays a
    cell, by looking up the voxel at so many places of each ray.
    """
    poses, (rows, columns), sides = geometry.poses(), geometry.detector, np.array(grid.shape[::-1])
    off, spacing, values = np.asarray(grid.off_isocentre_mm), np.array(grid.spacing_mm), x.ravel()
    reach = float(np.linalg.norm(sides * spacing))
    t = ((np.arange(steps) + 0.5) / steps - 0.5) * reach
    seen = np.zeros((rows, geometry.views, columns))
    places = (np.arange(parts) + 0.5) / parts - 0.5
    for view, source in enumerate(poses.source):
        for across, up in np.ndindex(parts, parts):
            k = (np.arange(columns) - (columns - 1) / 2 + places[across])[:, None] * poses.u[view]
            r = (np.arange(rows) - (rows - 1) / 2 + places[up])[:, None, None] * poses.v[view]
            ray = poses.centre[view] + k + r - source
            ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
            at = (source - off) + ray[..., None, :] * ((ray @ (off - source))[..., None] + t)[..., None]
            index = np.floor(at / spacing + sides / 2).astype(np.int32)
            inside = ((index >= 0) & (index < sides)).all(-1)
            i, j, k_ = np.moveaxis(np.where(inside[..., None], index, 0), -1, 0)
            seen[:, view] += np.where(inside, values[(k_ * sides[1] + j) * sides[0] + i], 0).sum(-1) * reach / steps
    return seen / parts**2
