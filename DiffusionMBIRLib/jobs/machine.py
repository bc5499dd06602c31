"""The memory of the device that a worker runs on."""

from __future__ import annotations

import os
import sys

import torch


def memory(device: torch.device) -> tuple[int, int]:
    """(total, free) bytes; zeros where the system does not tell.  Apple's GPU has that of the processor."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(total), int(free)
    if sys.platform == "win32":
        return _windows_memory()
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total = page * os.sysconf("SC_PHYS_PAGES")
        return total, _linux_available() or page * os.sysconf("SC_AVPHYS_PAGES")
    except (OSError, ValueError):  # macOS knows no free pages
        return 0, 0


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
