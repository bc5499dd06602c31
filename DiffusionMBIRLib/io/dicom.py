"""A folder with classic (one file a slice) CT images as one volume in HU.

Headers are read with pydicom, pixels decoded by GDCM through SimpleITK, which also applies the rescale slope and
intercept.  Geometry follows DICOM PS3.3 C.7.6.2: slices lie where ImagePositionPatient puts them along the normal of
ImageOrientationPatient; file names, instance numbers and slice locations are not believed.  Messages never hold
patient data: a series is named by its number and UID.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import Grid
from ..volume import Volume
from .volumes import quiet_itk, simple_itk

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
]
_DOMINANCE = 4  # a series is taken without asking only if it has this many times the slices of any other
_REGULAR = 0.1  # of the spacing: how far a slice may lie from its place in the regular grid
_DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")


@dataclass(frozen=True)
class _Slice:
    path: Path
    series: str
    number: str
    syntax: str
    shape: tuple[int, int]
    spacing_mm: np.ndarray  # (between rows, between columns)
    position_mm: np.ndarray
    orientation: np.ndarray  # (2, 3): unit vectors along a row and down a column
    thickness_mm: float

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.orientation[0], self.orientation[1])


def read_dicom_folder(path: str | os.PathLike[str], *, series_uid: str | None = None) -> Volume:
    """The CT series in a folder and its sub-folders as a volume in HU, int16 where that is exact, else float32.

    Localizers and files that are not CT images are passed over.  Among several series the one with
    ``series_uid`` is taken, or else one that has at least four times the slices of any other.

    Raises InputError, naming the file, series or tag, for a folder without CT images, several series to choose from,
    truncated or undecodable files, missing tags, multi-frame files, and slices that are no regular stack.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    slices = _choose_series(folder, _ct_slices(folder), series_uid)
    first = slices[0]
    for other in slices[1:]:
        _require_alike(first, other)
    slices = sorted(slices, key=lambda s: float(s.position_mm @ first.normal))
    grid = _grid_of(folder, slices)
    with quiet_itk():
        array = np.stack([_pixels(s) for s in slices])
    name = f"DICOM series {first.number}".strip()
    return Volume(array, grid, name=name, metadata={"modality": "CT", "units": "HU"})


def _ct_slices(folder: Path) -> list[_Slice]:
    slices, others = [], Counter[str]()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        header = _header(path)
        if header is None:
            continue
        modality = str(_value(path, header, "Modality"))
        if modality == "CT" and "LOCALIZER" not in header.get("ImageType", ()):
            slices.append(_slice_of(path, header))
        else:
            others[modality if modality != "CT" else "CT localizer"] += 1
    if not slices:
        seen = ", ".join(f"{n} x {modality}" for modality, n in others.items()) or "no DICOM files"
        raise InputError(f"{folder}: holds no CT slices ({seen}); choose the folder of a CT series")
    return slices


def _header(path: Path) -> Any:
    """The tags that we need, or None for a file that does not claim to be DICOM and for the index DICOMDIR."""
    import pydicom
    from pydicom.errors import InvalidDicomError
    from pydicom.uid import MediaStorageDirectoryStorage

    # Files without the DICM mark are common in old exports; only their suffix tells them from foreign files.
    force = path.suffix.lower() in _DICOM_SUFFIXES
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS), force=force)
    except InvalidDicomError:
        return None
    except Exception as error:  # pydicom lets pass whatever its parser runs into
        raise InputError(f"{path}: cannot be read as DICOM; is it truncated? Copy it again") from error
    index = getattr(header.file_meta, "MediaStorageSOPClassUID", "") == MediaStorageDirectoryStorage
    return None if index else header


def _value(path: Path, header: Any, tag: str) -> Any:
    try:
        value = header.get(tag)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: the DICOM tag {tag} cannot be understood; repair the file") from error
    if value is None or value == "":
        raise InputError(f"{path}: lacks the DICOM tag {tag}; is the file truncated or no CT slice?")
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


def _slice_of(path: Path, header: Any) -> _Slice:
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise InputError(f"{path}: is a multi-frame file; convert it to one file a slice or to NRRD first")
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise InputError(f"{path}: is a colour image; remove it from the folder")
    for tag in ("RescaleSlope", "RescaleIntercept"):  # without them the values would not be HU
        _numbers(path, header, tag, 1)
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
        syntax=getattr(getattr(header.file_meta, "TransferSyntaxUID", None), "name", "unknown"),
        shape=(int(_value(path, header, "Rows")), int(_value(path, header, "Columns"))),
        spacing_mm=spacing,
        position_mm=_numbers(path, header, "ImagePositionPatient", 3),
        orientation=axes / lengths,
        thickness_mm=float(_numbers(path, header, "SliceThickness", 1)[0]) if header.get("SliceThickness") else 0.0,
    )


def _choose_series(folder: Path, slices: list[_Slice], series_uid: str | None) -> list[_Slice]:
    series: defaultdict[str, list[_Slice]] = defaultdict(list)
    for one in slices:
        series[one.series].append(one)
    ranked = sorted(series.values(), key=len, reverse=True)
    if series_uid is not None and series_uid in series:
        return series[series_uid]
    if series_uid is None and (len(ranked) == 1 or len(ranked[0]) >= _DOMINANCE * len(ranked[1])):
        return ranked[0]
    known = "; ".join(f"series {s[0].number or '?'}: {len(s)} slices, UID {s[0].series}" for s in ranked)
    problem = "holds several CT series" if series_uid is None else f"holds no CT series with the UID {series_uid}"
    raise InputError(f"{folder}: {problem} ({known}); put the one to use into a folder of its own")


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


def _pixels(one: _Slice) -> np.ndarray:
    """The rescaled values of one file, int16 where that loses nothing, else float32."""
    sitk = simple_itk()
    try:
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(one.path), imageIO="GDCMImageIO"))
    except RuntimeError as error:
        raise InputError(
            f"{one.path}: its pixels cannot be decoded; is the file truncated, "
            f"or its compression ({one.syntax}) unknown here? Copy it again or decompress it"
        ) from error
    if values.size != one.shape[0] * one.shape[1]:
        raise InputError(f"{one.path}: decodes to {values.shape}, its header says {one.shape}; copy the file again")
    values = values.reshape(one.shape)
    compact = np.clip(values, -32768, 32767).astype(np.int16)
    return compact if np.array_equal(compact, values) else values.astype(np.float32)
