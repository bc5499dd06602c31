"""Arrays of BART: a header .hdr with the sizes, and .cfl with complex numbers in Fortran's order."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from .companions import text_of_file
from .sizes import require_memory

_MOST_AXES = 16


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
