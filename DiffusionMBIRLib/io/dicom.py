"""A folder with classic (one file a slice) CT or MR images as one volume, of CT in HU.

Headers are read with pydicom, for pixels see ``dicom_pixels``.  Geometry follows DICOM PS3.3 C.7.6.2: slices lie where
ImagePositionPatient puts them along the normal of ImageOrientationPatient; file names, instance numbers and slice
locations are not believed.  Messages never hold patient data: a series is named by its number and UID.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..formats import VOLUME, Format, register
from ..geometry import Grid
from ..host_memory import require_room
from ..volume import Volume
from .dicom_pixels import TAGS as PIXEL_TAGS
from .dicom_pixels import Encoding, pixels
from .volumes import quiet_itk, require_like_spacing

_TAGS = [
    "Modality",
    "SOPClassUID",
    "ImageType",
    "SeriesInstanceUID",
    "SeriesNumber",
    "NumberOfFrames",
    "SamplesPerPixel",
    "Rows",
    "Columns",
    "PixelSpacing",
    "SliceThickness",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    *PIXEL_TAGS,
]
# With what begins like it: enhanced and converted images.
_STORAGE = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}
_NO_MAGNITUDE = {
    "P",
    "R",
    "I",
    "PHASE",
    "PHASE MAP",
    "REAL",
    "IMAGINARY",
    "VELOCITY",
}  # ImageType of MR, from its third value
_HU_TYPES = ("", "HU", "US")  # US: unspecified
_DOMINANCE = 4  # a series is taken without asking only if it has this many times the slices of any other
_REGULAR = 0.1  # of the spacing: how far a slice may lie from its place in the regular grid
_DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")


@dataclass(frozen=True)
class _Slice:
    path: Path
    series: str
    number: str
    encoding: Encoding
    shape: tuple[int, int]
    spacing_mm: np.ndarray  # (between rows, between columns)
    position_mm: np.ndarray
    orientation: np.ndarray  # (2, 3): unit vectors along a row and down a column
    thickness_mm: float

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.orientation[0], self.orientation[1])


def read_dicom_folder(path: str | os.PathLike[str], *, series_uid: str | None = None) -> Volume:
    """The CT series in a folder and its sub-folders as a volume in HU, int16 where that is exact, else float32; where
    there are no CT images, the MR series, in the scanner's unit.

    Localizers, screenshots, reports and files of other kinds are passed over, and so are MR images of phase, real or
    imaginary part and CT series of other values than HU (RescaleType) beside one in HU; the metadata's ``remarks``
    count them.  Among several series the one with ``series_uid`` is taken, or else one that has at least four times
    the slices of any other.

    Raises InputError, naming the file, series or tag, for a folder without such images, several series to choose from,
    truncated or undecodable files, missing tags, multi-frame files, and slices that are no regular stack.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    with warnings.catch_warnings():  # pydicom's, on tags that are checked here anyway
        warnings.simplefilter("ignore")
        return _read(folder, series_uid)


def _read(folder: Path, series_uid: str | None) -> Volume:
    modality, found, others = _images(folder)
    chosen = _choose_series(folder, modality, found, series_uid, others)
    slices = [_slice_of(path, header, modality) for path, header in chosen]
    first = slices[0]
    for other in slices[1:]:
        _require_alike(first, other)
    slices = sorted(slices, key=lambda s: float(s.position_mm @ first.normal))
    grid = _grid_of(folder, slices)
    require_like_spacing(grid, str(folder))
    with quiet_itk():
        planes = [pixels(s.path, s.shape, s.encoding) for s in slices]
    require_room(str(folder), grid.shape, max(p.itemsize for p in planes))
    name = f"DICOM series {first.number}".strip()
    metadata = {"modality": modality} | ({"units": "HU"} if modality == "CT" else {})
    thickness = {s.thickness_mm for s in slices}
    if len(thickness) == 1 and first.thickness_mm > 0:
        metadata["slice_thickness_mm"] = f"{first.thickness_mm:.6g}"
    remarks = [f"passed over: {_counted(others)}"] if others else []
    if any(s.encoding.is_inverted for s in slices):
        what = "HU are taken from the values as stored" if modality == "CT" else "values are taken as stored"
        remarks.append(f"MONOCHROME1 (small values are white): {what}")
    if remarks:
        metadata["remarks"] = "; ".join(remarks)
    return Volume(np.stack(planes), grid, name=name, unit="HU" if modality == "CT" else "", metadata=metadata)


_File = tuple[Path, Any]  # with its header


def _images(folder: Path) -> tuple[str, list[_File], Counter[str]]:
    """(modality, its images with their headers, how many files of other kinds there are); MR where there is no CT."""
    found: dict[str, list[_File]] = {modality: [] for modality in _STORAGE}
    others = Counter[str]()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        header = _header(path)
        if header is None:
            continue
        _require_understood(path, header, ("SOPClassUID", "Modality", "ImageType"))
        kind = str(header.get("SOPClassUID") or "")
        modality = next((m for m, storage in _STORAGE.items() if f"{kind}.".startswith(f"{storage}.")), None)
        if kind and modality is None:
            others[_name_of(path, header, kind)] += 1
            continue
        stated, shown = str(_value(path, header, "Modality")), list(header.get("ImageType") or ())
        if stated not in _STORAGE or (modality or stated) != stated:
            others[stated] += 1
        elif "LOCALIZER" in shown:
            others[f"{stated} localizer"] += 1
        elif stated == "MR" and _NO_MAGNITUDE.intersection(map(str, shown[2:])):
            others["MR image that is no magnitude"] += 1
        else:
            _require_understood(path, header, _TAGS)
            found[stated].append((path, header))
    if found["CT"]:
        others += Counter({"MR": len(found["MR"])})
        return "CT", found["CT"], others
    if not found["MR"]:
        held = _counted(others) or "no DICOM files"
        raise InputError(f"{folder}: holds no CT or MR slices ({held}); choose the folder of a series")
    return "MR", found["MR"], others


def _require_understood(path: Path, header: Any, tags: Iterable[str]) -> None:
    """Raise InputError that names a tag which the parser, which looks at each when it is asked for, cannot make out."""
    for tag in tags:
        try:
            header.get(tag)
        except Exception as error:  # of many kinds
            raise InputError(f"{path}: the DICOM tag {tag} cannot be understood; repair the file") from error


def _name_of(path: Path, header: Any, kind: str) -> str:
    modality = str(header.get("Modality") or "")
    return modality if modality not in ("", *_STORAGE) else getattr(header["SOPClassUID"].value, "name", kind)


def _counted(others: Counter[str]) -> str:
    return ", ".join(f"{n} x {what}" for what, n in others.items())


def _header(path: Path) -> Any:
    """The tags that we need, or None for a file that does not claim to be DICOM and for the index DICOMDIR."""
    import pydicom
    from pydicom.errors import InvalidDicomError
    from pydicom.uid import MediaStorageDirectoryStorage

    # Files without the DICM mark are common in old exports; only their suffix tells them from foreign files.
    force = path.suffix.lower() in _DICOM_SUFFIXES
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS), force=force)
        index = getattr(header.file_meta, "MediaStorageSOPClassUID", "") == MediaStorageDirectoryStorage
    except InvalidDicomError:
        return None
    except Exception as error:  # pydicom lets pass whatever its parser runs into
        raise InputError(f"{path}: cannot be read as DICOM; is it truncated? Copy it again") from error
    return None if index else header


def _value(path: Path, header: Any, tag: str) -> Any:
    value = header.get(tag)
    if value is None or value == "":
        raise InputError(f"{path}: lacks the DICOM tag {tag}; is the file truncated or no slice of a series?")
    return value


def _numbers(path: Path, header: Any, tag: str, count: int) -> np.ndarray:
    value = _value(path, header, tag)
    try:
        numbers = np.array(value, dtype=float).reshape(-1)
    except (ValueError, TypeError):
        numbers = np.zeros(0)
    if numbers.size != count or not np.all(np.isfinite(numbers)):
        raise InputError(f"{path}: the DICOM tag {tag} must hold {count} finite numbers; repair the file")
    return numbers


def _count(path: Path, header: Any, tag: str, default: int | None = None) -> int:
    """A tag that is one whole number; ``default`` where it is missing or empty."""
    if default is not None and tag not in header:
        return default
    number = default if default is not None and not header.get(tag) else _numbers(path, header, tag, 1)[0]
    if number != int(number):
        raise InputError(f"{path}: the DICOM tag {tag} must hold a whole number; repair the file")
    return int(number)


def _slice_of(path: Path, header: Any, modality: str) -> _Slice:
    if _count(path, header, "NumberOfFrames", 1) > 1:
        raise InputError(f"{path}: is a multi-frame file; convert it to one file a slice or to NRRD first")
    if _count(path, header, "SamplesPerPixel", 1) != 1:
        raise InputError(f"{path}: is a colour image; remove it from the folder")
    slope, intercept = 1.0, 0.0
    if modality == "CT" or header.get("RescaleSlope") is not None:  # without them the values of CT would not be HU
        slope, intercept = (float(_numbers(path, header, tag, 1)[0]) for tag in ("RescaleSlope", "RescaleIntercept"))
    if slope == 0:
        raise InputError(f"{path}: RescaleSlope is 0, which makes all values alike; repair the file")
    if modality == "CT" and not _is_in_hu(header):
        kind = str(header.get("RescaleType"))[:16]
        raise InputError(f"{path}: its values are no HU (RescaleType {kind}); choose the series of CT images in HU")
    axes = _numbers(path, header, "ImageOrientationPatient", 6).reshape(2, 3)
    lengths = np.linalg.norm(axes, axis=1, keepdims=True)
    if np.any(np.abs(lengths - 1) > 1e-2) or abs(axes[0] @ axes[1]) > 1e-2:
        raise InputError(f"{path}: ImageOrientationPatient does not hold two orthogonal unit vectors; repair the file")
    spacing = _numbers(path, header, "PixelSpacing", 2)
    if spacing.min() <= 0:
        raise InputError(f"{path}: PixelSpacing must be positive, not {spacing.tolist()}; repair the file")
    return _Slice(
        path=path,
        series=str(_value(path, header, "SeriesInstanceUID")),
        number=str(header.get("SeriesNumber") or ""),
        encoding=Encoding.of(header, _count(path, header, "BitsAllocated", 16), slope, intercept),
        shape=(_count(path, header, "Rows"), _count(path, header, "Columns")),
        spacing_mm=spacing,
        position_mm=_numbers(path, header, "ImagePositionPatient", 3),
        orientation=axes / lengths,
        thickness_mm=float(_numbers(path, header, "SliceThickness", 1)[0]) if header.get("SliceThickness") else 0.0,
    )


def _is_in_hu(header: Any) -> bool:
    return str(header.get("RescaleType") or "").strip().upper() in _HU_TYPES


def _choose_series(
    folder: Path, modality: str, files: list[_File], series_uid: str | None, others: Counter[str]
) -> list[_File]:
    """The files of the series to read; those of other series are counted in ``others``."""
    series: defaultdict[str, list[_File]] = defaultdict(list)
    for path, header in files:
        series[str(_value(path, header, "SeriesInstanceUID"))].append((path, header))
    in_hu = {uid: found for uid, found in series.items() if all(_is_in_hu(header) for _, header in found)}
    known_values = in_hu if modality == "CT" else series
    ranked = sorted((known_values or series).items(), key=lambda item: len(item[1]), reverse=True)
    if series_uid is not None and series_uid in series:
        chosen = series_uid
    elif series_uid is None and (len(ranked) == 1 or len(ranked[0][1]) >= _DOMINANCE * len(ranked[1][1])):
        chosen = ranked[0][0]
    else:
        known = "; ".join(
            f"series {found[0][1].get('SeriesNumber') or '?'}: {len(found)} slices, UID {uid}" for uid, found in ranked
        )
        problem = (
            f"holds several {modality} series"
            if series_uid is None
            else f"holds no {modality} series with the UID {series_uid}"
        )
        raise InputError(f"{folder}: {problem} ({known}); put the one to use into a folder of its own")
    for uid, found in series.items():
        if uid != chosen:
            others[f"image of series {found[0][1].get('SeriesNumber') or '?'}"] += len(found)
    return series[chosen]


def _require_alike(first: _Slice, other: _Slice) -> None:
    for what, same in (
        ("image size", first.shape == other.shape),
        ("PixelSpacing", np.allclose(first.spacing_mm, other.spacing_mm, rtol=1e-3)),
        ("ImageOrientationPatient", np.allclose(first.orientation, other.orientation, atol=1e-3)),
    ):
        if not same:
            raise InputError(
                f"{other.path}: its {what} differs from that of {first.path.name} in the same series; "
                "put the slices that belong together into a folder of their own"
            )


def _grid_of(folder: Path, slices: list[_Slice]) -> Grid:
    first = slices[0]
    direction = np.stack([*first.orientation, first.normal], axis=1)
    rows, columns = first.shape
    return Grid(
        (len(slices), rows, columns),
        (float(first.spacing_mm[1]), float(first.spacing_mm[0]), _slice_spacing_mm(folder, slices)),
        tuple(first.position_mm),
        tuple(direction.reshape(-1)),
    )


def _slice_spacing_mm(folder: Path, slices: list[_Slice]) -> float:
    """The mean gap along the normal of slices sorted by position, after a check that they lie on a regular grid."""
    first = slices[0]
    if len(slices) == 1:
        if first.thickness_mm <= 0:
            raise InputError(f"{first.path}: a single slice needs the DICOM tag SliceThickness; there is none")
        return first.thickness_mm
    offsets = np.array([s.position_mm - first.position_mm for s in slices])
    along = offsets @ first.normal
    gaps = np.diff(along)
    closest = int(np.argmin(gaps))
    if gaps[closest] < 1e-3:
        names = f"{slices[closest].path.name} and {slices[closest + 1].path.name}"
        raise InputError(f"{folder}: {names} lie at the same position; keep one phase or copy of the series")
    spacing = float(along[-1] / (len(slices) - 1))
    if np.abs(along - spacing * np.arange(len(slices))).max() > _REGULAR * spacing:
        sizes = ", ".join(f"{n} x {gap:g} mm" for gap, n in Counter(np.round(gaps, 3).tolist()).most_common(5))
        widest = int(np.argmax(gaps))
        raise InputError(
            f"{folder}: irregular gaps between slices ({sizes}; the widest between {slices[widest].path.name} and "
            f"{slices[widest + 1].path.name}); add the missing slices or resample to a regular stack"
        )
    sideways = np.linalg.norm(offsets - along[:, None] * first.normal, axis=1)
    if sideways.max() > 0.5 * first.spacing_mm.min():
        tilt = np.degrees(np.arctan2(sideways[-1], along[-1]))
        raise InputError(
            f"{folder}: the slices are shifted against each other (gantry tilt of {tilt:.1f} degrees); "
            "resample to an untilted volume first"
        )
    return spacing


register(Format("DICOM folder", VOLUME, (), read_dicom_folder, last=True))  # of any folder: it tells what is wrong
