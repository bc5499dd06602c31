"""Bruker (SkyScan) scans: a .log file beside the TIFF images of its prefix.

Images have been corrected for flat and dark where the file says so; the open beam counts 2^bits.  The
size of a pixel at the object, which is calibrated, counts more than the camera's.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..formats import CT, Format, register
from ..geometry import ParallelBeam, RayGeometry
from ..preparation.rays import RayScan, measurement_of_rays
from ..preparation.told import Told
from ..scans import Measurement
from .circles import circle
from .companions import Entries, glance, sections
from .image_stack import images_by_name, stack_of
from .tiff import is_tiff

_FAR_MM = 1e5  # from source to object, that stand for parallel beams
_UNLIKE = 0.02


def read_bruker(path: Path, axis: float | None = None, prepare: str | None = None) -> Measurement:
    """The scan.  Raises InputError that names the entry which is missing or does not fit."""
    parts = sections(path)
    told = Entries(path, {**parts.get("system", {}), **parts.get("acquisition", {})}, " in [Acquisition]")
    rows, columns = told.whole("Number of Rows"), told.whole("Number of Columns")
    files = _images(path, told)
    views = len(files)
    step = told.number("Rotation Step (deg)")
    angles = told.number("Scanning Start Angle", 0.0) + step * np.arange(views)
    remarks: list[str] = []
    if views != told.whole("Number of Files"):
        remarks.append(
            f"the log tells of {told.whole('Number of Files')} files, {views} images of its prefix are there"
        )
    geometry = _geometry(told, angles, rows, columns, remarks)
    scan = RayScan(str(path), "Bruker SkyScan", stack_of(files, (rows, columns)), geometry, "counts", remarks=remarks)
    scan.white = told.number("Reference Intensity", 0.0) or 2.0 ** told.whole("Depth (bits)", 64, 16) - 1
    scan.guessed.append(f"open beam of {scan.white:g} counts, by the log's depth or reference intensity")
    scan.sense_known = False
    scan.flip((-2,))
    return measurement_of_rays(scan, Told(axis=axis, prepare=prepare))


def _geometry(told: Entries, angles: np.ndarray, rows: int, columns: int, remarks: list[str]) -> RayGeometry:
    sod = told.positive("Object to Source (mm)")
    at_object = told.positive("Image Pixel Size (um)") / 1000
    if sod >= _FAR_MM:
        return ParallelBeam(tuple(float(a) for a in angles), columns, at_object)
    sdd = told.positive("Camera to Source (mm)")
    pitch = at_object * sdd / sod
    if told.has("Camera Pixel Size (um)"):
        binned = re.match(r"(\d+)", told.word("Camera binning", "1"))
        camera = told.positive("Camera Pixel Size (um)") / 1000 * int(binned.group() if binned else 1)
        if abs(camera / pitch - 1) > _UNLIKE:
            remarks.append(
                f"pixels of {at_object * 1000:.4g} um at the object ask for {pitch * 1000:.4g} um at the camera, which "
                f"has {camera * 1000:.4g} um; those at the object count"
            )
    middle = told.number("Optical Axis (line)", rows / 2)
    return circle(angles, (rows, columns), (pitch, pitch), sod, sdd, row_offset_mm=(rows / 2 - middle) * pitch)


def _images(path: Path, told: Entries) -> list[Path]:
    prefix = told.word("Filename Prefix", path.stem)
    name = re.compile(re.escape(prefix) + r"\d+\.tiff?$", re.IGNORECASE)
    files = [p for p in sorted(path.parent.iterdir()) if name.match(p.name) and is_tiff(p)]
    if not files:
        raise InputError(f"{path}: no images {prefix[:60]}0000.tif are beside it; copy them there")
    return images_by_name(files)


def is_bruker(path: Path) -> bool:
    """Whether a log is one of these scanners."""
    begin = glance(path, 1 << 14).lower()
    return "[acquisition]" in begin and "rotation step (deg)" in begin


register(Format("Bruker SkyScan", CT, (".log",), read_bruker, is_bruker, asks=("axis", "prepare")))
