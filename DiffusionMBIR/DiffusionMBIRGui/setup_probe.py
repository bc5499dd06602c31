"""Runs in the engine's Python, by its path: prints as its last line one JSON object that says what that Python has.

problem is 'python' (too old), 'torch' (cannot be loaded, for this reason) or empty: whoever shows it has the words.
"""

import importlib.metadata
import json
import os
import re
import sys


def lacking(path):
    """The lines of a requirements file that this Python does not meet."""
    missing = []
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            text = line.split("#")[0].strip()
            match = re.match(
                r"([A-Za-z0-9_.-]+)\s*(?:>=\s*([0-9.]+))?\s*(?:;\s*python_version\s*<\s*'([0-9.]+)')?$", text
            )
            if not match:
                continue
            name, least, below = match.groups()
            if below and sys.version_info[:2] >= numbers(below):
                continue
            try:
                found = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found = ""
            if not found or (least and numbers(found) < numbers(least)):
                missing.append(text.split(";")[0].strip())
    return missing


def numbers(version):
    return tuple(int(part) for part in re.match(r"[0-9]+(?:\.[0-9]+)*", version).group().split("."))


def cpu_share():
    """The CPU's share of a report: memory in bytes, 0 where it cannot be told."""
    total = free = 0
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total = page * os.sysconf("SC_PHYS_PAGES")
        free = page * os.sysconf("SC_AVPHYS_PAGES")
        with open("/proc/meminfo", encoding="ascii") as stream:  # what caches hold is free, too
            free = next(int(line.split()[1]) * 1024 for line in stream if line.startswith("MemAvailable"))
    except (AttributeError, OSError, StopIteration, ValueError):
        pass
    if not total and sys.platform == "win32":
        total, free = windows_memory()
    return {"name": "cpu", "title": "CPU", "total": total, "free": free}


def windows_memory():
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
            (name, ctypes.c_ulonglong)
            for name in ("total", "free", "page", "page_free", "virtual", "virtual_free", "x")
        ]

    status = Status()
    status.length = ctypes.sizeof(status)
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return 0, 0
    return status.total, status.free


def main(requirements):
    report = {
        "python": ".".join(map(str, sys.version_info[:3])),
        "torch": "",
        "machine": "",
        "devices": [],
        "problem": "",
        "reason": "",
    }
    report["lacking"] = lacking(requirements)
    if sys.version_info < (3, 10):  # noqa: UP036 - any Python may be tried
        report["problem"] = "python"
        report["lacking"] = []
    elif not report["lacking"]:
        try:
            import torch

            report["torch"] = torch.__version__
            for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
                free, total = torch.cuda.mem_get_info(index)
                title = torch.cuda.get_device_name(index)
                report["devices"].append({"name": f"cuda:{index}", "title": title, "total": total, "free": free})
            from DiffusionMBIRLib.rates import machine_key

            report["machine"] = machine_key(threads=torch.get_num_threads(), torch_version=torch.__version__)
            if torch.backends.mps.is_available():  # its memory is the processor's
                report["devices"].append({**cpu_share(), "name": "mps", "title": "Apple GPU"})
            import DiffusionMBIRLib  # noqa: F401
        except Exception as error:  # a broken torch raises anything
            report["problem"] = "torch"
            report["reason"] = (str(error).splitlines() or [type(error).__name__])[0]
        report["devices"].append(cpu_share())
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
