"""Data of a scan in half the room: float16, with what that rounds measured and told.  Needs numpy only."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from ..errors import InputError
from .base import Scan

STORAGES = ("float32", "float16")
LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


AnyScan = TypeVar("AnyScan", bound=Scan)


def in_float16(scan: AnyScan) -> AnyScan:
    """The scan with its data in float16, as files then hold them; a remark of its provenance says how far they are off.

    Half of the last of eleven bits, 1/2048 of a value at most, while it is above 6e-5.  Raises InputError for complex
    data, which have no such type, and for values that are beyond its range.
    """
    data = scan.data
    if data.dtype.kind != "f":
        raise InputError(f"{scan.name}: storage float16 is for real data, k-space is complex; use float32")
    halves = np.empty(data.shape, np.float16)
    largest = square = size = 0.0
    for part, half in zip(data, halves, strict=True):  # a part at a time: data may be mapped from a file
        most = float(np.abs(part).max(initial=0.0))
        if most > LARGEST_FLOAT16:
            raise InputError(
                f"{scan.name}: data reaches {most:.4g}, float16 ends at {LARGEST_FLOAT16:.0f}; use storage float32"
            )
        half[...] = part
        off = half.astype(np.float64) - part
        largest = max(largest, float(np.abs(off).max(initial=0.0)))
        square += float(np.square(off).sum())
        size += float(np.square(part, dtype=np.float64).sum())
    rms = math.sqrt(square / size) if size else 0.0
    told = scan.provenance.get("remarks", [])
    rounded = f"data are stored in float16: off by {rms:.1e} of their size (rms), by {largest:.2g} at most"
    remarks = [*told, rounded] if isinstance(told, list) else [rounded]
    changed: dict[str, Any] = {"data": halves, "provenance": {**scan.provenance, "remarks": remarks}}
    return replace(scan, **changed)
