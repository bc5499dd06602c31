"""Scans of BART: k-space and its trajectory, a pair of .hdr and .cfl each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError
from ..formats import MR, Format, register
from ..scans import KSpace
from .cfl import read_cfl
from .trajectory_arrays import read_with_trajectory
from .trajectory_scan import ASKS, told_of

_CALLED = "traj"  # BART's own command of that name


def _read(path: Path, **given: Any) -> KSpace:
    told = told_of(**given)
    if not told.trajectory:
        beside = [path.with_name(name) for name in (f"{path.stem}_{_CALLED}.cfl", f"{_CALLED}.cfl")]
        found = next((file for file in beside if file.is_file() and file != path), None)
        if found is None:
            raise InputError(f"{path}: is BART's; give the file of its trajectory with --trajectory")
        told = told_of(**{**given, "trajectory": str(found)})
    return read_with_trajectory(path, read_cfl(path), told, "BART")


register(Format("BART", MR, (".cfl",), _read, asks=ASKS))
