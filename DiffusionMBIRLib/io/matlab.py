"""Arrays of MATLAB files: version 5 to 7, and version 7.3, which is HDF5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from . import matlab5
from .hdf5 import opened
from .sizes import require_memory

FAN_BEAM = ("CtDataLimited", "CtDataFull", "CtData")  # structures of Helsinki's tomography data


def is_matlab_hdf5(path: Path) -> bool:
    """True for version 7.3, which keeps its signature of HDF5 behind MATLAB's own header."""
    with path.open("rb") as stream:
        begin = stream.read(520)
    return b"\x89HDF\r\n\x1a\n" in (begin[:8], begin[512:520])


def is_fan_beam(path: Path) -> bool:
    """Whether a file of version 5 to 7 holds a structure of fan-beam projections; a glance that raises nothing."""
    try:
        if path.suffix.lower() != ".mat" or is_matlab_hdf5(path):
            return False
        with matlab5.opened(path) as file:
            return any(variable.name in FAN_BEAM for variable in file.variables)
    except (InputError, OSError):
        return False


def read_matlab(path: Path, variable: str, mask: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The array named ``variable``, or the only one that can be k-space, and that named ``mask``.

    Axes are in MATLAB's order.  Raises InputError that lists the variables where the choice is not clear.
    """
    return _read_73(path, variable, mask) if is_matlab_hdf5(path) else _read_5(path, variable, mask)


def _choose(path: Path, candidates: list[str], there: list[str], wanted: str) -> str:
    if wanted:
        if wanted in there:
            return wanted
        raise InputError(f"{path}: has no variable {wanted!r}; there are {', '.join(there) or 'none'}")
    if len(candidates) == 1:
        return candidates[0]
    which = ", ".join(candidates or there) or "none"
    raise InputError(
        f"{path}: which variable is the k-space is not clear ({which}); name it in {path.with_suffix('.json').name}, "
        "under variable"
    )


# --- version 7.3


def _read_73(path: Path, variable: str, mask: str) -> tuple[np.ndarray, np.ndarray | None]:
    import h5py

    with opened(path) as fields:
        there = [key for key in fields.file if not key.startswith("#")]
        inside = [key for key in there if fields.file.get(key, getclass=True, getlink=True) is h5py.HardLink]
        arrays = [key for key in inside if isinstance(fields.file[key], h5py.Dataset)]
        _refuse_fan_beam(path, there)
        candidates = [key for key in arrays if _is_complex(fields.file[key]) and fields.file[key].ndim > 1]
        chosen = _choose(path, candidates, arrays, variable)
        return _values_73(fields, chosen), _values_73(fields, mask) if mask else None


def _is_complex(node: Any) -> bool:
    return node.dtype.kind == "c" or set(node.dtype.names or ()) == {"real", "imag"}


def _values_73(fields: Any, name: str) -> np.ndarray:
    node = fields.dataset(name)
    require_memory(str(fields.path), node.shape or (1,), max(node.dtype.itemsize, 8))
    if not _is_complex(node) and node.dtype.kind not in "biuf":
        raise InputError(f"{fields.path}: the variable {name} holds no numbers")
    values = np.asarray(node[()])
    if values.dtype.names:
        if any(values.dtype[part].kind not in "iuf" for part in ("real", "imag")):
            raise InputError(f"{fields.path}: the variable {name} holds no numbers")
        values = values["real"] + 1j * values["imag"]
    return values.transpose()  # HDF5 holds MATLAB's axes in reverse


# --- version 5


def _read_5(path: Path, variable: str, mask: str) -> tuple[np.ndarray, np.ndarray | None]:
    with matlab5.opened(path) as file:
        there = {one.name: one for one in file.variables}
        numbers = {name: one for name, one in there.items() if one.type}
        candidates = [name for name, one in numbers.items() if one.is_complex and min(one.shape) > 0]
        chosen = _choose(path, candidates, list(numbers), variable)
        if mask and mask not in numbers:
            raise InputError(f"{path}: has no variable {mask!r} for the mask; there are {', '.join(numbers)}")
        return file.values(numbers[chosen]), file.values(numbers[mask]) if mask else None


def _refuse_fan_beam(path: Path, names: list[str]) -> None:
    if set(names) & set(FAN_BEAM):
        raise InputError(f"{path}: holds fan-beam CT projections in version 7.3, which is not read; save it with -v7")
