"""Reading of k-space alone, under the names of the first version, which people's scripts import."""

from __future__ import annotations

import os
from typing import Any

from ..describe import describe_scan
from ..errors import InputError
from ..scans import KSpace
from .scans import read_scan


def read_kspace(path: str | os.PathLike[str]) -> KSpace:
    """As ``read_scan``, for files of k-space.  Raises InputError for what cannot be read and for measurements of CT."""
    scan = read_scan(path)
    if not isinstance(scan, KSpace):
        raise InputError(f"{path}: holds a measurement of CT, no k-space")
    return scan


def describe(kspace: KSpace) -> dict[str, Any]:
    """As ``describe_scan``."""
    return describe_scan(kspace)
