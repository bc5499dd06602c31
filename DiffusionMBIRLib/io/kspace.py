"""K-space from files of several kinds, told apart by their content.

Own files and ISMRMRD, fastMRI and MATLAB 7.3 (HDF5), Siemens twix (.dat), NumPy (.npy) and MATLAB (.mat) arrays.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import EngineError, InputError
from ..scans import KSpace
from ..sensitivity import SMALLEST_ACS, calibration_size, maps_method
from .arrays import read_array
from .fastmri import read_fastmri
from .files import replacing
from .hdf5 import Fields, opened
from .ismrmrd import find_group, read_ismrmrd
from .kspace_file import FORMAT, decode_kspace, encode_kspace
from .twix import looks_like_twix, read_twix

HDF5_SUFFIXES = (".h5", ".hdf5", ".mrd", ".ismrmrd")
ARRAY_SUFFIXES = (".npy", ".mat")
SUFFIXES = (*HDF5_SUFFIXES, *ARRAY_SUFFIXES, ".dat")
_WRITABLE = (".h5", ".hdf5")


def read_kspace(path: str | os.PathLike[str]) -> KSpace:
    """Read k-space.

    Raises InputError, in one line that names the file, for what is missing, truncated, foreign, not Cartesian, not
    finite, empty or ambiguous; EngineError where memory runs out.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: no file of k-space that we read ({', '.join(SUFFIXES)})")
    try:
        if suffix in ARRAY_SUFFIXES:
            return read_array(path)
        if suffix in HDF5_SUFFIXES:
            with opened(path) as fields:
                return read_kspace_hdf5(fields)
        if not looks_like_twix(path):
            raise InputError(f"{path}: is no Siemens raw data; what wrote this file?")
        return read_twix(path)
    except MemoryError as error:
        raise EngineError(f"{path}: no memory for its data; close other programs or cut the measurement") from error


def write_kspace(kspace: KSpace, path: str | os.PathLike[str]) -> None:
    """Write k-space to an HDF5 file (.h5, .hdf5) of our own layout, whole or not at all.

    Raises InputError for another suffix or a missing folder, EngineError where writing fails.
    """
    path = Path(path)
    if path.suffix.lower() not in _WRITABLE:
        raise InputError(f"{path}: k-space is written to a file named {' or '.join(_WRITABLE)}")
    content = encode_kspace(kspace)
    with replacing(path, path.suffix) as temporary:
        temporary.write_bytes(content)


def _kind(fields: Fields) -> str:
    if fields.attribute("/", "format", "") == FORMAT:
        return "own"
    if find_group(fields.file):
        return "ismrmrd"
    return "fastmri" if fields.has("kspace") else ""


def is_kspace_hdf5(fields: Fields) -> bool:
    """True if an open HDF5 file holds k-space of a layout that we read."""
    return _kind(fields) != ""


def read_kspace_hdf5(fields: Fields) -> KSpace:
    """Read an open HDF5 file; errors as of :func:`read_kspace`."""
    name, kind = str(fields.path), _kind(fields)
    if kind == "own":
        return decode_kspace(fields)
    if kind == "ismrmrd":
        return read_ismrmrd(fields, find_group(fields.file) or "dataset")
    if kind == "fastmri":
        return read_fastmri(fields)
    raise InputError(f"{name}: is HDF5 without k-space (neither ISMRMRD nor a dataset named kspace)")


def describe(kspace: KSpace) -> dict[str, Any]:
    """What was understood of a file, for a look before a long run: plain strings, numbers and lists."""
    geometry, grid, told = kspace.geometry, kspace.grid, kspace.provenance
    left_out = {0: "rows", 1: "columns", None: "single positions"}[geometry.phase_axis]
    return {
        "kind": "k-space",
        "format": told.get("source", "DiffusionMBIR"),
        "task": kspace.task,
        "slices": grid.shape[0],
        "coils": geometry.coils,
        "matrix": list(grid.in_plane),
        "axes": told.get("axes", "slices, coils, rows, columns"),
        "readout_oversampling": told.get("readout_oversampling", 1.0),
        "oversampling_removed": told.get("oversampling_removed", False),
        "acceleration": round(geometry.acceleration, 3),
        "undersampled": "not" if geometry.mask.all() else left_out,
        "acs": list(geometry.acs),
        "spacing_mm": [round(s, 4) for s in grid.spacing_mm],
        "field_of_view_mm": [round(s * n, 2) for s, n in zip(grid.spacing_mm, grid.shape[::-1], strict=True)],
        "maps": _maps(kspace),
        "whitened": told.get("whitened", False),
        "noise_std": kspace.noise_std,
        "guessed": list(told.get("guessed", [])),
        "remarks": list(told.get("remarks", [])),
    }


def _maps(kspace: KSpace) -> str:
    if kspace.maps is not None:
        return "in the file"
    if kspace.geometry.coils == 1:
        return "none needed"
    if min(calibration_size(kspace)) < SMALLEST_ACS:
        return "cannot be estimated: too few calibration lines"
    apart = ", separate calibration" if calibration_size(kspace) != kspace.geometry.acs else ""
    return f"to be estimated ({maps_method()}{apart})"
