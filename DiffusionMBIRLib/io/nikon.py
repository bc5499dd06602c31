"""Nikon (X-Tek) scans: .xtekct beside TIFF images that are named after it or lie in the folder that it names.

Images are seen from the detector's side, rows from the top; flat and dark corrections are done, the open beam counts
WhiteLevel.  New files tell the axis as ObjectOffsetX (mm at the object) and ObjectRoll, old ones as
CentreOfRotationTop and -Bottom (mm at the detector).  The sense of rotation changed between versions: views tell.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from ..formats import CT, Format, register
from ..preparation.rays import RayScan, measurement_of_rays
from ..preparation.told import Told
from ..scans import Measurement
from .circles import circle
from .companions import Entries, companion, glance, sections
from .image_stack import images_by_name, stack_of
from .tiff import is_tiff

_SECTION = "xtekct"


def read_xtekct(path: Path, axis: float | None = None, prepare: str | None = None) -> Measurement:
    """The scan.  Raises InputError that names the entry which is missing or does not fit."""
    told = Entries(path, sections(path).get(_SECTION, {}), " in [XTekCT]")
    views, rows, columns = (told.whole(k) for k in ("Projections", "DetectorPixelsY", "DetectorPixelsX"))
    pitch = told.positive("DetectorPixelSizeY"), told.positive("DetectorPixelSizeX")
    sod, sdd = told.positive("SrcToObject"), told.positive("SrcToDetector")
    files = _images(path, told)
    if len(files) != views:
        raise InputError(f"{path}: tells of {views} projections, {len(files)} images are there; copy the others")
    angles = -told.number("InitialAngle", 0.0) - told.number("AngularStep") * np.arange(views)
    offset, roll = _axis(told, rows * pitch[0], sod / sdd)
    geometry = circle(angles, (rows, columns), pitch, sod, sdd, offset_mm=offset, roll_deg=roll)
    scan = RayScan(str(path), "Nikon X-Tek", stack_of(files, (rows, columns)), geometry, "counts")
    scan.white = told.number("WhiteLevel", 0.0) or None
    scan.axis_known, scan.sense_known = offset != 0.0, False
    scan.flip((-2, -1))
    return measurement_of_rays(scan, Told(axis=None if axis is None else columns - 1 - axis, prepare=prepare))


def _axis(told: Entries, height_mm: float, shrink: float) -> tuple[float, float]:
    """(shift of the detector in mm, turn in its plane in degrees) that put the axis where the file says."""
    if told.has("ObjectOffsetX"):
        return told.number("ObjectOffsetX") / shrink, told.number("ObjectRoll", 0.0)
    top, bottom = told.number("CentreOfRotationTop", 0.0), told.number("CentreOfRotationBottom", 0.0)
    return (top + bottom) / 2, -float(np.degrees(np.arctan2(top - bottom, height_mm)))


def _images(path: Path, told: Entries) -> list[Path]:
    named = told.word("InputFolderName", "")
    folder = companion(path, named, "InputFolderName") if named else path.parent
    if not folder.is_dir():
        raise InputError(f"{path}: InputFolderName {named[:80]} is no folder")
    prefix = told.word("Name", path.stem)
    there = [p for p in sorted(folder.iterdir()) if is_tiff(p)]
    own = [p for p in there if p.stem.startswith(prefix)]
    return images_by_name(own or there)


register(
    Format(
        "Nikon X-Tek", CT, (".xtekct",), read_xtekct, lambda path: "xtekct" in glance(path).lower(),
        asks=("axis", "prepare"),
    )
)  # fmt: skip
