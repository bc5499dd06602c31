"""Many devices: a group of processes, of torchrun or started here, each with a slab of slices and a device of its own.

Whoever calls :func:`DiffusionMBIRLib.reconstruct` in every process of a group with :func:`slabs_of` the scan gets the
volume that one process would give.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import EngineError, InputError

if TYPE_CHECKING:
    from .operators.slabs import Slabs
    from .scans import Scan

PATIENCE_S = 1800  # until a process that waits for the others gives up


@dataclass(frozen=True)
class Group:
    """One process among those that work on one scan.  device: as settings name it; '' to choose as usual.

    handle: of ``torch.distributed`` for a part of its processes; None for all of them.
    """

    rank: int = 0
    size: int = 1
    device: str = ""
    handle: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the process that tells the user."""
        return self.rank == 0

    def slabs_of(self, scan: Scan) -> Slabs:
        """The slabs of the scan's volume.  Raises InputError for fewer slices than processes."""
        from .operators.slabs import WHOLE, SlabsOfProcesses, bounds_of

        if self.size == 1:
            return WHOLE
        import torch

        device = torch.device(self.device or "cpu")
        return SlabsOfProcesses(bounds_of(scan.grid.shape[0], self.size), self.rank, device, self.handle)


def devices_asked(asked: str, device: str) -> int:
    """How many devices ``--devices`` asks for on this computer: a number, or all CUDA devices.

    device: as of :func:`joining`.  Raises InputError for anything else, and for more CUDA devices than there are.
    """
    if asked == "1":
        return 1
    import torch

    found = torch.cuda.device_count() if device != "cpu" else 0
    if asked == "all":
        if not found:
            raise InputError("--devices all: no CUDA device was found; for processes on the CPU give their number")
        return found
    if not asked.isdecimal() or int(asked) < 1:
        raise InputError(f"--devices {asked}: give all, or how many")
    if device == "cuda" and int(asked) > found:
        raise InputError(f"--devices {asked}: {found} CUDA device(s) found; give at most as many")
    return int(asked)


def started_by_many() -> bool:
    """Whether torchrun, or :func:`.launch.launch`, has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@contextmanager
def joining(device: str = "auto") -> Iterator[Group]:
    """The group that this process belongs to, for the block; alone where nobody has started several.

    device: 'auto', 'cpu' or 'cuda'; with CUDA each process of a host takes the device of its local rank.  Raises
    InputError for a device that the group cannot use and EngineError where its processes do not find each other.
    """
    if not started_by_many():
        yield Group()
        return
    import torch
    import torch.distributed as dist

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    own = _device_here(device)
    backend = "nccl" if own.startswith("cuda") else "gloo"
    try:
        if own != "cpu":
            torch.cuda.set_device(torch.device(own))
        from datetime import timedelta

        dist.init_process_group(backend, rank=rank, world_size=size, timeout=timedelta(seconds=PATIENCE_S))
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise EngineError(f"process {rank} of {size} did not find the others ({reason}); start them anew") from error
    try:
        yield Group(rank, size, own)
    finally:
        dist.destroy_process_group()


def _device_here(wanted: str) -> str:
    """The device of this process among those of its host."""
    import torch

    local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if wanted == "cpu" or (wanted == "auto" and not count):
        return "cpu"
    if wanted not in ("auto", "cuda"):
        raise InputError(f"device {wanted!r}: many devices are auto, cuda or cpu; leave the number to --devices")
    if local >= count:
        raise InputError(f"device cuda: {count} device(s) found, process {local} of this host has none; start fewer")
    return f"cuda:{local}"
