"""One slice of a CT scan, quickly: as it was understood, and other ways round where the file leaves that open.

Filtered back-projection of the middle of a stack of slices, or of the rows in the plane of the source of a cone beam.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError
from .geometry import ConeBeam, FanBeam, Grid, RayGeometry
from .report import matplotlib_canvas, save_figure
from .scans import Measurement

if TYPE_CHECKING:
    from .monitor import Monitor

_MOST_PIXELS = 256  # of a side
_SHOWN = (1.0, 99.5)  # percentiles


def candidates(scan: Measurement) -> Iterator[tuple[str, Measurement]]:
    """A scan of one slice as it was understood, and others where its notes leave the sense of rotation open.

    Raises InputError for scanners whose rows have no plane in common.
    """
    one = _one_slice(scan)
    yield "as read", one
    if any("sense of rotation" in note for note in scan.notes):
        turned = replace(one.geometry, angles_deg=tuple(-a for a in one.geometry.angles_deg))
        yield "angles the other way", replace(one, geometry=turned)


def slices(scan: Measurement, monitor: Monitor | None = None) -> list[tuple[str, np.ndarray]]:
    """Each candidate's name and slice (rows, columns) in the scan's unit."""
    from .config import ReconSettings
    from .reconstruction import reconstruct

    settings = ReconSettings(method="fbp")
    return [
        (name, reconstruct(one, settings=settings, monitor=monitor).volume.array[0]) for name, one in candidates(scan)
    ]


def save_slice_picture(path: Path, scan: Measurement) -> None:
    """Write a PNG of the slices side by side.  Needs matplotlib; raises InputError without it."""
    figure_class, canvas_class = matplotlib_canvas()
    shown = slices(scan)
    figure = figure_class(figsize=(4.0 * len(shown), 4.4))
    canvas_class(figure)
    low, high = np.percentile(shown[0][1], _SHOWN)
    for k, (name, image) in enumerate(shown, 1):
        axes = figure.add_subplot(1, len(shown), k)
        axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-9))
        axes.set_title(f"{name} ({low:.3g} to {high:.3g} {scan.unit})", fontsize=8)
        axes.set_axis_off()
    save_figure(figure, path)


def _one_slice(scan: Measurement) -> Measurement:
    grid = scan.grid
    x, y, z = grid.spacing_mm
    rows, columns = grid.in_plane
    factor = max(-(-max(rows, columns) // _MOST_PIXELS), 1)
    data, fan = _row(scan)
    shape = (1, max(rows // factor, 1), max(columns // factor, 1))
    flat = Grid(shape, (x * columns / shape[2], y * rows / shape[1], z))
    aside = grid.off_isocentre_mm
    half = (np.asarray(flat.shape[::-1]) - 1) / 2 * np.asarray(flat.spacing_mm)
    isocentre = (float(half[0] - aside[0]), float(half[1] - aside[1]), 0.0)
    flat = replace(flat, isocentre_mm=isocentre)
    return replace(
        scan, data=data, geometry=fan, grid=flat, stored_grid=None, photons=0.0, photon_profile=None, weights=None
    )


def _row(scan: Measurement) -> tuple[np.ndarray, RayGeometry]:
    """(1, views, columns) line integrals of one slice and their scanner."""
    geometry = scan.geometry
    if geometry.STACKED:
        middle = scan.data.shape[0] // 2
        return np.ascontiguousarray(scan.data[middle : middle + 1], np.float32), geometry
    if not isinstance(geometry, ConeBeam) or geometry.shifts_mm or geometry.row_shifts_mm or geometry.roll_deg:
        raise InputError(f"{scan.name}: {geometry.LABEL.lower()} has no quick slice; reconstruct with the method fbp")
    place = (geometry.rows - 1) / 2 - geometry.row_offset_mm / geometry.row_pitch_mm
    middle = int(np.clip(round(place), 0, geometry.rows - 1))
    fan = FanBeam(
        geometry.angles_deg, geometry.columns, geometry.pitch_mm, geometry.sod_mm, geometry.sdd_mm,
        geometry.offset_mm, geometry.arc,
    )  # fmt: skip
    return np.ascontiguousarray(scan.data[middle : middle + 1], np.float32), fan
