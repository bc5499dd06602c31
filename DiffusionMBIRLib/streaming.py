"""When the data of a scan whose slices mix go through an operator some views after the other.  Needs no torch."""

from __future__ import annotations

from typing import Any

AT_ONCE_BYTES = 2**28  # of projections that are held
_COPIES = 4  # of the data: measured, fitted, weights, and what is computed of them
_MOST_SHARE = 0.25  # of a device's memory that they may take


def views_at_once(views: int, data_bytes: float) -> int:
    """How many views make a group: all of them where their data are few."""
    groups = max(1, round(data_bytes / AT_ONCE_BYTES))
    return -(-views // groups)


def kept_as(data: Any) -> str:
    """How the data of a scan are held, for people; '' for float32 in memory, as usual."""
    narrow, base = str(data.dtype) == "float16", data
    while base is not None and type(base).__name__ != "memmap":
        base = getattr(base, "base", None)
    told = ["mapped from the file"] if base is not None else []
    return " ".join([*(["in float16"] if narrow else []), *told])


def lie_on_host(data_bytes: float, memory_bytes: int) -> bool:
    """Whether data lie on the host: where they would take more than a quarter of a device's own memory; 0 for none."""
    return memory_bytes > 0 and _COPIES * data_bytes > _MOST_SHARE * memory_bytes
