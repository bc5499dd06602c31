"""How much of a turn the views of a scan span.  Needs numpy only."""

from __future__ import annotations

import numpy as np

from .rays import RayGeometry


def angles_seen(geometry: RayGeometry) -> float:
    """How many degrees the views span, those between them included."""
    turned = np.unique(np.mod(geometry.angles_deg, 360.0))
    if len(turned) < 2:
        return 0.0
    gaps = np.diff(turned, append=turned[0] + 360.0)
    return float(360.0 - gaps.max() + np.median(gaps)) if gaps.max() > 2 * np.median(gaps) else 360.0


def sees_every_line(geometry: RayGeometry) -> bool:
    """Whether the views span half a turn, of beams from a point and the angle of their fan."""
    poses = geometry.poses()
    fan = 0.0
    if poses.source is not None:
        distance = np.median(np.linalg.norm(poses.centre - poses.source, axis=1))
        width = geometry.detector[1] * np.median(np.linalg.norm(poses.u, axis=1))
        fan = float(np.degrees(2 * np.arctan(width / 2 / distance)))
    return angles_seen(geometry) >= min(180.0 + fan, 360.0) - 1.0
