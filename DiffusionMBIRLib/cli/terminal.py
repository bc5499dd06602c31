"""The terminal, whatever it is: one that knows ASCII only, one that is closed or full, a pipe that nobody reads."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress

from ..errors import one_line
from ..names import printable

_SPACES = "\n\t\r\v\f"
_STREAMS = ("stdout", "stderr")


class _Closed(io.TextIOBase):
    """In the place of a stream that was closed before the start; says so when something was to be read there."""

    def __init__(self) -> None:
        self._lost = False

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._lost = True
        return len(text)

    def flush(self) -> None:
        if self._lost:
            self._lost = False
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def prepare() -> None:
    """Make both streams take any text, and keep the handles of closed ones from files that are opened later."""
    for handle in (0, 1, 2):
        try:
            os.fstat(handle)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # takes the lowest free handle, which is this one
    for name in _STREAMS:
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, _Closed())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def put(text: str) -> bool:
    """Write lines on stdout; False, with a line on stderr, where it does not take them."""
    try:
        sys.stdout.write(text + "\n")
    except (OSError, ValueError) as error:
        _lost(error)
        return False
    return True


def tell(text: str) -> None:
    """Write lines on stderr, if anybody can read them there."""
    with suppress(OSError, ValueError):
        sys.stderr.write(printable(text, keep="\n\t") + "\n")
        sys.stderr.flush()


def refuse(reason: object) -> None:
    """Say in one line, which begins with the program's name, why a command ends."""
    tell(f"diffusionmbir: {one_line(printable(reason, keep=_SPACES))}")


def settle() -> bool:
    """Write out what is left; False, with a line on stderr, where the standard output did not take it."""
    whole = True
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        _lost(error)
        whole = False
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        _leave(sys.stderr)
    return whole


def _lost(error: Exception) -> None:
    """Say that the standard output did not take what was written, and keep Python from trying it again at its end."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else "it is closed"
    refuse(f"the standard output cannot be written to ({why})")
    _leave(sys.stdout)


def _leave(stream: object) -> None:
    if isinstance(stream, io.TextIOWrapper):
        with suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)
            stream.flush()
