"""Grey TIFF images and stacks of them, of any number type and layout."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..host_memory import require_room

SUFFIXES = (".tif", ".tiff")
_UNCOMPRESSED = 1


def is_tiff(path: Path) -> bool:
    """True for a regular file that is named like a TIFF image."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def read_tiff(path: Path) -> np.ndarray:
    """The image (rows, columns), or a file's stack (images, rows, columns), in the file's number type.

    Raises InputError, naming the file, for one that is truncated, not grey, of complex numbers or of a compression
    that is not known here.
    """
    import tifffile

    try:
        with _quiet(), tifffile.TiffFile(path) as file:
            array = _pixels(path, file)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # what a damaged file makes the parser run into is of many kinds
        raise InputError(f"{path}: cannot be read as TIFF; is it truncated?") from error
    if array.ndim not in (2, 3):
        raise InputError(f"{path}: is an image of {array.shape}; one grey image, or a stack of them, is needed")
    return array


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the reader's log off the console: what matters is raised."""
    logger = logging.getLogger("tifffile")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _pixels(path: Path, file: Any) -> np.ndarray:
    if not len(file.pages):  # to count them finds a chain that leads in a circle, which the next line follows on and on
        raise InputError(f"{path}: holds no image; is it truncated?")
    series = file.series[0]
    if series.keyframe.samplesperpixel != 1:
        raise InputError(f"{path}: is an image of {series.shape}; a colour image cannot be used, save it in grey")
    if series.dtype is None or series.dtype.kind not in "iuf":
        raise InputError(f"{path}: holds values of type {series.dtype}; save it as float32 or uint16")
    require_room(str(path), series.shape, series.dtype.itemsize)
    length = path.stat().st_size
    for page in series.pages:
        if page is None:
            continue
        ends = (o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True))
        if max(ends, default=0) > length or (
            page.compression == _UNCOMPRESSED and sum(page.databytecounts) < page.nbytes
        ):
            raise InputError(f"{path}: is truncated; copy it again")
    try:
        return np.asarray(series.asarray())
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
    return _decoded_by_itk(path, series)


def _decoded_by_itk(path: Path, series: Any) -> np.ndarray:
    """LZW and what else needs a codec that is not installed, where ITK knows the number type."""
    from .volumes import quiet_itk, silent_console, simple_itk

    kind = f"{series.keyframe.compression.name} of {series.dtype}"
    if series.dtype.itemsize > 4 or series.dtype == np.float16 or series.keyframe.is_tiled:
        raise InputError(f"{path}: its compression ({kind}) is not known here; save it without compression")
    try:
        with quiet_itk(), silent_console():
            array: np.ndarray = simple_itk().GetArrayFromImage(simple_itk().ReadImage(str(path)))
    except RuntimeError as error:
        raise InputError(f"{path}: its compression ({kind}) cannot be decoded; is it truncated?") from error
    return array
