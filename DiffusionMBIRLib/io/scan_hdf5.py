"""Scans in HDF5, the form for users; see ``scan_fields`` for the layout."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..formats import SCAN, Format, register, writes
from ..scans import Scan
from . import scan_npz
from .files import replacing
from .hdf5 import reading, recognising
from .scan_fields import content_of, holds_scan, scan_in

SUFFIXES = (".h5", ".hdf5")


def write_scan(scan: Scan, path: Path) -> None:
    """Write to .h5, .hdf5 or .npz.  Raises InputError for another suffix, EngineError where writing fails."""
    suffix = path.suffix.lower()
    if suffix == scan_npz.SUFFIX:
        return scan_npz.write_npz(scan, path)
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: a scan is written to a file named {', '.join(SUFFIXES)} or {scan_npz.SUFFIX}")
    content = _encoded(scan)
    with replacing(path, path.suffix) as temporary:
        temporary.write_bytes(content)


def _encoded(scan: Scan) -> bytes:
    """The file's content.  Made in memory, because HDF5 does not recover from a disk that fills up while it writes."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for key, value in content_of(scan).items():
            group, _, name = key.rpartition("/")
            owner = file.require_group(group) if group else file
            if isinstance(value, dict):
                owner[name] = json.dumps(value, sort_keys=True)
            elif isinstance(value, np.ndarray) and value.ndim > 1:
                stored = value.astype(np.uint8) if value.dtype == np.bool_ else value
                owner.create_dataset(name, data=stored, compression="gzip", compression_opts=1, shuffle=True)
            elif isinstance(value, list | np.ndarray) and group == "geometry":
                owner.create_dataset(name, data=np.asarray(value))
            else:
                owner.attrs[name] = value
    return buffer.getvalue()


register(Format("DiffusionMBIR", SCAN, SUFFIXES, reading(scan_in), recognising(holds_scan)))
writes(Scan, write_scan)
