"""Detector pixels added up, and views left out, where a scan holds far more of one than the other or than memory."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import Grid, RayGeometry
from ..scans import Measurement

_COLUMNS_A_VIEW = 16  # beyond it, a grid as fine as the columns has voxels that hardly any ray tells from others
_FINE = 128  # columns that are kept in any case
_MATRIX_BYTES = 65.0  # of the projector of a stack of slices while it is built, a pixel and view
_MOST_BYTES = 5e9


def bins(geometry: RayGeometry) -> int:
    """How many columns, and rows, are to be added up: 1, 2, 4, ..."""
    found, columns = 1, geometry.detector[1]
    while columns // found > max(_FINE, _COLUMNS_A_VIEW * geometry.views):
        found *= 2
    return found if _divisible(geometry) else 1


def _divisible(geometry: RayGeometry) -> bool:
    return {"columns", "pitch_mm"} <= {f.name for f in fields(geometry)} and not hasattr(geometry, "sources_mm")


def binned(line: np.ndarray, geometry: RayGeometry, by: int) -> tuple[np.ndarray, RayGeometry]:
    """Means of ``by`` x ``by`` pixels of line integrals (rows, views, columns), and their geometry; what is left over
    at the far edges goes.
    """
    rows, columns = line.shape[0] // by, line.shape[2] // by
    means = line[: rows * by, :, : columns * by].reshape(rows, by, line.shape[1], columns, by).mean(axis=(1, 4))
    told: Any = geometry
    lost = line.shape[2] - columns * by
    changes: dict[str, Any] = {"columns": columns, "pitch_mm": told.pitch_mm * by}
    changes["offset_mm"] = told.offset_mm - lost / 2 * told.pitch_mm
    if not geometry.STACKED:
        lost_rows = line.shape[0] - rows * by
        changes |= {"rows": rows, "row_pitch_mm": told.row_pitch_mm * by}
        changes["row_offset_mm"] = told.row_offset_mm - lost_rows / 2 * told.row_pitch_mm
    return np.ascontiguousarray(means, np.float32), replace(told, **changes)


def with_wider_columns(scan: Measurement, by: int) -> Measurement:
    """The scan with columns of the detector averaged, ``by`` at a time; all else as it is.

    Raises InputError for a detector that cannot be divided so.
    """
    columns = scan.geometry.detector[1]
    if not _divisible(scan.geometry) or columns % by:
        raise InputError(f"{scan.name}: {columns} columns of {scan.geometry.LABEL.lower()} cannot be averaged by {by}")
    told: Any = scan.geometry

    def averaged(rays: np.ndarray | None) -> np.ndarray | None:
        if rays is None or rays.shape[2] == 1:
            return rays
        return rays.reshape(*rays.shape[:2], -1, by).mean(axis=3, dtype=np.float32)

    return replace(
        scan,
        data=np.asarray(averaged(scan.data)),
        geometry=replace(told, columns=columns // by, pitch_mm=told.pitch_mm * by),
        photons=scan.photons * by,
        photon_profile=averaged(scan.photon_profile),
        weights=averaged(scan.weights),
    )


def view_stride(geometry: RayGeometry, grid: Grid) -> int:
    """Of so many views one is to be kept for the projector of a stack of slices to fit into a usual memory."""
    if not geometry.STACKED:
        return 1
    return max(1, int(np.ceil(_MATRIX_BYTES * grid.shape[1] * grid.shape[2] * geometry.views / _MOST_BYTES)))
