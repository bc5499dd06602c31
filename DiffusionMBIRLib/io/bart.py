"""Arrays of BART: a header .hdr with the sizes, and .cfl with complex numbers in Fortran's order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..formats import MR, Format, register
from ..scans import KSpace
from .companions import text_of_file
from .sizes import require_memory
from .trajectory_scan import ASKS, told_of

_MOST_AXES = 16
_CALLED = "traj"  # BART's own command of that name


def read_cfl(path: Path) -> np.ndarray:
    """The array, axes in BART's order.  Raises InputError for a header that is missing or does not fit."""
    header = path.with_suffix(".hdr")
    if not header.is_file():
        raise InputError(f"{path}: lacks its header {header.name}; keep both beside each other")
    lines = [line for line in text_of_file(header).splitlines() if line.strip()]
    sizes = [line for line in lines if not line.startswith("#")]
    try:
        shape = tuple(int(word) for word in sizes[0].split())
    except (ValueError, IndexError):
        shape = ()
    if not 0 < len(shape) <= _MOST_AXES or min(shape) < 1:
        raise InputError(f"{header}: holds no sizes; is it BART's?")
    require_memory(str(path), shape)
    count, there = int(np.prod([int(n) for n in shape], dtype=object)), path.stat().st_size // 8
    if count != there:
        raise InputError(f"{path}: holds {there} numbers, its header announces {count}; copy both again")
    return np.fromfile(path, dtype="<c8").reshape(shape, order="F")


def _read(path: Path, **given: Any) -> KSpace:
    from .trajectory_arrays import read_with_trajectory

    told = told_of(**given)
    if not told.trajectory:
        beside = [path.with_name(name) for name in (f"{path.stem}_{_CALLED}.cfl", f"{_CALLED}.cfl")]
        found = next((file for file in beside if file.is_file() and file != path), None)
        if found is None:
            raise InputError(f"{path}: is BART's; give the file of its trajectory with --trajectory")
        told = told_of(**{**given, "trajectory": str(found)})
    return read_with_trajectory(path, read_cfl(path), told, "BART")


register(Format("BART", MR, (".cfl",), _read, asks=ASKS))
