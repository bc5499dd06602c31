"""Filtered back-projection of beams from a point on a circle: what fan beams and cone beams share.

Every line in the plane of the circle is seen by two rays, of the view theta at the fan angle gamma and of the view
theta + 180 degrees - 2 gamma at -gamma.  Before the filter readings are weighed so that both together count once; one
formula serves whole turns, short scans (Parker 1982) and detectors that are shifted to one side (Wang 2002): a
reading's share is c / (c + c') where c falls smoothly to zero towards the ends of the scan and towards the near edge of
the detector, and c' is that of the other ray, zero where it was not measured (Noo et al. 2002, doi
10.1088/0031-9155/47/14/311).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...preparation.rotation_axis import is_full_turn
from .filters import angular_weights, ramp_filter

_TAPER = math.radians(10.0)  # over which a scan's ends fade, at least
_HALF_TURN = math.pi


@dataclass(frozen=True)
class Circle:
    """Distances and the detector's columns, in mm; ``offset`` of its middle from the axis of the beam."""

    angles_deg: tuple[float, ...]
    columns: int
    pitch: float
    offset: float
    sod: float
    sdd: float
    arc: bool

    @property
    def places(self) -> Tensor:
        """Of the columns' middles from the axis of the beam, along the detector: (columns,) float64."""
        return (torch.arange(self.columns, dtype=torch.float64) - (self.columns - 1) / 2) * self.pitch + self.offset

    def fan_angles(self, places: Tensor) -> Tensor:
        """Angles in radians at which places appear from the source."""
        return places / self.sdd if self.arc else torch.atan(places / self.sdd)

    def padding(self) -> tuple[int, int]:
        """Columns to add on the left and on the right for a detector that reaches equally far to both sides."""
        half = self.columns * self.pitch / 2
        added = int(np.ceil(min(2 * abs(self.offset), 2 * half) / self.pitch - 1e-6))
        return (added, 0) if self.offset > 0 else (0, added)


def filtered(circle: Circle, y: Tensor, window: str, row_places: Tensor | None = None) -> Tensor:
    """Line integrals (rows, views, columns) weighed and filtered, each view times its share of the turn in radians.

    row_places: of the detector's rows from the plane of the circle, in mm; None: all in it.  The result has the columns
    of :meth:`Circle.padding` besides.
    """
    places = circle.places
    angles = circle.fan_angles(places)
    height = torch.zeros(1, dtype=torch.float64) if row_places is None else row_places
    rise = circle.sdd / (circle.sdd**2 + height[:, None] ** 2 + (0 if circle.arc else places**2)).sqrt()
    slant = rise * angles.cos() if circle.arc else rise
    share = readings(circle) * angular_weights(circle.angles_deg, 360.0)[:, None]
    weighed = y * slant[:, None].to(y.device, y.dtype) * share.to(y.device, y.dtype)
    turn = circle.pitch / circle.sdd if circle.arc else 0.0
    pitch = turn or circle.pitch * circle.sod / circle.sdd
    return ramp_filter(F.pad(weighed, circle.padding()), pitch, window, turn=turn)


def readings(circle: Circle) -> Tensor:
    """What each reading counts of its line: (views, columns) in [0, 1] float64."""
    angles = circle.fan_angles(circle.places)
    theta = torch.deg2rad(torch.tensor(circle.angles_deg, dtype=torch.float64))[:, None]
    own = _of_view(circle, theta) * _of_column(circle, angles)
    other = _of_view(circle, theta + _HALF_TURN - 2 * angles) * _of_column(circle, -angles)
    return torch.where(own + other > 0, own / (own + other).clamp_min(1e-30), 0.0)


def _of_view(circle: Circle, theta: Tensor) -> Tensor:
    """How much a view at angle theta counts: 1, less near the ends of a scan that is no whole turn, 0 beyond them."""
    listed = np.asarray(circle.angles_deg)
    if is_full_turn(listed):
        return torch.ones_like(theta)
    turned = np.unique(np.round(np.mod(listed, 360.0), 6))
    gaps = np.diff(turned, append=turned[0] + 360.0)
    widest = int(gaps.argmax())
    step = float(np.median(gaps[gaps < gaps[widest]])) if len(turned) > 2 else min(10.0, float(gaps.min()))
    first = math.radians(turned[(widest + 1) % len(turned)] - step / 2)
    span = math.radians(360.0 - gaps[widest] + step)
    inside = torch.remainder(theta - first, 2 * _HALF_TURN)
    fade = min(max(_TAPER, (span - _HALF_TURN) / 2), span / 2)
    near_end = torch.minimum(inside, span - inside)
    return torch.sin(_HALF_TURN / 2 * (near_end / fade).clamp(0, 1)).square()


def _of_column(circle: Circle, angles: Tensor) -> Tensor:
    """How much a reading at a fan angle counts: 1, less towards the near edge of a shifted detector, 0 beyond edges."""
    half = circle.columns * circle.pitch / 2
    low, high = (
        float(circle.fan_angles(torch.tensor(circle.offset + side * half, dtype=torch.float64))) for side in (-1, 1)
    )
    inside = ((angles >= low) & (angles <= high)).to(angles.dtype)
    near, far = sorted((max(-low, 0.0), max(high, 0.0)))
    fade = min(2 * near, 4 * (far - near))
    if fade <= 0:
        return inside
    from_edge = angles - low if -low < high else high - angles
    return inside * torch.sin(_HALF_TURN / 2 * (from_edge / fade).clamp(0, 1)).square()


def seen_at(circle: Circle, angle_deg: float, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of points of the plane in one view: (place in columns of the padded detector from the middle of the first, weight
    of the back-projection, magnification of heights).
    """
    theta = math.radians(angle_deg)
    ahead = circle.sod - x * math.sin(theta) + y * math.cos(theta)
    across = x * math.cos(theta) + y * math.sin(theta)
    if circle.arc:
        distance = torch.hypot(ahead, across)
        place, weight, grown = circle.sdd * torch.atan2(across, ahead), circle.sod / distance**2, circle.sdd / distance
    else:
        place, weight, grown = circle.sdd * across / ahead, (circle.sod / ahead) ** 2, circle.sdd / ahead
    column = (place - circle.offset) / circle.pitch + (circle.columns - 1) / 2 + circle.padding()[0]
    return column, torch.where(ahead > 0, weight, 0.0), grown
