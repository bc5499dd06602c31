"""A worker's standard streams: a private pipe for events, one for commands, and a log for whatever libraries print.

Needs the standard library only, so that the first event leaves before anything heavy is imported.
"""

from __future__ import annotations

import faulthandler
import io
import os
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from .messages import Event, Preview, Progress, encode

_LONGEST_BACKLOG = 1000
_BYTES_OF_LOG = 20 << 20  # a library that prints in a loop must not fill the disk


class Channel:
    """Sends events through a pipe from a thread of its own: a reader that stalls never holds up the run."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._waiting: deque[Event] = deque()
        self._change = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def send(self, event: Event) -> None:
        """Returns at once.  Of a long backlog, progress and previews are left out, the oldest first."""
        with self._change:
            self._waiting.append(event)
            if len(self._waiting) > _LONGEST_BACKLOG:
                self._leave_one_out()
            self._change.notify()

    def _leave_one_out(self) -> None:
        for index, event in enumerate(self._waiting):
            if isinstance(event, Progress | Preview):
                del self._waiting[index]
                return

    def close(self, timeout_s: float = 5.0) -> None:
        """Wait until all is sent, but not for ever."""
        with self._change:
            self._closing = True
            self._change.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._change:
                while not self._waiting and not self._closing:
                    self._change.wait()
                if not self._waiting:
                    return
                event = self._waiting.popleft()
            try:
                line = (encode(event) + "\n").encode("utf-8")
                while line:
                    line = line[os.write(self._handle, line) :]
            except OSError:
                return  # nobody listens; the end of the commands tells the run so


class _Log(io.RawIOBase):
    """Appends to a log and swallows what does not fit: a print must never end a run."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._written = 0

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._handle

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._written += len(data)
        if self._written <= _BYTES_OF_LOG:
            with suppress(OSError):
                os.write(self._handle, data)
        return len(data)


def take_over() -> tuple[int, BinaryIO]:
    """Private copies of stdout (a handle) and stdin; from here on both outputs go nowhere until :func:`log_to` names a
    file, and stdin is empty.

    Standard input is emptied because, on Windows, a library that asks for its type while a thread waits for a command
    would wait as well.
    """
    events, commands = os.dup(1), os.fdopen(os.dup(0), "rb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.close(nothing)
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(_Log(1)), "utf-8", "replace", line_buffering=True)
    sys.stderr = io.TextIOWrapper(io.BufferedWriter(_Log(2)), "utf-8", "replace", line_buffering=True)
    sys.stdin = io.TextIOWrapper(io.BytesIO(), "utf-8")
    return events, commands


def log_to(log: Path) -> None:
    """Let all that is printed go to a file, if that can be written."""
    with suppress(OSError):
        handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.close(handle)
    faulthandler.enable(2)


def write_log(text: str) -> None:
    """A line for the log, with the time."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
