"""Scans for LEAP: a text of key = value lines that tells the geometry, beside raw numbers or TIFF images.

The text lies beside the images and may name them (images = NAME); else the only ones there are taken.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from ..formats import CT, Format, register
from ..geometry import FanBeam, HelicalCone, ParallelBeam, RayGeometry
from ..preparation.rays import RayScan, measurement_of_rays
from ..preparation.told import Told
from ..scans import Measurement
from .circles import circle
from .companions import Entries, companion, glance, numbers_in, sections
from .image_stack import read_images, read_raw
from .tiff import is_tiff

_RAW = (".raw", ".bin", ".dat")


def read_leap(path: Path, axis: float | None = None, prepare: str | None = None) -> Measurement:
    """The scan.  Raises InputError that names the entry which is missing or does not fit."""
    told = Entries(path, sections(path)[""])
    views, rows, columns = (told.whole(k) for k in ("numAngles", "numRows", "numCols"))
    image = _images(path, told)
    shape = (views, rows, columns)
    raw = not image.is_dir() and image.name.lower().endswith(_RAW)
    counts = read_raw(image, shape, "float32") if raw else read_images(image)
    if counts.shape != shape:
        raise InputError(f"{image}: holds images of {counts.shape}; {path.name} tells of {shape}")
    geometry = _geometry(path, told, views, rows, columns)
    scan = RayScan(str(path), "LEAP", counts, geometry)
    scan.axis_known = told.has("centerCol")
    return measurement_of_rays(scan, Told(axis=axis, prepare=prepare))


def _images(path: Path, told: Entries) -> Path:
    if told.has("images"):
        return companion(path, told.word("images"), "images")
    there = [p for p in sorted(path.parent.iterdir()) if p.name.lower().endswith((*_RAW, ".npy")) and p.is_file()]
    if len(there) == 1:
        return there[0]
    if not there and any(is_tiff(p) for p in path.parent.iterdir()):
        return path.parent
    raise InputError(f"{path}: which file holds its images is not clear; add a line images = NAME")


def _geometry(path: Path, told: Entries, views: int, rows: int, columns: int) -> RayGeometry:
    kind = told.word("geometry").strip().lower()
    pitch = told.positive("pixelHeight"), told.positive("pixelWidth")
    angles = _angles(path, told, views)
    offset = ((columns - 1) / 2 - told.number("centerCol", (columns - 1) / 2)) * pitch[1]
    row_offset = ((rows - 1) / 2 - told.number("centerRow", (rows - 1) / 2)) * pitch[0]
    listed = tuple(float(a) for a in angles)
    if kind == "parallel":
        return ParallelBeam(listed, columns, pitch[1], offset)
    if kind not in ("fan", "cone"):
        raise InputError(f"{path}: geometry must be parallel, fan or cone, not {kind[:40]!r}")
    sod, sdd = told.positive("sod"), told.positive("sdd")
    offset += told.number("tau", 0.0) * sdd / sod  # the axis beside the central ray
    arc = "curved" in told.word("detectorType", "flat").lower()
    if kind == "fan":
        return FanBeam(listed, columns, pitch[1], sod, sdd, offset, arc)
    pitch_per_radian = told.number("helicalPitch", 0.0)  # mm
    if not pitch_per_radian:
        if arc:
            raise InputError(f"{path}: a curved detector of many rows is read on a helix only")
        return circle(angles, (rows, columns), pitch, sod, sdd, offset_mm=offset, row_offset_mm=row_offset)
    travel = pitch_per_radian * 2 * np.pi
    return HelicalCone(
        listed, rows, columns, pitch[1], pitch[0], sod, sdd, offset, row_offset, arc=arc, travel_mm=travel,
        start_mm=-travel * float(angles[0] + angles[-1]) / 720,
    )  # fmt: skip


def _angles(path: Path, told: Entries, views: int) -> np.ndarray:
    """LEAP's source stands on x at angle 0, ours on -y: a quarter turn."""
    if told.has("phis"):
        angles = numbers_in(path, told.word("phis"))
        if len(angles) != views:
            raise InputError(f"{path}: phis lists {len(angles)} angles, numAngles says {views}; make them equal")
    else:
        span = told.number("angularRange")
        angles = told.number("startAngle", 0.0) + span * np.arange(views) / views
    return angles + 90.0


def is_leap(path: Path) -> bool:
    """Whether a text tells of a geometry of LEAP."""
    begin = glance(path)
    return all(key in begin for key in ("numAngles", "numRows", "numCols", "pixelWidth"))


register(Format("LEAP", CT, (".txt",), read_leap, is_leap, asks=("axis", "prepare")))
