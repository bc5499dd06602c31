"""What the C library does with freed memory.  glibc only; elsewhere nothing happens."""

from __future__ import annotations

import contextlib
import ctypes

# Of glibc's malloc.h, and the largest values that help and that it takes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_AT_MOST, _LARGEST_BLOCK = 2**29, 2**25


def keep_what_is_free() -> None:
    """Keep up to half a gigabyte of freed memory for the next blocks of the process.

    A reconstruction asks for the same volumes and activations at every noise level.  By itself glibc gives the largest
    of them back to the system each time and the next level has to be given zeroed pages again: on two cores of an AMD
    EPYC 4 % of a run of 40 slices of 128 x 128.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)  # first: with one of them set the other stays at its default
        library.mallopt(_TRIM_THRESHOLD, _KEPT_AT_MOST)


def give_back_what_is_free() -> None:
    """Let the C library return freed memory to the system, which it would keep for blocks as small."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
