"""Scans in HDF5, the form for users; see ``scan_fields`` for the layout."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EngineError, InputError
from ..formats import SCAN, Format, register, writes
from ..scans import Scan
from . import scan_npz
from .files import replacing
from .hdf5 import is_large, reading, recognising
from .scan_fields import content_of, holds_scan, scan_in

SUFFIXES = (".h5", ".hdf5")


def write_scan(scan: Scan, path: Path) -> None:
    """Write to .h5, .hdf5 or .npz.  Raises InputError for another suffix, EngineError where writing fails."""
    suffix = path.suffix.lower()
    if suffix == scan_npz.SUFFIX:
        return scan_npz.write_npz(scan, path)
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: a scan is written to a file named {', '.join(SUFFIXES)} or {scan_npz.SUFFIX}")
    with replacing(path, path.suffix) as temporary:
        if not is_large(scan.data):
            temporary.write_bytes(_encoded(scan))
        else:
            _require_room(path, scan)
            _write(scan, temporary)


def _encoded(scan: Scan) -> bytes:
    """The file's content.  Made in memory, because HDF5 does not recover from a disk that fills up while it writes."""
    buffer = io.BytesIO()
    _write(scan, buffer)
    return buffer.getvalue()


def _require_room(path: Path, scan: Scan) -> None:
    """Raise EngineError where the disk lacks the room for a scan that is written as it is."""
    arrays = (value for value in content_of(scan).values() if isinstance(value, np.ndarray))
    needed, free = sum(array.nbytes for array in arrays), shutil.disk_usage(path.parent).free
    if needed > free:
        raise EngineError(f"{path}: needs {needed / 1e9:.1f} GB, its disk has {free / 1e9:.1f} GB left; make room")


def _write(scan: Scan, where: Any) -> None:
    import h5py

    with h5py.File(where, "w") as file:
        for key, value in content_of(scan).items():
            group, _, name = key.rpartition("/")
            owner = file.require_group(group) if group else file
            if isinstance(value, dict):
                owner[name] = json.dumps(value, sort_keys=True)
            elif isinstance(value, np.ndarray) and value.ndim > 1:
                stored = value.astype(np.uint8) if value.dtype == np.bool_ else value
                packed = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
                owner.create_dataset(name, data=stored, **({} if is_large(stored) else packed))
            elif isinstance(value, list | np.ndarray) and group == "geometry":
                owner.create_dataset(name, data=np.asarray(value))
            else:
                owner.attrs[name] = value


register(Format("DiffusionMBIR", SCAN, SUFFIXES, reading(scan_in), recognising(holds_scan)))
writes(Scan, write_scan)
