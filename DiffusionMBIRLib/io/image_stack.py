"""Projections as arrays (views, rows, columns): folders of TIFF, stacks, raw numbers, .npy and MetaImage."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from ..host_memory import require_room
from .files import require_file
from .npy import load_npy
from .tiff import is_tiff, read_tiff
from .view_order import orders_by_name

TYPES = {
    "uint8": "u1", "int8": "i1", "uint16": "u2", "int16": "i2", "uint32": "u4", "int32": "i4", "float32": "f4",
    "float64": "f8",
}  # fmt: skip
_VOLUMES = (".mha", ".mhd", ".nrrd", ".nhdr")


def read_raw(path: Path, shape: tuple[int, ...], kind: str, *, skip: int = 0, big_endian: bool = False) -> np.ndarray:
    """Numbers of a type of :data:`TYPES` without a header, as float32.

    Raises InputError where the file is shorter than what it is said to hold.
    """
    require_file(path)
    if kind not in TYPES:
        raise InputError(f"{path}: numbers of type {kind!r} are not known; {', '.join(TYPES)} are")
    stored = np.dtype((">" if big_endian else "<") + TYPES[kind])
    needed, there = skip + int(np.prod(shape, dtype=object)) * stored.itemsize, path.stat().st_size
    if skip < 0 or there < needed:
        raise InputError(
            f"{path}: holds {there} bytes; {shape} values of {kind} need {needed}: is it truncated, or its size or "
            "type another?"
        )
    require_room(str(path), shape, 8)
    values = np.fromfile(path, stored, int(np.prod(shape)), offset=skip)
    return _float32(values.reshape(shape))


def read_images(path: Path) -> np.ndarray:
    """A folder of TIFF images by the numbers in their names, one TIFF file or stack, .npy or MetaImage: float32."""
    if path.is_dir():
        return _folder(path)
    name = path.name.lower()
    if name.endswith(".npy"):
        array = load_npy(path)
    elif name.endswith(_VOLUMES):
        from .volumes import read_with_itk

        array = read_with_itk(path).array
    else:
        array = read_tiff(path)
    if array.dtype.kind not in "iuf" or array.ndim not in (2, 3) or not array.size:
        raise InputError(f"{path}: holds {array.dtype} of shape {array.shape}; real (views, rows, columns) are needed")
    return _float32(array if array.ndim == 3 else array[None])


def images_by_name(files: list[Path]) -> list[Path]:
    """Files in the order of the numbers in their names."""
    if len(files) < 2:
        return files
    return [files[k] for k in orders_by_name([p.stem for p in files])[0].index]


def stack_of(files: list[Path], shape: tuple[int, int] | None = None) -> np.ndarray:
    """One TIFF image a view: (views, rows, columns) float32.  Raises InputError for images of unlike sizes."""
    first = read_tiff(files[0])
    wanted = first.shape if shape is None else shape
    if len(wanted) != 2:
        raise InputError(f"{files[0]}: is a stack of images among {len(files)} files; one image a file is needed")
    require_room(str(files[0].parent), (len(files), *wanted), 8)
    out = np.empty((len(files), *wanted), np.float32)
    for k, path in enumerate(files):
        image = first if k == 0 else read_tiff(path)
        if image.shape != wanted:
            raise InputError(f"{path}: is an image of {image.shape}; one grey image of {tuple(wanted)} is needed")
        out[k] = _float32(image)
    return out


def _folder(path: Path) -> np.ndarray:
    files = images_by_name(sorted(p for p in path.iterdir() if is_tiff(p)))
    if not files:
        raise InputError(f"{path}: holds no TIFF images")
    if len(files) == 1:
        return read_images(files[0])
    return stack_of(files)


def _float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what leaves the range is told as not finite
        return array.astype(np.float32)
