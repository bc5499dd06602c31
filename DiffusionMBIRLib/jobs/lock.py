"""One worker a folder: a lock that the system lets go when its process ends, however it ends."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

NAME = "lock"


class Lock:
    """Held from :meth:`take` until :meth:`release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def take(self) -> bool:
        """False if another process has it.  Raises OSError where the file cannot be made."""
        file = self._path.open("ab")
        try:
            _lock(file)
        except OSError:
            file.close()
            return False
        self._file = file
        return True

    @property
    def handle(self) -> int:
        """Of the file that holds the lock: a child that inherits it holds the lock as well."""
        assert self._file is not None
        return self._file.fileno()

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def is_taken(path: Path) -> bool:
    """True while a process holds the lock."""
    if path.is_symlink() or not path.is_file():  # opened, a pipe would wait for a writer
        return False
    probe = Lock(path)
    try:
        free = probe.take()
    except OSError:
        return False
    probe.release()
    return not free


if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
