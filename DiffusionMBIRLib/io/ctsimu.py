"""Cone-beam scans with metadata of CTSimU: a JSON file that names raw images and, with its scenario, the geometry.

The scenario tells where source, stage and detector stand, each with a direction of u (columns) and w (normal); the
stage's w is the rotation axis.  Units are those of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, one_line
from ..formats import CT, Format, register
from ..geometry import RayGeometry
from ..preparation.rays import RayScan, measurement_of_rays
from ..preparation.told import Told
from ..scans import Measurement
from ..schema import json_object
from .circles import geometry_of
from .companions import companion, counted_names, glance, text_of_file
from .image_stack import read_raw

_MM = {"mm": 1.0, "m": 1e3, "cm": 10.0, "um": 1e-3, "nm": 1e-6}
_MOST_IMAGES = 1 << 16


def read_ctsimu(path: Path, axis: float | None = None, prepare: str | None = None) -> Measurement:
    """The scan of a metadata file.  Raises InputError that names the entry which is missing or does not fit."""
    metadata = _Entry(path, json_object(text_of_file(path), str(path)))
    images = metadata.at("output", "projections")
    columns, rows = (int(images.length("dimensions", side)) for side in ("x", "y"))
    views = int(images.number("number"))
    counts = _images(path, images, str(images.value("filename")), (views, rows, columns))
    scenario_path = _scenario(path, metadata)
    scenario = _Entry(scenario_path, json_object(text_of_file(scenario_path), str(scenario_path)))
    geometry, flips = _geometry(scenario, images, views, rows, columns)
    scan = RayScan(str(path), "CTSimU", counts, geometry, "counts")
    scan.axis_known = True
    corrected = bool(images.at("flat_field").value("projections_corrected", False))
    if not corrected:
        for kind in ("flat", "dark"):
            setattr(scan, kind, _references(path, images, kind, rows, columns))
    if scan.flat is None:
        scan.white = images.number("max_intensity")
        scan.remarks.append(f"no flat images: an open beam of {scan.white:g} counts, as the file tells")
    scan.flip(flips)
    return measurement_of_rays(scan, Told(axis=axis, prepare=prepare))


@dataclass(frozen=True)
class _Entry:
    """An object of a JSON file; each complaint names the file and the entry."""

    path: Path
    entries: Any
    where: str = ""

    def at(self, *names: str) -> _Entry:
        found = self
        for name in names:
            inner = found.value(name)
            if not isinstance(inner, dict):
                raise InputError(f"{self.path}: {found.where}{name} must be an object")
            found = _Entry(self.path, inner, f"{found.where}{name}.")
        return found

    def value(self, name: str, default: Any = None) -> Any:
        value = self.entries.get(name, default)
        if value is None:
            raise InputError(f"{self.path}: lacks the entry {self.where}{name}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self.value(name, default)
        value = value.get("value") if isinstance(value, dict) else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
            raise InputError(f"{self.path}: {self.where}{name} must be a number, not {one_line(repr(value), 60)}")
        return float(value)

    def length(self, *names: str) -> float:
        """A number of mm, or of pixels."""
        holder = self.at(*names[:-1])
        inner = holder.value(names[-1])
        unit = inner.get("unit", "") if isinstance(inner, dict) else ""
        if unit not in ("", "px", None) and unit not in _MM:
            raise InputError(
                f"{self.path}: {holder.where}{names[-1]} has the unit {unit!r}; {', '.join(_MM)} are known"
            )
        return holder.number(names[-1]) * _MM.get(unit or "", 1.0)

    def vector(self, name: str) -> np.ndarray:
        return np.array([self.length(name, part) for part in "xyz"])


def _scenario(path: Path, metadata: _Entry) -> Path:
    """The scenario that the metadata name; the name is that of another folder where both were made, so also beside."""
    named = str(metadata.at("acquisition_geometry").value("path_to_CTSimU_JSON"))
    beside = path.with_name(named.replace("\\", "/").rpartition("/")[2])
    return beside if beside.is_file() and beside != path else companion(path, named, "path_to_CTSimU_JSON")


def _images(path: Path, told: _Entry, name: str, shape: tuple[int, int, int]) -> np.ndarray:
    if min(shape) < 1 or max(shape) > _MOST_IMAGES:
        raise InputError(f"{path}: announces images of {shape}; is it damaged?")
    skip = told.at("headersize")
    if skip.number("image", 0):
        raise InputError(f"{path}: images with headers of their own are not read; save them without")
    big = str(told.value("byteorder", "little")) == "big"
    files = counted_names(path, name, range(shape[0]), "filename")
    each = (1, *shape[1:]) if len(files) > 1 else shape
    kind, bytes_before = str(told.value("datatype")), int(skip.number("file", 0))
    found = [read_raw(companion(path, f, "filename"), each, kind, skip=bytes_before, big_endian=big) for f in files]
    return found[0] if len(found) == 1 else np.concatenate(found)


def _references(path: Path, images: _Entry, kind: str, rows: int, columns: int) -> np.ndarray | None:
    told = images.at(f"{kind}_field")
    if not told.entries.get("filename") or told.entries.get("number") in (0, None):
        return None
    number = int(told.number("number"))
    return np.asarray(
        _images(path, _Entry(path, {**images.entries}), str(told.value("filename")), (number, rows, columns)).mean(
            axis=0
        )
    )


def _geometry(
    scenario: _Entry, images: _Entry, views: int, rows: int, columns: int
) -> tuple[RayGeometry, tuple[int, ...]]:
    place = scenario.at("geometry")
    source, stage, detector = (place.at(part) for part in ("source", "stage", "detector"))
    for part in (source, stage, detector):
        if part.entries.get("deviations"):
            raise InputError(f"{scenario.path}: {part.where}deviations are not read; leave them out")
    taken = scenario.at("acquisition")
    first, last = taken.number("start_angle"), taken.number("stop_angle")
    steps = views - 1 if taken.value("include_final_angle", False) is True and views > 1 else views
    sense = {"CCW": 1.0, "CW": -1.0}.get(str(taken.value("direction", "CCW")))
    if sense is None:
        raise InputError(f"{scenario.path}: acquisition.direction must be CCW or CW")
    # Turning the stage one way is turning source and detector the other way.
    angles = -sense * (first + (last - first) * np.arange(views) / steps)
    pitch = [images.length("pixelsize", side) for side in ("x", "y")]
    normal = _unit(scenario, detector, "vector_w")
    u = _unit(scenario, detector, "vector_u")
    v = np.cross(normal, u)
    axis = _unit(scenario, stage, "vector_w")
    return geometry_of(
        str(scenario.path), source.vector("center"), detector.vector("center"), u * pitch[0], v * pitch[1],
        stage.vector("center"), axis, angles, rows, columns,
    )  # fmt: skip


def _unit(scenario: _Entry, part: _Entry, name: str) -> np.ndarray:
    vector = part.vector(name)
    size = float(np.linalg.norm(vector))
    if not size > 0:
        raise InputError(f"{scenario.path}: {part.where}{name} is no direction")
    return vector / size


def is_ctsimu(path: Path) -> bool:
    """Whether a JSON file is CTSimU's metadata of images."""
    return "CTSimU Metadata" in glance(path)


register(Format("CTSimU", CT, (".json",), read_ctsimu, is_ctsimu, asks=("axis", "prepare")))
