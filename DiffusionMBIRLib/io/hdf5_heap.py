"""A file as libhdf5 reads it, looked at on the way: heaps of texts in which libhdf5 would go round for ever.

HDF5 keeps texts and lists of varying length in global heaps (HDF5 file format, III.E).  libhdf5 walks a heap from
object to object by their sizes, and where damage made a step 0, or so large that it wraps round, that walk has no end,
within one call that nothing but the process's death can stop.  So each heap is walked here first, in a microsecond an
object.  A child process with a time limit would also do, but it costs 0.2 s for each time that a file is opened, and
would refuse large files on slow disks.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ..errors import InputError

_MAGIC = b"GCOL"
_HEAD = 16  # bytes before a heap's first object, and of an object before its data, whatever the width of lengths
_WRAP = 1 << 64
_FARTHEST = 1 << 62  # bytes from a file's begin, beyond what systems count
_ONCE = 1 << 30  # bytes that systems give in one call


class GuardedFile(io.RawIOBase):
    """A file to read, for ``h5py.File``.

    lengths: bytes of a length in this file, to be set once it is known.  Raises InputError from within a read for a
    heap that has no end.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("rb", buffering=0)
        self.lengths = 8

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if not abs(offset) < _FARTHEST:
            raise InputError(f"{self._path}: is damaged (it points to where no file reaches); copy or export it again")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any, /) -> int:
        """Fills the buffer; with zeros from the file's end on, as HDF5's own driver does."""
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view):
            count = self._file.readinto(view[done : done + _ONCE])
            if not count:
                view[done:] = bytes(len(view) - done)
                break
            done += count
        if view[:4] == _MAGIC and not walk_ends(view, self.lengths):
            raise InputError(f"{self._path}: is damaged (a heap of its texts has no end); copy or export it again")
        return len(view)

    def close(self) -> None:
        self._file.close()
        super().close()


def walk_ends(heap: memoryview, lengths: int = 8) -> bool:
    """Whether a walk over a heap's objects goes forward in each step, as far as the heap is there.

    lengths: bytes of each length in it.
    """
    end, at = min(len(heap), int.from_bytes(heap[8 : 8 + lengths], "little")), _HEAD
    while at + _HEAD <= end:
        index = int.from_bytes(heap[at : at + 2], "little")
        size = int.from_bytes(heap[at + 8 : at + 8 + lengths], "little")
        step = (_HEAD + (size + 7) // 8 * 8 if index else size) % _WRAP  # number 0 is what is free, with its head
        if not 0 < step < _WRAP // 2:
            return False
        at += step
    return True
