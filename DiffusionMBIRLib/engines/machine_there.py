"""Versions, devices and their memory, as plain entries; the agent tells them of the other side."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from ..version import __version__


def describe_devices(disk: Path | None = None) -> dict[str, Any]:
    """Version, Python, torch and devices (name, title, total and free bytes); disk_free of the disk of a folder."""
    import torch

    from ..host_memory import host_memory
    from ..rates import machine_key

    devices: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        title = torch.cuda.get_device_name(index)
        devices.append({"name": f"cuda:{index}", "title": title, "total": int(total), "free": int(free)})
    total, free = host_memory()
    if torch.backends.mps.is_available():
        devices.append({"name": "mps", "title": "Apple GPU", "total": total, "free": free})
    devices.append({"name": "cpu", "title": "CPU", "total": total, "free": free})
    entries: dict[str, Any] = {"version": __version__, "python": sys.version.split()[0], "torch": torch.__version__}
    entries["machine"] = machine_key(threads=torch.get_num_threads(), torch_version=torch.__version__)
    entries |= {"devices": devices, "cpu_threads": torch.get_num_threads()}
    return entries | ({"disk_free": shutil.disk_usage(disk).free} if disk is not None else {})
