"""Sizes that a file announces, against what it can hold and what the machine has, before memory is taken."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from ..errors import InputError
from ..host_memory import UNKNOWN, host_memory

_DENSEST = 1100  # bytes that a byte of the file can stand for; deflate reaches 1032
_SMALLEST = 1 << 20  # bytes that are read without a look at the file's size


def require_memory(name: str, shape: Iterable[int], itemsize: int = 8) -> None:
    """Raise InputError where an array that a header announces cannot lie in this machine's free memory, twice."""
    sizes = [int(n) for n in shape]
    if min(sizes) < 1:
        raise InputError(f"{name}: its header announces an empty matrix {tuple(sizes)}; is the file damaged?")
    needed, there = prod(sizes) * itemsize, free_memory()
    if 2 * needed > there:
        raise InputError(
            f"{name}: its header announces k-space {tuple(sizes)} of {needed / 1e9:.1f} GB, this machine has "
            f"{there / 1e9:.1f} GB of free memory; is the file damaged? else close programs or cut it into parts"
        )


def require_bytes(name: str, what: str, announced: int, file_bytes: int) -> None:
    """Raise InputError where a file announces more bytes than its own could hold, however well compressed."""
    if announced > max(_SMALLEST, _DENSEST * file_bytes):
        raise InputError(
            f"{name}: {what} announces {announced / 1e9:.3g} GB, the file has {file_bytes} bytes; is it damaged?"
        )


def free_memory() -> int:
    """Bytes that can be had without swapping; where the system does not tell, more than files hold."""
    return host_memory()[1] or UNKNOWN
