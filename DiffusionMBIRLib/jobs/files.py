"""Files of a job that survive a power cut: written to a temporary name, flushed to the disk, renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import EngineError, InputError
from ..moves import move_over

_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, getattr(errno, "EDQUOT", errno.ENOSPC))

# No link, no pipe that is waited for and, on Windows, no ends of lines that change.
_PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_LONGEST_TEXT = 16 << 20


@contextlib.contextmanager
def rewriting(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A stream whose content takes the place of ``path``, whole or not at all.  Raises OSError.

    durable: wait for the disk, so that it survives a power cut from then on.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as stream:  # follows no link
            yield stream
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        move_over(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def require_no_links(folder: Path) -> None:
    """Raise InputError that names a symbolic link in a job's folder: what it leads to would be written or deleted."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.is_symlink() or getattr(entry, "is_junction", bool)():
            raise InputError(f"{entry.path}: is a link, which a job's folder must not hold; remove it")
        if entry.is_dir(follow_symlinks=False):
            require_no_links(Path(entry.path))


def read_text(path: Path) -> str:
    """The text of a small file of a job.  Raises OSError, also for what is no plain file, and ValueError."""
    handle = os.open(path, os.O_RDONLY | _PLAIN)
    with open(handle, "rb") as stream:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or about.st_size > _LONGEST_TEXT:
            raise OSError(errno.EINVAL, "is not a small file")
        return stream.read().decode("utf-8")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.  Raises OSError."""
    with rewriting(path) as stream:
        stream.write(text.encode("utf-8"))


def sync(path: Path) -> None:
    """See to it that a file which was written and renamed by others is on the disk."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renames in a folder last, where the system knows how."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class NotSaved(EngineError):
    """A result could not be written."""


def is_no_room(error: BaseException | None) -> bool:
    """True where an error, or what it came from, is a disk that is full or cannot be written to."""
    if isinstance(error, NotSaved):
        return True
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        error = error.__cause__
    return False
