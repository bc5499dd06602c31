"""Angles as they are listed: degrees or radians, with entries for flat and dark images between them or not."""

from __future__ import annotations

import numpy as np

from ..errors import InputError

_SAME_ANGLE_DEG = 0.01
_FULL_TURN = 2 * np.pi + 0.1
_MOST_TURNS = 64
_FEWEST_VIEWS = 3


def in_degrees(angles: np.ndarray, unit: str = "") -> tuple[np.ndarray, str, str]:
    """Angles in degrees, what was guessed of their unit and what the user should know ('' for nothing).

    unit: as the file names it, '' where it does not.  Without one, views that all lie within a turn of radians are
    taken as radians: nobody spreads a scan over six degrees.
    """
    if unit.lower().startswith("rad"):
        return np.degrees(angles), "", ""
    largest = float(np.abs(angles).max(initial=0.0))
    if not 0 < largest <= _FULL_TURN or len(np.unique(angles)) < _FEWEST_VIEWS:
        return angles, "", ""
    if unit:
        return angles, "", f"all angles lie within {largest:.3g} {unit}; are they radians?"
    return np.degrees(angles), f"angles up to {largest:.3g} are taken as radians", ""


def perhaps_radians(angles_deg: np.ndarray, unit: str) -> list[tuple[np.ndarray, str]]:
    """Angles of several turns in radians look like degrees: these as another reading, if the file names no unit."""
    if unit or not _FULL_TURN < np.abs(angles_deg).max(initial=0.0) < _MOST_TURNS * 2 * np.pi:
        return []
    return [(np.degrees(angles_deg), "angles are taken as radians")]


def of_the_views(angles: np.ndarray, views: int, name: str, listed_in: str) -> tuple[np.ndarray, str]:
    """The angles of the views and a remark; those of flat and dark images repeat the first and the last angle."""
    if len(angles) == views or not len(angles):
        return angles, ""
    with np.errstate(invalid="ignore"):  # what is not finite is refused by the geometry
        at_first, at_last = [np.abs(angles - end) <= _SAME_ANGLE_DEG for end in (angles[0], angles[-1])]
    begin, end = int((~at_first).argmax()), len(angles) - int((~at_last[::-1]).argmax())
    moving = angles[max(begin - 1, 0) : end + 1]
    if len(moving) != views:
        raise InputError(f"{name}: {listed_in} lists {len(angles)} angles for {views} projections; make them equal")
    return moving, f"{len(angles) - views} of {len(angles)} angles repeat the first or last and are left out"
