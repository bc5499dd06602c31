"""Arrays of MATLAB files: version 5 to 7 through scipy (extra ``mri``), version 7.3 is HDF5."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .hdf5 import opened
from .sizes import require_bytes, require_memory

_FAN_BEAM = ("CtDataLimited", "CtDataFull", "CtData")  # structures of Helsinki's tomography data
_NUMBERS = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "logical")


def is_matlab_hdf5(path: Path) -> bool:
    """True for version 7.3, which keeps its signature of HDF5 behind MATLAB's own header."""
    with path.open("rb") as stream:
        begin = stream.read(520)
    return b"\x89HDF\r\n\x1a\n" in (begin[:8], begin[512:520])


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
    try:
        from scipy.io import loadmat, whosmat
    except ImportError:
        raise InputError(
            f'{path}: MATLAB files before version 7.3 need scipy: pip install "diffusionmbir[mri]", or save with -v7.3'
        ) from None
    try:
        listed = {name: (shape, kind) for name, shape, kind in whosmat(path)}
        _refuse_fan_beam(path, list(listed))
        numbers = [name for name, (_, kind) in listed.items() if kind in _NUMBERS]
        for name in numbers:
            size = [max(n, 1) for n in listed[name][0]]
            require_bytes(str(path), f"its variable {name}", prod(size), path.stat().st_size)
            require_memory(str(path), size, 16)
        wanted = [name for name in (variable, mask) if name] if variable else numbers
        found = {k: np.asarray(v) for k, v in loadmat(path, variable_names=wanted).items() if k in numbers}
    except InputError:
        raise
    except Exception as error:  # scipy's reader of damaged files raises whatever comes
        raise InputError(f"{path}: cannot be read as a MATLAB file; is it truncated?") from error
    candidates = [name for name, values in found.items() if values.dtype.kind == "c" and min(values.shape) > 0]
    chosen = _choose(path, candidates, numbers, variable)
    if mask and mask not in found:
        raise InputError(f"{path}: has no variable {mask!r} for the mask; there are {', '.join(numbers)}")
    return found[chosen], found[mask] if mask else None


def _refuse_fan_beam(path: Path, names: list[str]) -> None:
    if set(names) & set(_FAN_BEAM):
        raise InputError(f"{path}: holds fan-beam CT projections, which are not supported; rebin them to parallel beam")
