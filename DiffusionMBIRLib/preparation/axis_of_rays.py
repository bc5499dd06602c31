"""The column of the rotation axis of parallel, fan and cone beams, by their views."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import ConeBeam, FanBeam, ParallelBeam
from .consistency import edges, sees_object
from .fan_axis import fan_axis
from .rotation_axis import rotation_axis

Movable = Any  # ParallelBeam, FanBeam or ConeBeam
_ROWS = 0.02  # of a detector's rows beside the plane of the source, whose views are averaged
_BACKWARDS = 0.5  # of the misfit, that angles the other way must reach


@dataclass(frozen=True)
class Found:
    """column: of the axis.  misfit: of rays that were measured twice, over their variance; 0 where not known."""

    column: float
    how: str
    misfit: float = 0.0


def column_of(geometry: Movable) -> float:
    """The column that the axis is projected to; 0 is the middle of the first."""
    return float((geometry.columns - 1) / 2 - geometry.offset_mm / geometry.pitch_mm)


def with_column(geometry: Movable, column: float) -> Any:
    """The same scanner with its axis at a column."""
    return replace(geometry, offset_mm=((geometry.columns - 1) / 2 - column) * geometry.pitch_mm)


def found(line: np.ndarray, geometry: Movable) -> Found | None:
    """The axis by line integrals (rows, views, columns); None where they do not tell it."""
    angles = np.asarray(geometry.angles_deg)
    if isinstance(geometry, ParallelBeam):
        try:
            column, how = rotation_axis(line, angles, "")
        except InputError:
            return None
        by_mass = how.startswith("from the path")
        cut_off = by_mass and any(sees_object(edge, line) for edge in edges(line))  # which draws the centre of mass
        return None if how.startswith("in the middle") or cut_off else Found(column, how)
    assert isinstance(geometry, FanBeam | ConeBeam)
    if isinstance(geometry, ConeBeam) and (geometry.shifts_mm or geometry.roll_deg):
        return None
    twice = fan_axis(_profiles(line, geometry), angles, geometry.pitch_mm, geometry.sdd_mm, arc=geometry.arc)
    return twice and Found(twice[0], "from rays that were measured twice", twice[1])


def runs_backwards(line: np.ndarray, geometry: Movable, listed: Found) -> bool:
    """Whether rays of a fan that were measured twice agree clearly better if the angles ran the other way."""
    if isinstance(geometry, ParallelBeam):
        return False
    angles = -np.asarray(geometry.angles_deg)
    other = fan_axis(_profiles(line, geometry), angles, geometry.pitch_mm, geometry.sdd_mm, arc=geometry.arc)
    return other is not None and other[1] < _BACKWARDS * listed.misfit


def _profiles(line: np.ndarray, geometry: Movable) -> np.ndarray:
    """Views (views, columns) of the rows next to the plane of the source; of a stack of slices their mean."""
    if geometry.STACKED:
        return np.asarray(line.mean(axis=0, dtype=np.float64))
    rows = line.shape[0]
    middle = (rows - 1) / 2 - geometry.row_offset_mm / geometry.row_pitch_mm
    reach = max(_ROWS * rows, 1.0)
    near = np.flatnonzero(np.abs(np.arange(rows) - np.clip(middle, 0, rows - 1)) <= reach)
    return np.asarray(line[near].mean(axis=0, dtype=np.float64))
