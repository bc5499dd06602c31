"""The memory of the device that a worker runs on."""

from __future__ import annotations

import torch

from ..host_memory import host_memory


def memory(device: torch.device) -> tuple[int, int]:
    """(total, free) bytes; zeros where the system does not tell.  Apple's GPU has that of the processor."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(total), int(free)
    return host_memory()
