"""Scans on a device, as records that methods read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..models import ValueScale
from ..operators.slabs import WHOLE, Slabs
from ..scans import KSpace, Measurement, Scan, ThickSlices, TrajectoryKSpace
from ..scans.slabs import slab_of_projections
from .base import Problem, inverse_spacing
from .ct import ct_problem
from .metal import metal_problem
from .mr import mr_problem
from .slices import slices_problem
from .trajectory import trajectory_problem

if TYPE_CHECKING:
    from ..config import ReconSettings

__all__ = ["Problem", "build_problem", "inverse_spacing"]


def build_problem(
    scan: Scan, settings: ReconSettings, value: ValueScale | None, device: torch.device, slabs: Slabs = WHOLE
) -> Problem:
    """The problem of a scan.  value: how the prior sees it; None for the usual scale of its modality.  slabs: which of
    its slices are reconstructed here; the problem is that of these.

    Raises InputError for data or settings that do not fit.
    """
    if isinstance(scan, TrajectoryKSpace):
        return trajectory_problem(scan, settings, device)
    if isinstance(scan, KSpace):
        return mr_problem(scan, settings, device, slabs)
    if isinstance(scan, ThickSlices):
        return slices_problem(scan, settings, value, device)
    assert isinstance(scan, Measurement)
    if settings.metal_hu:
        return metal_problem(scan, settings, lambda part: ct_problem(part, settings, value, device))
    part = slab_of_projections(scan, slabs.mine(scan.grid.shape[0])) if slabs.size > 1 else scan
    return ct_problem(part, settings, value, device, slabs)
