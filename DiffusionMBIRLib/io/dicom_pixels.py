"""The pixels of one DICOM image as values in HU, after a check that the file holds all that its header announces.

Pixels are decoded by GDCM through SimpleITK, which also applies the rescale slope and intercept.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..host_memory import require_room
from ..names import require_unicode
from .volumes import simple_itk

TAGS = ("PhotometricInterpretation", "BitsAllocated")
_UNDEFINED = 0xFFFFFFFF  # the length of compressed pixels
_DENSEST = 10_000  # bytes of an image from one of its file, more than any compression reaches
_AHEAD = "1 KB"  # longer values stay in the file


@dataclass(frozen=True)
class Encoding:
    """How pixels are stored.  is_inverted: small values are white (MONOCHROME1), which says nothing of HU."""

    syntax: str
    bytes_per_pixel: int
    is_inverted: bool
    slope: float
    intercept: float

    @classmethod
    def of(cls, header: Any, allocated: int, slope: float, intercept: float) -> Encoding:
        return cls(
            syntax=getattr(getattr(header.file_meta, "TransferSyntaxUID", None), "name", "unknown"),
            bytes_per_pixel=max(1, allocated // 8),
            is_inverted=str(header.get("PhotometricInterpretation") or "") == "MONOCHROME1",
            slope=slope,
            intercept=intercept,
        )


def require_pixels(path: Path, shape: tuple[int, int], encoding: Encoding) -> None:
    """Raise InputError where the pixels of a file are fewer than rows x columns: the decoder would fill the rest with
    what memory holds.
    """
    import pydicom

    require_room(str(path), shape, encoding.bytes_per_pixel)
    needed = shape[0] * shape[1] * encoding.bytes_per_pixel
    size = path.stat().st_size
    try:
        header = pydicom.dcmread(path, specific_tags=["PixelData"], defer_size=_AHEAD, force=True)
        element = header.get_item("PixelData", keep_deferred=True)
    except Exception as error:  # pydicom lets pass whatever its parser runs into
        raise InputError(f"{path}: cannot be read as DICOM; is it truncated? Copy it again") from error
    if element is None:
        raise InputError(f"{path}: lacks the DICOM tag PixelData; is the file truncated?")
    there = int(getattr(element, "length", None) or len(element.value or b""))
    if needed > _DENSEST * size if there == _UNDEFINED else min(there, size) < needed:
        raise InputError(
            f"{path}: its pixels are {min(there, size)} bytes, {shape[0]} x {shape[1]} pixels need {needed}; "
            "is the file truncated? Copy it again"
        )


def pixels(path: Path, shape: tuple[int, int], encoding: Encoding) -> np.ndarray:
    """The rescaled values (rows, columns) of one file, int16 where that loses nothing, else float32."""
    require_unicode(path)
    require_pixels(path, shape, encoding)
    try:
        values = _as_stored(path, encoding) if encoding.is_inverted else _decoded(path)
    except Exception as error:  # of two decoders
        raise InputError(
            f"{path}: its pixels cannot be decoded; is the file truncated, "
            f"or its compression ({encoding.syntax}) unknown here? Copy it again or decompress it"
        ) from error
    if values.size != shape[0] * shape[1]:
        raise InputError(f"{path}: decodes to {values.shape}, its header says {shape}; copy the file again")
    values = values.reshape(shape)
    compact = np.clip(values, -32768, 32767).astype(np.int16)
    return compact if np.array_equal(compact, values) else values.astype(np.float32)


def _decoded(path: Path) -> np.ndarray:
    sitk = simple_itk()
    values: np.ndarray = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO"))
    return values


def _as_stored(path: Path, encoding: Encoding) -> np.ndarray:
    """Of MONOCHROME1, which the usual decoder turns into what it looks like, before it rescales."""
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stored = pydicom.dcmread(path, force=True).pixel_array
    return stored.astype(np.float64) * encoding.slope + encoding.intercept
