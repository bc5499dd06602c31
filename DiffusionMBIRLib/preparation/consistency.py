"""Do parallel-beam views fit their angles?  Moments of the projections tell, before anything is reconstructed.

For parallel beams the total attenuation of a view does not depend on its angle, the centre of mass runs along a
sinusoid of it, and the squared width along one of twice the angle (Helgason-Ludwig conditions of order 0, 1 and 2).
They hold only where the object lies within the detector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# Clean and real scans: 0.02 to 0.26 columns, spread up to 0.024; a wrong order 1.1 to 1.5 columns, a lost view 2.
_MOST_STRAY = 0.4  # columns
_STRAY_OF_DETECTOR = 1e-3  # and of the detector's columns, for fine ones
_STRAY_OF_PATH = 0.1  # of how far the centre of mass moves
_MOST_SPREAD = 0.1
# The width's residual over its own change: 0.05 to 0.2 on clean and real scans, 1 in a wrong order.
_WIDTH_STRAY_OF_CHANGE = 0.5
_LEAST_WIDTH_STRAY = 0.2  # columns, plus _STRAY_OF_DETECTOR
_AIR = 0.05  # of the largest line integral; what the edges of the detector may see at most
_FEWEST_VIEWS = 6
_MANY_VIEWS = 30
_ALIKE = 0.6  # of the change between any two views, between neighbours; 0.1 to 0.3 in scans of 60 to 180 views


@dataclass(frozen=True)
class Consistency:
    """stray: how far the centre of mass lies off its sinusoid, rms in columns.  path: how far it moves.
    width_stray, width_change: the same of the width.  spread: standard deviation of the total attenuation over its
    median.  columns: of the detector.
    """

    stray: float
    path: float
    width_stray: float
    width_change: float
    spread: float
    columns: int

    @property
    def complaint(self) -> str:
        """What is off, in one line; '' for views that fit."""
        limit = max(_MOST_STRAY, _STRAY_OF_DETECTOR * self.columns, _STRAY_OF_PATH * self.path)
        if self.stray > limit:
            return (
                f"the views do not fit their angles: the centre of mass strays {self.stray:.2g} columns off its path "
                f"(usual: below {limit:.1g}); check the order of the views and the list of angles"
            )
        least = _LEAST_WIDTH_STRAY + _STRAY_OF_DETECTOR * self.columns
        if self.width_stray > max(least, _WIDTH_STRAY_OF_CHANGE * self.width_change):
            return (
                f"the views do not fit their angles: the object's width strays {self.width_stray:.2g} columns off its "
                "course; check the order of the views and the list of angles"
            )
        if self.spread > _MOST_SPREAD:
            return (
                f"the total attenuation varies by {self.spread:.0%} between views (usual: below {_MOST_SPREAD:.0%}); "
                "has the beam changed, or the object moved out of it?"
            )
        return ""


def edges(line: np.ndarray) -> tuple[float, float]:
    """What the first and the last columns of line integrals (..., columns) see: 0 is air."""
    if line.shape[-1] <= 6:
        return 0.0, 0.0
    return float(np.median(line[..., :3])), float(np.median(line[..., -3:]))


def sees_object(edge: float, line: np.ndarray) -> bool:
    """True if an edge's value is that of the object rather than that of air."""
    return edge > _AIR * float(line.max())


def check_views(line: np.ndarray, angles_deg: np.ndarray) -> Consistency | None:
    """Line integrals (slices, views, columns) against their angles in degrees.

    None where nothing can be said: few views, no attenuation, or an object that reaches beyond the detector.
    """
    profiles = line.mean(axis=0, dtype=np.float64)
    mass = profiles.sum(axis=1)
    if (
        len(angles_deg) < _FEWEST_VIEWS
        or not (mass > 0).all()
        or any(sees_object(e, profiles) for e in edges(profiles))
    ):
        return None
    columns = profiles.shape[1]
    path = profiles @ np.arange(columns) / mass
    variance = (profiles * (np.arange(columns) - path[:, None]) ** 2).sum(axis=1) / mass
    of_width = 0.5 / float(np.sqrt(max(float(variance.mean()), 1.0)))  # of a width for one of its square
    return Consistency(
        stray=float((path - sinusoid(path, angles_deg)[0]).std()),
        path=float(path.std()),
        width_stray=float((variance - sinusoid(variance, 2 * angles_deg)[0]).std()) * of_width,
        width_change=float(variance.std()) * of_width,
        spread=float(mass.std() / np.median(mass)),
        columns=columns,
    )


def with_doubt(provenance: dict[str, Any], line: np.ndarray, angles_deg: np.ndarray) -> dict[str, Any]:
    """The record of a scan with a remark on line integrals (slices, views, columns) that do not fit their angles."""
    found = check_views(line, angles_deg)
    told = provenance.get("remarks", [])
    if found is None or not found.complaint or not isinstance(told, list) or found.complaint in told:
        return provenance
    return {**provenance, "remarks": [*told, found.complaint]}


def sinusoid(path: np.ndarray, angles_deg: np.ndarray) -> tuple[np.ndarray, float]:
    """The least-squares fit a + b cos + c sin to a path over the angles, and its mean a: the rotation axis."""
    angles = np.radians(angles_deg)
    basis = np.stack([np.ones_like(angles), np.cos(angles), np.sin(angles)], axis=1)
    weights = np.linalg.lstsq(basis, path, rcond=None)[0]
    return basis @ weights, float(weights[0])


def are_shuffled(line: np.ndarray, angles_deg: np.ndarray) -> bool:
    """True if neighbouring views of line integrals (slices, views, columns) are hardly more alike than distant ones.

    Coarser than the moments, but holds where the object reaches beyond the detector too; asked of many views only.
    """
    if len(angles_deg) < _MANY_VIEWS:
        return False
    shuffled = np.random.default_rng(0).permutation(len(angles_deg))
    return roughness(line, angles_deg) > _ALIKE * roughness(line[:, shuffled], angles_deg)


def roughness(line: np.ndarray, angles_deg: np.ndarray) -> float:
    """Mean change from view to view in the order of the angles; least where each view has its own angle.

    line: (slices, views, columns).
    """
    profiles = line.mean(axis=0, dtype=np.float64)[np.argsort(np.mod(angles_deg, 360.0), kind="stable")]
    return float(np.abs(np.diff(profiles, axis=0)).mean())
