"""The newest estimate of a running job, passed from the worker to whoever looks through one file.

Two slots take turns, each with a record (sequence, step, sequence) that is negative while its slot is being written: a
reader takes the newer slot and looks at its record again afterwards.  So it never gets a torn volume, and however slow
it is, it never holds up the worker.  The file is read and written, not mapped: a disk that runs full or a file that is
cut short would end a process that maps it, and that might be the one with the user's scene.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..geometry import contiguous
from ..moves import move_over

NAME = "preview.raw"
_MAGIC = b"DMBIRpv1"
_SHAPE = struct.Struct("<8s3q")
_RECORD = struct.Struct("<3q")
_RECORDS_AT = 64
_DATA_AT = 4096
_TRIES = 20


def file_bytes(shape: tuple[int, ...]) -> int:
    """What previews of a volume take on disk."""
    return _DATA_AT + 2 * _slot_bytes(shape)


def _slot_bytes(shape: tuple[int, ...]) -> int:
    return 4 * int(np.prod(shape, dtype=np.int64))


class PreviewWriter:
    """Writes volumes (slices, rows, columns) as float32.  Raises OSError where the disk is full."""

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        if _shape_of(path) != shape:
            _create(path, shape)
        self._file = path.open("r+b", buffering=0)
        self.sequence = max(0, *(first for first, _, _ in _records(self._file)))

    def write(self, volume: np.ndarray, step: int) -> int:
        """Put a volume in the older slot; returns its sequence number."""
        data = contiguous(volume).astype("<f4", copy=False)
        if data.shape != self.shape:
            raise ValueError(f"a preview of shape {data.shape} does not fit {self.shape}")
        sequence = self.sequence + 1
        slot = sequence % 2
        self._record(slot, -sequence, step)
        self._file.seek(_DATA_AT + slot * data.nbytes)
        _write_all(self._file, data)
        self._record(slot, sequence, step)
        self.sequence = sequence
        return sequence

    def _record(self, slot: int, sequence: int, step: int) -> None:
        self._file.seek(_RECORDS_AT + slot * _RECORD.size)
        _write_all(self._file, np.frombuffer(_RECORD.pack(sequence, step, sequence), np.uint8))

    def close(self) -> None:
        self._file.close()


class PreviewReader:
    """Reads the newest complete preview of a file that may not be there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, out: np.ndarray | None = None) -> tuple[np.ndarray, int] | None:
        """(volume, step), or None as long as there is none.

        out: a float32 array to fill, contiguous and of the volume's shape; another one is made where it does not fit.
        Its content is undefined after None.
        """
        shape = _shape_of(self._path)
        if shape is None:
            return None
        fits = out is not None and out.shape == shape and out.dtype == np.float32 and out.flags.c_contiguous
        array = out if fits and out is not None else np.empty(shape, np.float32)
        try:
            with self._path.open("rb", buffering=0) as file:
                return _read(file, array)
        except (OSError, struct.error):
            return None  # the file is gone


def _read(file: BinaryIO, array: np.ndarray) -> tuple[np.ndarray, int] | None:
    for _ in range(_TRIES):
        newest = _newest(file)
        if newest is None:
            return None
        slot, sequence, step = newest
        file.seek(_DATA_AT + slot * array.nbytes)
        if _read_all(file, array) and _records(file)[slot] == (sequence, step, sequence):
            return array, step
        time.sleep(0.001)
    return None


def _create(path: Path, shape: tuple[int, int, int]) -> None:
    """Make the file with all the room it needs: better to learn here than in the middle of a run that there is none."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb", buffering=0) as file:
        _write_all(file, np.frombuffer(_SHAPE.pack(_MAGIC, *shape).ljust(_DATA_AT, b"\0"), np.uint8))
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, file_bytes(shape))
        else:
            file.truncate(file_bytes(shape))
    move_over(temporary, path)


def _shape_of(path: Path) -> tuple[int, int, int] | None:
    """The shape that a file is made for; None for a file that is missing or no preview."""
    try:
        with path.open("rb") as file:
            magic, *shape = _SHAPE.unpack(file.read(_SHAPE.size))
            size = os.fstat(file.fileno()).st_size
    except (OSError, struct.error):
        return None
    found = (int(shape[0]), int(shape[1]), int(shape[2]))
    return found if magic == _MAGIC and size == file_bytes(found) else None


def _records(file: BinaryIO) -> list[tuple[int, int, int]]:
    file.seek(_RECORDS_AT)
    text = file.read(2 * _RECORD.size)
    first, second = _RECORD.iter_unpack(text)
    return [(int(a), int(b), int(c)) for a, b, c in (first, second)]


def _newest(file: BinaryIO) -> tuple[int, int, int] | None:
    """(slot, sequence, step) of the newest complete preview."""
    complete = [(s, slot, step) for slot, (s, step, again) in enumerate(_records(file)) if s == again and s > 0]
    if not complete:
        return None
    sequence, slot, step = max(complete)
    return slot, sequence, step


def _write_all(file: BinaryIO, data: np.ndarray) -> None:
    rest = data.data.cast("B")
    while rest:
        rest = rest[file.write(rest) :]


def _read_all(file: BinaryIO, array: np.ndarray) -> bool:
    rest = array.data.cast("B")
    while rest:
        count = file.readinto(rest)  # type: ignore[attr-defined]
        if not count:
            return False
        rest = rest[count:]
    return True
