"""Measured parallel-beam projections: Data Exchange (HDF5), folders of TIFF images, sinograms as TIFF.

Folders and sinograms come with a list of angles, ``angles.txt``.  Counts need images without an object (flat) and
without a beam (dark).  None of them tells the size of a pixel, the rotation axis' place or the attenuation of water in
ways that one can rely on: what the user does not give is estimated, and listed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from ..formats import CT, Format, register
from ..host_memory import require_room
from ..preparation.angles import in_degrees, perhaps_radians
from ..preparation.parallel import ParallelScan, measurement_of
from ..preparation.told import Told
from ..scans import Measurement
from .hdf5 import SUFFIXES, Fields, opened, recognising
from .header_folder import described
from .projection_folder import ANGLES, images_in, read_folder, read_sinogram
from .tiff import SUFFIXES as TIFF_SUFFIXES

_SUB_FOLDERS = 64  # beyond it, it is an archive rather than a scan


def is_data_exchange(fields: Fields) -> bool:
    """True if an open HDF5 file follows the Data Exchange layout."""
    return fields.has("exchange") and fields.has("exchange/data")


def read_data_exchange(fields: Fields, told: Told | None = None) -> Measurement:
    """Read an open file.  Raises InputError for what is missing or does not fit."""
    name = str(fields.path)
    for needed in ("exchange/data_white", "exchange/data_dark", "exchange/theta"):
        if not fields.has(needed):
            raise InputError(f"{name}: lacks the dataset {needed}; projections need flat and dark images and angles")
    counts = _stack(fields, "exchange/data")
    flats, dark = _stack(fields, "exchange/data_white"), _stack(fields, "exchange/data_dark").mean(axis=0)
    listed = np.asarray(fields.numbers("exchange/theta")[()], dtype=float).reshape(-1)
    unit = str(fields.attribute("exchange/theta", "units", ""))
    angles, guess, doubt = in_degrees(listed, unit)
    scan = ParallelScan(name, "Data Exchange HDF5", counts, flats.mean(axis=0), dark, angles, flats)
    scan.alternatives += perhaps_radians(angles, unit)
    scan.guessed += [guess] if guess else []
    scan.remarks += [doubt] if doubt else []
    return measurement_of(scan, told or Told())


def _stack(fields: Fields, key: str) -> np.ndarray:
    node = fields.numbers(key)
    if node.ndim != 3:
        raise InputError(f"{fields.path}: {key} must be (views, rows, columns), not {node.shape}")
    require_room(str(fields.path), node.shape, 8)
    with np.errstate(over="ignore"):  # what leaves the range of float32 is told as not finite
        return np.asarray(node[()], dtype=np.float32)


def is_projection_folder(path: Path) -> bool:
    """True for a folder that holds ``angles.txt``, and TIFF images there or in folders below."""
    return (path / ANGLES).is_file()


def holds_projections(path: Path) -> bool:
    """True for a folder of projections, and for one of TIFF images that lacks its list of angles.

    A file that describes the scan says more than both.
    """
    if not path.is_dir() or described(path):
        return False
    if is_projection_folder(path):
        return True
    below = sum(1 for p in path.iterdir() if p.is_dir())
    return below <= _SUB_FOLDERS and bool(images_in(path).views)


def read_projection_folder(path: Path, told: Told | None = None) -> Measurement:
    """Read TIFF projections, one a view in the order of the numbers in their names, with flat and dark images.

    Those are told by their names (flat..., dark...) or by their folders'.  Raises InputError for what is missing or
    does not fit.
    """
    return measurement_of(read_folder(path), told or Told())


def read_sinogram_file(path: Path, told: Told | None = None) -> Measurement:
    """Read one TIFF file: a sinogram (views, columns) or a stack of views, with ``angles.txt`` beside it.

    Floating-point numbers without flat and dark images are line integrals.  Raises InputError as for folders.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return measurement_of(read_sinogram(path), told or Told())


_TOLD = ("pixel_mm", "axis", "prepare")  # what a user may tell, as fields of ``Told``


def _data_exchange(
    path: Path, pixel_mm: float | None = None, axis: float | None = None, prepare: str | None = None
) -> Measurement:
    with opened(path) as fields:
        return read_data_exchange(fields, Told(pixel_mm, axis, prepare))


def _folder(
    path: Path, pixel_mm: float | None = None, axis: float | None = None, prepare: str | None = None
) -> Measurement:
    return read_projection_folder(path, Told(pixel_mm, axis, prepare))


def _sinogram(
    path: Path, pixel_mm: float | None = None, axis: float | None = None, prepare: str | None = None
) -> Measurement:
    return read_sinogram_file(path, Told(pixel_mm, axis, prepare))


register(Format("Data Exchange", CT, SUFFIXES, _data_exchange, recognising(is_data_exchange), asks=_TOLD))
register(Format("folder of projections", CT, (), _folder, holds_projections, asks=_TOLD))
register(Format("sinogram or views in one TIFF", CT, TIFF_SUFFIXES, _sinogram, asks=_TOLD))
