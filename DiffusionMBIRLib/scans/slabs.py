"""The part of a scan that belongs to some slices of its volume.  Needs numpy only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..geometry import mixes_slices
from .ct import Measurement
from .mr import KSpace


def slab_of_projections(scan: Measurement, held: slice) -> Measurement:
    """The scan of some slices that follow each other: of a stack their own data, else all data and a smaller grid."""
    grid = scan.grid.slab(held)
    bounds: dict[str, Any] = {
        "most_per_mm": _part(scan.most_per_mm, held),
        "least_per_mm": _part(scan.least_per_mm, held),
    }
    if mixes_slices(scan.geometry):
        return replace(scan, grid=grid, stored_grid=None, **bounds)
    photons, weights = _part(scan.photon_profile, held), _part(scan.weights, held)
    return replace(
        scan, data=scan.data[held], photon_profile=photons, weights=weights, grid=grid, stored_grid=None,
        **bounds,
    )  # fmt: skip


def slab_of_kspace(kspace: KSpace, held: slice) -> KSpace:
    """The k-space of some slices that follow each other."""
    return replace(
        kspace, data=kspace.data[held], maps=_part(kspace.maps, held), calibration=_part(kspace.calibration, held),
        grid=kspace.grid.slab(held), stored_grid=None,
    )  # fmt: skip


def _part(array: np.ndarray | None, held: slice) -> np.ndarray | None:
    """Of an array with one entry a slice, or one for all."""
    return array if array is None or len(array) == 1 else array[held]
