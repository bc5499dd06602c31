"""Projections in TIFF, raw or NumPy files with a small TOML file that tells their geometry, whatever it is.

    images = "views"            # a folder of TIFF images, a TIFF stack, .npy, .mha, or a raw file with [raw]
    flat = "flat.tif"           # images without the object, and without a beam; a file, a folder or several
    dark = "dark.tif"
    values = "counts"           # or "line integrals"; told by the values where it is left out

    [geometry]                  # kind and fields as in our own scan files
    kind = "cone-beam"
    angles_deg = { first = 0.0, step = 0.5 }   # or a list, or the name of a text file
    pitch_mm = 0.2
    row_pitch_mm = 0.2
    sod_mm = 250.0
    sdd_mm = 500.0

Further: [raw] shape (views, rows, columns), type, skip (bytes), big_endian; [grid] shape and spacing_mm;
mu_water_per_mm of medical scans, whose values are HU; photons; slice_mm of stacks of slices; flip =
"rows", "columns" or "rows and columns";
geometry.poses, a text file with twelve numbers a view of a posed beam: source, centre, columns' and rows' direction.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, one_line
from ..formats import CT, Format, register
from ..geometry import Grid, RayGeometry, geometry_from_dict, geometry_kind
from ..preparation.field_of_view import centred_grid
from ..preparation.rays import RayScan, measurement_of_rays
from ..preparation.told import Told
from ..scans import Measurement
from .companions import companion, glance, numbers_in, text_of_file
from .image_stack import read_images, read_raw

_KEYS = {
    "images", "flat", "dark", "values", "geometry", "raw", "grid", "mu_water_per_mm", "photons", "slice_mm", "flip",
    "white",
}  # fmt: skip
_VALUES = {"counts": "counts", "line integrals": "lines", "": ""}
_POSES = ("sources_mm", "centres_mm", "columns_along", "rows_along")


def read_toml_scan(path: Path, axis: float | None = None, prepare: str | None = None) -> Measurement:
    """The scan.  Raises InputError that names the file and the entry which is missing, unknown or does not fit."""
    entries = _entries(path)
    counts = _images(path, entries, "images", entries.get("raw"))
    values = _VALUES.get(str(entries.get("values", "")))
    if values is None:
        raise InputError(f'{path}: values must be "counts" or "line integrals", not {entries["values"]!r}')
    geometry = _geometry(path, entries, counts.shape)
    scan = RayScan(str(path), "geometry in TOML", counts, geometry, values)
    if "flat" in entries:
        flats = _images(path, entries, "flat", None)
        scan.flat = flats.mean(axis=0)
    if "dark" in entries:
        scan.dark = _images(path, entries, "dark", None).mean(axis=0)
    for key, field in (
        ("mu_water_per_mm", "water"),
        ("photons", "photons"),
        ("slice_mm", "slice_mm"),
        ("white", "white"),
    ):
        if key in entries:
            setattr(scan, field, _number(path, entries, key))
    if "flat" in entries:
        scan.weigh_by(flats)
    scan.grid = _grid(path, entries.get("grid"))
    scan.axis_known = getattr(geometry, "offset_mm", 0.0) != 0.0 or "offset_mm" in entries["geometry"]
    _flip(path, scan, str(entries.get("flip", "")))
    return measurement_of_rays(scan, Told(axis=axis, prepare=prepare))


def is_toml_scan(path: Path) -> bool:
    """Whether a text looks like such a file."""
    begin = glance(path)
    return "[geometry]" in begin or "images" in begin


def _entries(path: Path) -> dict[str, Any]:
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        entries = tomllib.loads(text_of_file(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path}: is no TOML ({one_line(error, 120)}); mend it") from None
    unknown = sorted(set(entries) - _KEYS)
    if unknown:
        raise InputError(f"{path}: the entry {unknown[0]!r} is not known; {', '.join(sorted(_KEYS))} are")
    for key in ("images", "geometry"):
        if key not in entries:
            raise InputError(f"{path}: lacks the entry {key}")
    for key in ("geometry", "raw", "grid"):
        if key in entries and not isinstance(entries[key], dict):
            raise InputError(f"{path}: {key} must be a table, [{key}]")
    return entries


def _number(path: Path, entries: dict[str, Any], key: str) -> float:
    value = entries[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < np.inf:
        raise InputError(f"{path}: {key} must be a positive number, not {one_line(repr(value), 60)}")
    return float(value)


def _images(path: Path, entries: dict[str, Any], key: str, raw: Any) -> np.ndarray:
    named = entries[key] if isinstance(entries[key], list) else [entries[key]]
    if not named or not all(isinstance(name, str) for name in named):
        raise InputError(f"{path}: {key} must be the name of a file or folder, or a list of them")
    places = [companion(path, name, key) for name in named]
    if raw is not None:
        shape = raw.get("shape", [])
        whole = isinstance(shape, list) and all(isinstance(n, int) and 0 < n < 1 << 24 for n in shape)
        if not whole or len(shape) != 3:
            raise InputError(f"{path}: raw.shape must be three whole numbers, (views, rows, columns)")
        if set(raw) - {"shape", "type", "skip", "big_endian"}:
            raise InputError(f"{path}: [raw] may hold shape, type, skip and big_endian")
        skip = raw.get("skip", 0)
        if not isinstance(skip, int):
            raise InputError(f"{path}: raw.skip must be a whole number of bytes")
        kind, big = str(raw.get("type", "uint16")), bool(raw.get("big_endian"))
        return read_raw(places[0], tuple(shape), kind, skip=skip, big_endian=big)
    stacks = [read_images(place) for place in places]
    if len({stack.shape[1:] for stack in stacks}) > 1:
        raise InputError(f"{path}: the images of {key} have unlike sizes")
    return np.concatenate(stacks) if len(stacks) > 1 else stacks[0]


def _geometry(path: Path, entries: dict[str, Any], shape: tuple[int, ...]) -> RayGeometry:
    told = dict(entries["geometry"])
    try:
        cls = geometry_kind(str(told.get("kind", "")))
        if not issubclass(cls, RayGeometry):
            raise InputError(f"geometry.kind {cls.KIND!r} is not one of rays")
        told.setdefault("columns", shape[2])
        if not cls.STACKED:
            told.setdefault("rows", shape[1])
            told.setdefault("row_pitch_mm", told.get("pitch_mm"))
        if "poses" in told:
            told |= _poses(path, told.pop("poses"))
        told["angles_deg"] = _angles(path, told.get("angles_deg"), shape[0])
        known = set(cls.__dataclass_fields__) | {"kind"}
        unknown = sorted(set(told) - known)
        if unknown:
            raise InputError(f"geometry.{unknown[0]} is not known of {cls.KIND}; {', '.join(sorted(known))} are")
        found = geometry_from_dict(told)
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {one_line(error)}") from None
    assert isinstance(found, RayGeometry)
    return found


def _angles(path: Path, told: Any, views: int) -> list[float]:
    if isinstance(told, str):
        return [float(a) for a in numbers_in(companion(path, told, "geometry.angles_deg"))]
    if isinstance(told, dict):
        if set(told) != {"first", "step"} or not all(isinstance(v, int | float) for v in told.values()):
            raise InputError(f"{path}: geometry.angles_deg needs first and step, two numbers of degrees")
        return [float(told["first"] + k * told["step"]) for k in range(views)]
    if not isinstance(told, list):
        raise InputError(f"{path}: geometry.angles_deg must be a list, {{ first, step }} or the name of a text file")
    return told


def _poses(path: Path, told: Any) -> dict[str, Any]:
    listed = numbers_in(companion(path, str(told), "geometry.poses"))
    if not listed.size or listed.size % 12:
        raise InputError(f"{path}: geometry.poses must hold twelve numbers a view, it has {listed.size} in all")
    vectors = listed.reshape(-1, 4, 3)
    found: dict[str, Any] = {name: vectors[:, k] for k, name in enumerate(_POSES)}
    angles = np.degrees(np.arctan2(vectors[:, 0, 0], -vectors[:, 0, 1]))
    return {**found, "angles_deg": angles.tolist()}


def _grid(path: Path, told: Any) -> Grid | None:
    if told is None:
        return None
    try:
        if set(told) <= {"shape", "spacing_mm"}:
            x, y, z = (float(s) for s in told["spacing_mm"])
            return centred_grid(tuple(told["shape"]), (x, y, z))
        return Grid.from_dict(told)
    except (KeyError, TypeError, ValueError) as error:
        reason = one_line(error) if isinstance(error, InputError) else "shape and spacing_mm must be three numbers each"
        raise InputError(f"{path}: grid: {reason}") from None


_FLIPS = {"": (), "rows": (-2,), "columns": (-1,), "rows and columns": (-2, -1)}


def _flip(path: Path, scan: RayScan, told: str) -> None:
    if told not in _FLIPS:
        raise InputError(f"{path}: flip must be one of {', '.join(map(repr, _FLIPS))}, not {told!r}")
    scan.flip(_FLIPS[told])


register(Format("geometry in TOML", CT, (".toml",), read_toml_scan, is_toml_scan, asks=("axis", "prepare")))
