"""The grid that a detector sees, from where source and detector stand."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..geometry import Grid, RayGeometry
from .half_acquisition import OFF_CENTRE
from .rotation_axis import is_full_turn


def pixel_mm(geometry: RayGeometry) -> tuple[float, float]:
    """Sizes of the detector's columns and rows as they appear at the rotation axis."""
    poses = geometry.poses()
    u, v = (float(np.median(np.linalg.norm(step, axis=1))) for step in (poses.u, poses.v))
    if poses.source is None:
        return u, v
    to_axis = float(np.median(np.hypot(poses.source[:, 0], poses.source[:, 1])))
    to_detector = float(np.median(np.linalg.norm(_foot(geometry) - poses.source, axis=1)))
    if not to_detector or not to_axis:
        raise InputError("geometry: the source stands on the rotation axis or on the detector; check its distances")
    return u * to_axis / to_detector, v * to_axis / to_detector


def _foot(geometry: RayGeometry) -> np.ndarray:
    """Where the perpendicular from each source meets the detector's plane, (views, 3); of an arc its middle."""
    poses = geometry.poses()
    assert poses.source is not None
    if poses.arc:
        return poses.centre
    normal = np.cross(poses.u, poses.v)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    height = ((poses.centre - poses.source) * normal).sum(axis=1, keepdims=True)
    return np.asarray(poses.source + height * normal)


def edge_distances(geometry: RayGeometry) -> tuple[float, float]:
    """How far from the axis the outer edges of the first and the last column see, in mm, medians over the views."""
    columns = geometry.detector[1]
    found = []
    for k in (-columns / 2, columns / 2):
        point, along = ray(geometry, k, 0.0)
        size = np.hypot(along[:, 0], along[:, 1])
        across = np.abs(along[:, 0] * point[:, 1] - along[:, 1] * point[:, 0]) / np.maximum(size, 1e-30)
        found.append(float(np.median(across)))
    return found[0], found[1]


def ray(geometry: RayGeometry, column: float, row: float) -> tuple[np.ndarray, np.ndarray]:
    """A point and the direction of the ray to a place on the detector, in steps from its middle; both (views, 3)."""
    poses = geometry.poses()
    if poses.source is None:
        assert poses.direction is not None
        return poses.centre + column * poses.u + row * poses.v, poses.direction
    if not poses.arc:
        return poses.source, poses.centre + column * poses.u + row * poses.v - poses.source
    out = poses.centre - poses.source
    radius = np.linalg.norm(out, axis=1, keepdims=True)
    turn = column * np.linalg.norm(poses.u, axis=1, keepdims=True) / radius
    along = poses.u / np.linalg.norm(poses.u, axis=1, keepdims=True)
    return poses.source, np.cos(turn) * out + np.sin(turn) * radius * along + row * poses.v


def heights_mm(geometry: RayGeometry) -> tuple[float, float]:
    """Lowest and highest place on the axis that the outer edges of the detector's rows see, in mm."""
    rows = geometry.detector[0]
    found = []
    for k in (-rows / 2, rows / 2):
        point, along = ray(geometry, 0.0, k)
        flat = np.maximum((along[:, :2] ** 2).sum(axis=1), 1e-30)
        found.append(point[:, 2] - (point[:, :2] * along[:, :2]).sum(axis=1) / flat * along[:, 2])
    return float(np.min(found)), float(np.max(found))


def grid_seen(geometry: RayGeometry, slices: int, slice_mm: float | None = None) -> Grid:
    """The grid of pixels as the detector's columns appear at the axis, as wide and high as the detector sees.

    slices: of a stack of slices, slice_mm apart (by default as the detector's rows are).  A detector that stands
    beside the axis sees as far as its far edge, all around.
    """
    pixel, height = pixel_mm(geometry)
    near, far = sorted(edge_distances(geometry))
    beside = near < OFF_CENTRE * far and is_full_turn(np.asarray(geometry.angles_deg))
    columns = max(round((2 * far if beside else near + far) / pixel), 1)
    middle = 0.0
    if geometry.STACKED:
        step = slice_mm or pixel
    else:
        low, high = heights_mm(geometry)
        step, middle = height, (low + high) / 2
        slices = max(round((high - low) / height), 1)
    return centred_grid((slices, columns, columns), (pixel, pixel, step), middle)


def centred_grid(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], middle_mm: float = 0.0) -> Grid:
    """A grid whose middle lies on the axis, at a height; the isocentre is the origin of its world."""
    origin = [-(n - 1) / 2 * s for n, s in zip(shape[::-1], spacing_mm, strict=True)]
    return Grid(shape, spacing_mm, (origin[0], origin[1], origin[2] + middle_mm), isocentre_mm=(0.0, 0.0, 0.0))
