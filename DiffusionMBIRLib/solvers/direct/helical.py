"""Direct reconstruction of helical scans by rebinning to fan beams (Noo, Defrise and Clackdoyle 1999, doi
10.1088/0031-9155/44/2/019): each slice is given the turn of views around it, each ray the reading of the detector row
that comes nearest to the slice along it, and then a filtered back-projection of its own.

Good for small cone angles; operators in three dimensions have no such error.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from ...geometry import FanBeam, Grid, HelicalCone
from ...operators.base import LinearOperator
from .fan import fan_fbp
from .registry import reconstructs


@reconstructs(HelicalCone)
def rebinned_fbp(A: LinearOperator, y: Tensor, geometry: HelicalCone, grid: Grid, *, window: str = "ramp") -> Tensor:
    """Attenuation in 1/mm from line integrals (rows, views, columns).

    Slices that the scan does not reach from all around take the nearest turn that there is.  Raises InputError for a
    detector that is turned in its plane or shifted view by view, and for less than a turn.
    """
    fan, sinograms = rebinned(y, geometry, grid)
    return fan_fbp(A, sinograms, fan, grid, window=window)


def rebinned(y: Tensor, geometry: HelicalCone, grid: Grid) -> tuple[FanBeam, Tensor]:
    """The fan beams of a turn and their data (slices, views, columns)."""
    g = geometry
    if g.roll_deg or g.shifts_mm or g.row_shifts_mm:
        raise InputError(
            "geometry.roll_deg and shifts of single views: helical scans with them have no filtered back-projection; "
            "use admm-tv"
        )
    if g.turns < 1 - 1.5 / g.views:
        raise InputError(
            f"geometry.angles_deg: {g.turns:.2f} turns of a helix have no filtered back-projection; use admm-tv"
        )
    order = np.argsort(g.angles_deg)
    angles = np.asarray(g.angles_deg)[order]
    views = max(4, round((g.views - 1) / g.turns))
    turn = angles[0] + 360.0 * np.arange(views) / views
    fan = FanBeam(tuple(turn), g.columns, g.pitch_mm, g.sod_mm, g.sdd_mm, g.offset_mm, g.arc)
    slices = grid.shape[0]
    z = (np.arange(slices) - (slices - 1) / 2) * grid.spacing_mm[2] + grid.off_isocentre_mm[2]
    return fan, _readings(y, g, order, angles, turn, z)


def _readings(
    y: Tensor, g: HelicalCone, order: np.ndarray, angles: np.ndarray, turn: np.ndarray, z: np.ndarray
) -> Tensor:
    """(slices, views, columns) from between the two nearest views and rows.  z: of the slices, in mm."""
    steepness, across = _along_columns(g)
    opposite = (z - g.start_mm) / g.travel_mm * 360.0  # the angle at which the source passes each slice
    out = y.new_empty((len(z), len(turn), g.columns))
    views = torch.from_numpy(order.copy()).to(y.device)
    column = torch.arange(g.columns, device=y.device)[None]
    for k, angle in enumerate(turn):
        wanted = angle + 360.0 * np.rint((opposite - angle) / 360.0)
        wanted += 360.0 * np.ceil(np.maximum(angles[0] - wanted - 1e-6, 0) / 360.0)
        wanted -= 360.0 * np.ceil(np.maximum(wanted - angles[-1] - 1e-6, 0) / 360.0)
        away = torch.from_numpy(z - g.start_mm - g.travel_mm * wanted / 360.0)[:, None]
        height = away * steepness
        row = ((height - g.row_offset_mm) / g.row_pitch_mm + (g.rows - 1) / 2).clamp(0, g.rows - 1)
        place = np.interp(wanted, angles, np.arange(len(angles)))
        before = np.minimum(np.floor(place), max(0, len(angles) - 2)).astype(np.int64)
        share = torch.from_numpy(place - before)[:, None].to(y.device, y.dtype)
        low = row.floor().clamp(max=max(0, g.rows - 2))
        up, low = (row - low).to(y.device, y.dtype), low.long().to(y.device)
        high = (low + 1).clamp(max=g.rows - 1)
        total = y.new_zeros(row.shape)
        for step, weight in ((0, 1 - share), (1, share)):
            view = views[torch.from_numpy(np.minimum(before + step, len(angles) - 1))][:, None]
            total += weight * ((1 - up) * y[low, view, column] + up * y[high, view, column])
        out[:, k] = total * _obliquity(height, across, g).to(y.device, y.dtype)
    return out


def _along_columns(g: HelicalCone) -> tuple[Tensor, Tensor]:
    """(height on the detector for each mm that a slice lies above the source, squared distance in the plane from the
    source to the detector), both (columns,).
    """
    place = (torch.arange(g.columns, dtype=torch.float64) - (g.columns - 1) / 2) * g.pitch_mm + g.offset_mm
    if g.arc:
        return g.sdd_mm / (g.sod_mm * torch.cos(place / g.sdd_mm)), torch.full_like(place, g.sdd_mm**2)
    across = place**2 + g.sdd_mm**2
    return across / (g.sod_mm * g.sdd_mm), across


def _obliquity(height: Tensor, across: Tensor, g: HelicalCone) -> Tensor:
    """Length of a ray in the plane over its own length, for the height at which it was really read."""
    half = g.rows * g.row_pitch_mm / 2
    read = height.clamp(g.row_offset_mm - half, g.row_offset_mm + half)
    return (across / (across + read**2)).sqrt()
