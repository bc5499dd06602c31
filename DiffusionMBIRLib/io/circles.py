"""Scanners that are told in a world of their own: a source, a detector and an axis that the object turns about."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..geometry import ConeBeam, FanBeam, PosedBeam, Poses, RayGeometry

_SAME = 1e-9


def geometry_of(
    name: str,
    source: np.ndarray,
    centre: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    on_axis: np.ndarray,
    axis: np.ndarray,
    angles_deg: np.ndarray,
    rows: int,
    columns: int,
) -> tuple[RayGeometry, tuple[int, ...]]:
    """The cone beam of points and directions in mm of one world, a ``ConeBeam`` where the detector is upright, and the
    axes (-2: rows, -1: columns) along which images are to be flipped to fit it.

    u, v: steps from one column, or row, to the next.  axis: unit vector of the rotation axis, through ``on_axis``;
    z of our world.  angles_deg: by which source and detector turn about it, right-handed, at each view.
    The source's height becomes z = 0.  Raises InputError where the source lies on the axis.
    """
    to_source = source - on_axis
    height = float(to_source @ axis)
    aside = to_source - height * axis
    sod = float(np.linalg.norm(aside))
    if not sod > _SAME:
        raise InputError(f"{name}: the source lies on the rotation axis")
    back = aside / sod  # the source's side
    world = np.stack([np.cross(-back, axis), -back, axis])  # x, y and z of our world in theirs, in the view 0
    middle = on_axis + height * axis
    place, along, up = (world @ vector for vector in (centre - middle, u, v))
    pitch, row_pitch = float(np.linalg.norm(u)), float(np.linalg.norm(v))
    if min(pitch, row_pitch) <= 0:
        raise InputError(f"{name}: a pixel of the detector has no size")
    if abs(along[0]) > (1 - _SAME) * pitch and abs(up[2]) > (1 - _SAME) * row_pitch:
        cone = ConeBeam(
            tuple(float(a) for a in angles_deg), rows, columns, pitch, row_pitch, sod_mm=sod,
            sdd_mm=sod + float(place[1]), offset_mm=float(place[0]), row_offset_mm=float(place[2]),
        )  # fmt: skip
        return cone, tuple(image for image, step in ((-2, up[2]), (-1, along[0])) if step < 0)
    turn = np.radians(angles_deg)
    cos, sin = np.cos(turn), np.sin(turn)

    def turned(vector: np.ndarray) -> np.ndarray:
        x, y, z = vector
        return np.stack([x * cos - y * sin, x * sin + y * cos, np.full_like(cos, z)], axis=1)

    stand = turned(np.array([0.0, -sod, 0.0]))
    poses = Poses(turned(place), turned(along), turned(up), source=stand)
    return PosedBeam.of(poses, rows, columns), ()


def circle(
    angles_deg: np.ndarray,
    detector: tuple[int, int],
    pitch_mm: tuple[float, float],
    sod_mm: float,
    sdd_mm: float,
    *,
    offset_mm: float = 0.0,
    row_offset_mm: float = 0.0,
    roll_deg: float = 0.0,
) -> FanBeam | ConeBeam:
    """The scanner of a flat detector of (rows, columns) on a circle about the axis; a fan beam of one row.

    pitch_mm: of rows and columns.
    """
    angles = tuple(float(a) for a in angles_deg)
    rows, columns = detector
    if rows == 1:
        return FanBeam(angles, columns, pitch_mm[1], sod_mm, sdd_mm, offset_mm)
    return ConeBeam(
        angles, rows, columns, pitch_mm[1], pitch_mm[0], sod_mm=sod_mm, sdd_mm=sdd_mm, offset_mm=offset_mm,
        row_offset_mm=row_offset_mm, roll_deg=roll_deg,
    )  # fmt: skip
