"""Filtered back-projection of full turns with a shifted detector, which sees some lines twice and others once.

Each line has two readings, at s from the axis and half a turn later at -s.  Before the filter they are weighed so that
both together count as much as a line seen once (Wang 2002, for parallel beams).  What the filter spreads beyond the
near edge belongs to lines that the opposite view sees: it is added there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...geometry import ParallelBeam
from ...preparation.half_acquisition import OFF_CENTRE, reach
from ...preparation.rotation_axis import is_full_turn


@dataclass(frozen=True)
class Redundancy:
    """weights: (columns,) of readings before the filter.  left, right: columns to add for the filter.

    opposite: (views,) the view half a turn later.  target: where the added columns lie in it, fractional.
    """

    weights: Tensor
    left: int
    right: int
    opposite: Tensor
    target: Tensor

    @classmethod
    def of(cls, geometry: ParallelBeam) -> Redundancy | None:
        """None where every line is seen equally often: a centred detector, or less than a full turn."""
        columns, angles = geometry.columns, np.asarray(geometry.angles_deg)
        centre = (columns - 1) / 2 - geometry.offset_mm / geometry.pitch_mm
        near, far = reach(columns, centre)
        if not 0 < near < OFF_CENTRE * far or not is_full_turn(angles):
            return None
        is_left = centre < columns / 2
        away = np.arange(columns) - centre if is_left else centre - np.arange(columns)  # positive to the far edge
        weights = 2 * np.sin(np.pi / 4 * (1 + np.clip(away / near, -1, 1))) ** 2
        added = int(np.ceil(far - near))
        beyond = np.arange(-added, 0) if is_left else np.arange(columns, columns + added)
        opposite = np.abs(np.mod(angles[:, None] - angles, 360.0) - 180).argmin(axis=1)
        left, right = (added, 0) if is_left else (0, added)
        return cls(
            torch.from_numpy(weights), left, right, torch.from_numpy(opposite), torch.from_numpy(2 * centre - beyond)
        )

    def weighed(self, y: Tensor) -> Tensor:
        """Line integrals (slices, views, columns) with their weights, and room beyond the near edge."""
        return F.pad(y * self.weights.to(y.device, y.dtype), (self.left, self.right))

    def folded(self, filtered: Tensor) -> Tensor:
        """Filtered rows without the room, its content added to the opposite views, between the nearest columns."""
        columns = filtered.shape[-1] - self.left - self.right
        inside = filtered[..., self.left : self.left + columns]
        tail = filtered[..., : self.left] if self.left else filtered[..., columns:]
        target = self.target.to(filtered.device)
        seen = (target >= 0) & (target <= columns - 1)
        target, tail = target[seen], tail[..., seen]
        lower = target.floor().long().clamp(max=columns - 2)
        share = (target - lower).to(tail.dtype)
        moved = torch.zeros_like(inside)
        moved[..., lower] += tail * (1 - share)
        moved[..., lower + 1] += tail * share
        return inside.index_add(1, self.opposite.to(filtered.device), moved)
