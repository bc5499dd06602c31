"""Scans from files of all formats that are registered, told apart by name and content."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EngineError, InputError
from ..formats import SCAN, Format, format_of, register, suffixes, write
from ..scans import Measurement
from .files import require_file
from .hdf5 import SUFFIXES as HDF5
from .hdf5 import opened

__all__ = ["read_scan", "write"]


def read_scan(
    path: str | os.PathLike[str],
    *,
    pixel_mm: float | None = None,
    axis: float | None = None,
    prepare: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    **of_trajectory: Any,
) -> Any:
    """Read a :class:`~DiffusionMBIRLib.scans.Measurement` or :class:`~DiffusionMBIRLib.scans.KSpace`.

    pixel_mm, axis: of projections that do not tell them, the size of the detector's pixels in mm and the column of the
    rotation axis (0 is the first column's middle).  prepare: steps of the preparation to switch, such as "rings=off,
    water=on"; see :data:`~DiffusionMBIRLib.preparation.told.STEPS`.  weights: a file (.npy) of how far each ray of a CT
    scan is trusted, relative to others, of a shape that broadcasts to that of its data; 0: not at all.  of_trajectory:
    what k-space along a trajectory does not tell, by the names of
    :class:`~DiffusionMBIRLib.io.trajectory_scan.ToldTrajectory`.

    Raises InputError, in one line that names the file and the field, for what is missing, truncated, foreign, of a
    newer version, incomplete or not finite, and for what a file of this kind tells itself; EngineError where memory
    runs out.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if not path.is_dir():
        require_file(path)  # before anyone opens it: a pipe would be waited for
    known = format_of(path, SCAN)
    if known is None:
        if path.is_dir():
            raise InputError(f"{path}: is no folder of projections (no list of angles, angles.txt); see the formats")
        raise InputError(f"{path}: no file of a scan that we read ({', '.join(suffixes(SCAN))})")
    given = {"pixel_mm": pixel_mm, "axis": axis, "prepare": prepare, **of_trajectory}
    told = {name: value for name, value in given.items() if value is not None}
    for name in told:
        if name not in known.asks:
            which = "k-space along a trajectory" if name in of_trajectory else "measured projections"
            raise InputError(f"{path}: {name} is for {which} that do not tell it; leave it out")
    try:
        scan = known.read(path, **told)
    except MemoryError as error:
        raise EngineError(f"{path}: no memory for its data; close other programs or cut the scan") from error
    return scan if weights is None else _weighed(scan, Path(weights))


def _weighed(scan: Any, file: Path) -> Any:
    """A scan of CT with the weights of a file."""
    if not isinstance(scan, Measurement):
        raise InputError(f"{file}: weights of rays are for scans of CT; leave them out")
    require_file(file)
    try:
        array = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError):
        raise InputError(f"{file}: is no array of numbers (.npy); save the weights by numpy.save") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise InputError(f"{file}: holds no real numbers; save the weights as one array of them")
    try:
        return replace(scan, weights=array.astype(np.float32))
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _foreign(path: Path) -> Any:
    with opened(path):
        raise InputError(
            f"{path}: is HDF5, but no scan of a layout that we read (ours, ISMRMRD, fastMRI, Data Exchange)"
        )


register(Format("other HDF5", SCAN, HDF5, _foreign, last=True))
