"""How much memory this machine has, and the check that what a file announces fits into it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from math import prod

from .errors import EngineError, InputError

UNKNOWN = 64 << 30  # where the system does not tell


def host_memory() -> tuple[int, int]:
    """(total, free) bytes; zeros where the system does not tell."""
    if sys.platform == "win32":
        return _windows_memory()
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total = page * os.sysconf("SC_PHYS_PAGES")
        return total, _linux_available() or page * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # macOS knows no free pages
        return 0, 0


def require_room(name: str, shape: Iterable[int], itemsize: int) -> None:
    """Raise before an array that a header announces is allocated.

    InputError where the shape is empty or the array larger than this machine's memory, EngineError where it is larger
    than what is free.
    """
    sizes = tuple(int(n) for n in shape)
    if min(sizes, default=1) < 1:
        raise InputError(f"{name}: its header announces an empty array {sizes}; is the file damaged?")
    needed, (total, free) = prod(sizes) * itemsize, host_memory()
    if needed > (total or UNKNOWN):
        raise InputError(
            f"{name}: its header announces {sizes} values, {needed / 1e9:.1f} GB; this machine has "
            f"{(total or UNKNOWN) / 1e9:.1f} GB of memory; is the file damaged? else cut it into parts"
        )
    if free and needed > free:
        raise EngineError(
            f"{name}: needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free; close other programs"
        )


def _linux_available() -> int:
    """Free memory with what the cache would give back; 0 where it is not told."""
    try:
        with open("/proc/meminfo", encoding="ascii") as stream:
            lines = dict(line.split(":", 1) for line in stream if ":" in line)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0


def _windows_memory() -> tuple[int, int]:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
            (name, ctypes.c_ulonglong)
            for name in ("total", "free", "page_total", "page_free", "virtual_total", "virtual_free", "extended")
        ]

    status = Status(length=ctypes.sizeof(Status))
    found = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return (int(status.total), int(status.free)) if found else (0, 0)
