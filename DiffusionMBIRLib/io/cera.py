"""Scans for CERA: a .config file that names the images and tells a circle; its projection matrices are not read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from ..formats import CT, Format, register
from ..preparation.rays import RayScan, measurement_of_rays
from ..preparation.told import Told
from ..scans import Measurement
from .circles import circle
from .companions import Entries, companion, counted_names, glance, sections
from .image_stack import read_images, read_raw, stack_of

_TRUE = ("true", "1", "yes")
_RAW = {"raw_uint16": "uint16", "raw_float": "float32", "raw": "float32", "uint16": "uint16", "float": "float32"}


def read_cera(path: Path, axis: float | None = None, prepare: str | None = None) -> Measurement:
    """The scan.  Raises InputError that names the entry which is missing or does not fit."""
    parts = sections(path)
    images, keys, ring = (
        Entries(path, parts.get(name, {}), f" in [{name}]")
        for name in ("projections", "customkeys", "customkeys.projectionmatrices")
    )
    rows, columns = images.whole("NumRows"), images.whole("NumChannelsPerRow")
    views = keys.whole("NumProjections", 1 << 16)
    pitch = images.positive("PixelSizeV"), images.positive("PixelSizeU")
    sense = {"CW": -1.0, "CCW": 1.0}.get(ring.word("AquisitionDirection", "CW").strip().upper())
    if sense is None:
        raise InputError(f"{path}: AquisitionDirection must be CW or CCW")
    step = ring.number("ScanAngle", 360.0) / views
    angles = ring.number("StartAngle", 0.0) + sense * step * np.arange(views)
    geometry = circle(
        angles, (rows, columns), pitch, ring.positive("SourceObjectDistance"), ring.positive("SourceImageDistance"),
        offset_mm=-ring.number("DetectorOffsetU", 0.0) * pitch[1],
        row_offset_mm=-ring.number("DetectorOffsetV", 0.0) * pitch[0],
    )  # fmt: skip
    counted = images.word("ProjectionDataDomain", "Intensity").strip().lower() == "intensity"
    counts = _counts(path, images, keys, (views, rows, columns))
    scan = RayScan(str(path), "CERA", counts, geometry, "counts" if counted else "lines")
    if counted:
        scan.white = Entries(path, parts.get("i0log", {}), " in [I0Log]").positive("GlobalI0Value")
    scan.sense_known = False
    scan.guessed.append("the circle that the file tells; projection matrices are not read")
    flips = [("FlipV", -2), ("FlipU", -1)]
    # Without a flip, rows run down.
    scan.flip(tuple(k for name, k in flips if (images.word(name, "false").strip().lower() in _TRUE) == (k == -1)))
    return measurement_of_rays(scan, Told(axis=axis, prepare=prepare))


def _counts(path: Path, images: Entries, keys: Entries, shape: tuple[int, int, int]) -> np.ndarray:
    mask = keys.word("ProjectionFilenameMask").strip()
    kind = keys.word("ProjectionFileType", "tiff").strip().lower()
    first = int(keys.number("ProjectionStartNum", 0))
    names = counted_names(path, mask, range(first, first + shape[0]), "ProjectionFilenameMask")
    files = [companion(path, name, "ProjectionFilenameMask") for name in names]
    if kind in _RAW:
        big = images.word("BigEndian", "false").strip().lower() in _TRUE
        skip = int(images.number("RawHeaderSize", 0))
        each = (shape[0] // len(files), *shape[1:])
        return np.concatenate([read_raw(f, each, _RAW[kind], skip=skip, big_endian=big) for f in files])
    return stack_of(files, shape[1:]) if len(files) > 1 else read_images(files[0])


register(
    Format("CERA", CT, (".config",), read_cera, lambda path: "#CERACONFIG" in glance(path), asks=("axis", "prepare"))
)
