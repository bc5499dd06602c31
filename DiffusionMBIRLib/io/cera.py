"""Scans for CERA: a .config file that names the images, and tells a circle or names a table of projection matrices.

A matrix (3 x 4) leads from mm to columns and rows of the detector, whose rows then run upwards; both count from the
detector's lower left corner, as CTSimU writes them.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..formats import CT, Format, register
from ..geometry import PosedBeam, Poses, RayGeometry
from ..preparation.rays import RayScan, measurement_of_rays
from ..preparation.told import Told
from ..scans import Measurement
from .circles import circle
from .companions import Entries, companion, counted_names, glance, numbers_in, sections, text_of_file
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
    circular = circle(
        angles, (rows, columns), pitch, ring.positive("SourceObjectDistance"), ring.positive("SourceImageDistance"),
        offset_mm=-ring.number("DetectorOffsetU", 0.0) * pitch[1],
        row_offset_mm=-ring.number("DetectorOffsetV", 0.0) * pitch[0],
    )  # fmt: skip
    table = ring.word("ProjectionMatrixFilename", "").strip()
    geometry: RayGeometry = circular
    if table:
        matrices = _matrices(companion(path, table, "ProjectionMatrixFilename"), views)
        geometry = PosedBeam.of(poses_of(matrices, (rows, columns), pitch[1]), rows, columns)
    counted = images.word("ProjectionDataDomain", "Intensity").strip().lower() == "intensity"
    counts = _counts(path, images, keys, (views, rows, columns))
    scan = RayScan(str(path), "CERA", counts, geometry, "counts" if counted else "lines")
    if counted:
        scan.white = Entries(path, parts.get("i0log", {}), " in [I0Log]").positive("GlobalI0Value")
    scan.sense_known = bool(table)
    if not table:
        scan.guessed.append("the circle that the file tells")
    flips = [("FlipV", -2), ("FlipU", -1)]
    # Without a flip, rows run down.
    scan.flip(tuple(k for name, k in flips if (images.word(name, "false").strip().lower() in _TRUE) == (k == -1)))
    return measurement_of_rays(scan, Told(axis=axis, prepare=prepare))


def _matrices(path: Path, views: int) -> np.ndarray:
    """The matrices (views, 3, 4) of a table: each after a line @NUMBER and one of two numbers."""
    blocks = re.split(r"^@\s*\d+[^\n]*\n", text_of_file(path), flags=re.MULTILINE)[1:]
    if len(blocks) != views:
        raise InputError(f"{path}: holds {len(blocks)} matrices for {views} images; is it the table of this scan?")
    found = [numbers_in(path, block) for block in blocks]
    if any(len(numbers) != 14 or not np.isfinite(numbers).all() for numbers in found):
        raise InputError(f"{path}: after each line @NUMBER two numbers and a matrix of three lines are needed")
    return np.array(found)[:, 2:].reshape(views, 3, 4)


def poses_of(matrices: np.ndarray, detector: tuple[int, int], pitch_mm: float) -> Poses:
    """Where source and detector (rows, columns) stand by projection matrices (views, 3, 4) that lead from mm to columns
    and rows, both from the corner of the first pixel; the matrices alone do not tell how large columns are.

    The source is what a matrix maps to nothing, and a place (u, v) lies along the inverse of its left part times
    (u, v, 1) from it.  Raises InputError for a matrix that projects nothing.
    """
    left = matrices[:, :, :3]
    if np.abs(np.linalg.det(left / np.abs(left).max(axis=(1, 2), keepdims=True))).min() < 1e-12:
        raise InputError("projection matrices: one of them is singular; is the table damaged?")
    back = np.linalg.inv(left)
    source = -np.einsum("vij,vj->vi", back, matrices[:, :, 3])
    u, v, origin = back[:, :, 0], back[:, :, 1], back[:, :, 2]
    middle = detector[1] / 2 * u + detector[0] / 2 * v + origin
    ahead = np.sign(-(middle * source).sum(axis=1))  # the object stands at the origin, before the source
    scale = (ahead * pitch_mm / np.linalg.norm(u, axis=1))[:, None]
    return Poses(source + scale * middle, scale * u, scale * v, source=source)


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
