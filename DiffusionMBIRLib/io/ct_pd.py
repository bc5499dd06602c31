"""DICOM-CT-PD: projections of medical scanners, one DICOM file a view in one folder, by the published dictionary.

In the cylinder of the dictionary x = -rho sin(phi) and y = rho cos(phi), so that the source at phi stands where ours
does at phi + 180 degrees.  The focal spot may fly: each view's shift of the source lies beside the place of the
detector's focal centre.  Columns of larger number lie towards larger angles as seen from the source.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..formats import CT, Format, register
from ..geometry import ConeBeam, HelicalCone, PosedBeam, Poses, RayGeometry
from ..host_memory import require_room
from ..preparation.rays import RayScan, measurement_of_rays
from ..preparation.told import Told
from ..scans import Measurement

_PITCH, _ROW_PITCH, _SHAPE = (0x7029, 0x1002), (0x7029, 0x1006), (0x7029, 0x100B)
_ROWS, _COLUMNS = (0x7029, 0x1010), (0x7029, 0x1011)
_PHI, _Z, _RHO = (0x7031, 0x1001), (0x7031, 0x1002), (0x7031, 0x1003)
_SDD, _CENTRE = (0x7031, 0x1031), (0x7031, 0x1033)
_SPOT = ((0x7033, 0x100B), (0x7033, 0x100C), (0x7033, 0x100D))  # shifts of phi, rho and z
_PHOTONS, _WATER = (0x7033, 0x1065), (0x7041, 0x1001)
_SHAPES = {"CYLINDRICAL": True, "FLAT": False}
_SAME_MM = 1e-3
_MOST_FILES = 1 << 18
_SUFFIXES = (".dcm", ".ima", "")


@dataclass(frozen=True)
class _View:
    """What a file tells of its view: phi, rho and z of the detector's focal centre and shifts of the source."""

    path: Path
    number: int
    place: np.ndarray
    spot: np.ndarray


def read_ct_pd(folder: Path, prepare: str | None = None) -> Measurement:
    """The scan.  Raises InputError that names the file and the tag which is missing or does not fit."""
    with warnings.catch_warnings():  # pydicom's, on tags that are checked here anyway
        warnings.simplefilter("ignore")
        scan = _scan(folder)
    return measurement_of_rays(scan, Told(prepare=prepare))


def _scan(folder: Path) -> RayScan:
    files = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in _SUFFIXES and p.is_file()]
    headers = [(p, _header(p)) for p in files[:_MOST_FILES]]
    views = sorted((_view(p, h) for p, h in headers), key=lambda view: view.number)
    if len({view.number for view in views}) < len(views):
        raise InputError(f"{folder}: two files have the same InstanceNumber; is it one scan?")
    first = _header(views[0].path)
    path = views[0].path
    rows, columns = (int(_number(path, first, tag)) for tag in (_ROWS, _COLUMNS))
    require_room(str(folder), (len(views), rows, columns), 8)
    lines = np.empty((len(views), rows, columns), np.float32)
    for k, view in enumerate(views):
        lines[k] = _lines(view.path, rows, columns)
    geometry = _geometry(path, first, views, rows, columns)
    scan = RayScan(str(folder), "DICOM-CT-PD", lines, geometry, "lines", axis_known=True)
    scan.guessed.append("line integrals, as the dictionary says, and columns towards larger angles")
    scan.water = _optional(path, first, _WATER)
    if scan.water is not None and not 1e-3 < scan.water < 1:
        scan.remarks.append(f"attenuation of water {scan.water:g} / mm in the files is not used")
        scan.water = None
    photons = _photons(views, columns)
    if photons is not None:
        scan.photons = float(photons[photons > 0].mean())
        scan.photon_profile = (photons / scan.photons)[:, None, :]
    scan.flip((-1,))
    return scan


def _header(path: Path, pixels: bool = False) -> Any:
    import pydicom

    try:
        return pydicom.dcmread(path, stop_before_pixels=not pixels)
    except Exception as error:  # pydicom lets pass whatever its parser runs into
        raise InputError(f"{path}: cannot be read as DICOM; is it truncated? Copy it again") from error


def _values(path: Path, header: Any, tag: tuple[int, int]) -> np.ndarray | None:
    """Numbers of a private tag, which is stored as bytes where no dictionary tells its type; None where it lacks."""
    try:
        element = header.get(tag)
        value = None if element is None else element.value
        if value is None or (isinstance(value, str | bytes) and not value):
            return None
        if isinstance(value, bytes):
            if len(value) == 2:
                return np.frombuffer(value, "<u2").astype(float)
            return np.frombuffer(value, "<f4").astype(float)
        return np.atleast_1d(np.array(value, dtype=float))
    except Exception as error:  # of many kinds
        raise InputError(
            f"{path}: the tag ({tag[0]:04x},{tag[1]:04x}) cannot be understood; repair the file"
        ) from error


def _number(path: Path, header: Any, tag: tuple[int, int], count: int = 1) -> Any:
    values = _values(path, header, tag)
    if values is None or len(values) < count or not np.isfinite(values[:count]).all():
        raise InputError(
            f"{path}: the tag ({tag[0]:04x},{tag[1]:04x}) must hold {count} finite numbers; is it DICOM-CT-PD?"
        )
    return float(values[0]) if count == 1 else values[:count]


def _optional(path: Path, header: Any, tag: tuple[int, int]) -> float | None:
    return None if _values(path, header, tag) is None else float(_number(path, header, tag))


def _view(path: Path, header: Any) -> _View:
    try:
        number = int(header.InstanceNumber)
    except Exception:
        raise InputError(f"{path}: lacks the tag InstanceNumber, by which views are put in order") from None
    place = np.array([_number(path, header, tag) for tag in (_PHI, _RHO, _Z)])
    phi, rho, z = (_optional(path, header, tag) or 0.0 for tag in _SPOT)
    return _View(path, number, place, np.array([phi, rho, z]))


def _lines(path: Path, rows: int, columns: int) -> np.ndarray:
    header = _header(path, pixels=True)
    try:
        stored = header.pixel_array.astype(np.float32)
        slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
    except Exception as error:
        raise InputError(f"{path}: its pixels cannot be decoded; is it truncated?") from error
    if stored.shape == (columns, rows) and rows != columns:
        stored = stored.T
    if stored.shape != (rows, columns):
        raise InputError(f"{path}: has {stored.shape} pixels, its tags tell of {rows} rows and {columns} columns")
    return np.asarray(stored * np.float32(slope) + np.float32(intercept))


def _photons(views: list[_View], columns: int) -> np.ndarray | None:
    """Photons (views or 1, columns) without an object, where the files tell them for each column."""
    listed = []
    for view in views:
        values = _values(view.path, _header(view.path), _PHOTONS)
        if values is None or len(values) != columns or not np.isfinite(values).all() or values.min() < 0:
            return None
        listed.append(values)
    photons = np.array(listed, np.float32)
    if not photons.any():
        return None
    return photons[:1] if np.ptp(photons, axis=0).max() == 0 else photons


def _geometry(path: Path, first: Any, views: list[_View], rows: int, columns: int) -> RayGeometry:
    pitch, row_pitch, sdd = (_number(path, first, tag) for tag in (_PITCH, _ROW_PITCH, _SDD))
    shape = str(getattr(first.get(_SHAPE), "value", b"") or "").strip("b' ").upper()
    if shape not in _SHAPES:
        raise InputError(f"{path}: a detector of the shape {shape[:20]!r} is not read; {' and '.join(_SHAPES)} are")
    arc = _SHAPES[shape]
    column, row = _number(path, first, _CENTRE, 2)
    # The columns are flipped: the central one counts from the other end.
    offset = ((columns - 1) / 2 - (columns - column)) * pitch
    row_offset = ((rows - 1) / 2 - (row - 1)) * row_pitch
    place = np.array([view.place for view in views])
    theta = np.degrees(np.unwrap(place[:, 0])) + 180.0
    rho, z = place[:, 1], place[:, 2]
    spot = np.array([view.spot for view in views])
    listed = tuple(float(a) for a in theta)
    if not spot.any() and np.ptp(rho) < _SAME_MM:
        if np.ptp(z) < _SAME_MM:
            return ConeBeam(
                listed, rows, columns, pitch, row_pitch, float(rho[0]), sdd, offset, row_offset, arc=arc
            )  # fmt: skip
        slope, start = np.polyfit(theta, z, 1)
        if np.abs(start + slope * theta - z).max() < _SAME_MM * 10:
            return HelicalCone(
                listed, rows, columns, pitch, row_pitch, float(rho[0]), sdd, offset, row_offset, arc=arc,
                travel_mm=float(slope * 360), start_mm=float(start),
            )  # fmt: skip
    poses = _poses(place, spot, sdd, offset, row_offset, arc)
    u = _square_to_middle_ray(poses) if arc else poses.u
    return PosedBeam.of(replace(poses, u=u * pitch, v=poses.v * row_pitch), rows, columns)


def _square_to_middle_ray(poses: Poses) -> np.ndarray:
    """Directions along arcs about the sources; in files they lie about the focal centre, which flying spots leave."""
    ray = poses.centre - poses.source
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    u = poses.u - (poses.u * ray).sum(1, keepdims=True) * ray
    return np.asarray(u / np.linalg.norm(u, axis=1, keepdims=True))


def _poses(place: np.ndarray, spot: np.ndarray, sdd: float, offset: float, row_offset: float, arc: bool) -> Poses:
    """Each view with a source of its own; steps of length 1."""
    phi, none = place[:, 0], np.zeros(len(place))
    out, up = np.stack([-np.sin(phi), np.cos(phi), none], axis=1), np.stack([none, none, none + 1.0], axis=1)
    across = np.stack([-np.cos(phi), -np.sin(phi), none], axis=1)  # our columns' direction
    centre = out * place[:, 1:2] + up * place[:, 2:]
    turn = offset / sdd if arc else 0.0
    ahead = np.cos(turn) * -out + np.sin(turn) * across
    u = np.cos(turn) * across + np.sin(turn) * out
    detector = centre + ahead * sdd + (0.0 if arc else offset) * u + up * row_offset
    angle, radius, height = phi + spot[:, 0], place[:, 1] + spot[:, 1], place[:, 2] + spot[:, 2]
    source = np.stack([-radius * np.sin(angle), radius * np.cos(angle), height], axis=1)
    return Poses(detector, u, up, source=source, arc=arc)


def is_ct_pd(folder: Path) -> bool:
    """Whether the first file of a folder holds a detector's rows by the dictionary; a glance that raises nothing."""
    import pydicom

    if not folder.is_dir():
        return False
    first = next((p for p in sorted(folder.iterdir()) if p.suffix.lower() in _SUFFIXES and p.is_file()), None)
    if first is None:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _ROWS in pydicom.dcmread(first, stop_before_pixels=True, specific_tags=[_ROWS])
    except Exception:  # no DICOM
        return False


register(Format("DICOM-CT-PD", CT, (), read_ct_pd, is_ct_pd, asks=("prepare",)))
