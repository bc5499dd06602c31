"""A worker without a client at the other end: events go to a file, commands come from one, a signal asks it to end.

So that connections may come and go, and the two may even be on different nodes of a cluster that share a disk.
"""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import cast

from .streams import take_over

EVENTS, COMMANDS = "events.jsonl", "commands.txt"
_LOOK_S = 0.1


def run_detached(folder: str) -> int:
    """Run the job of a folder; returns the exit code.

    SIGTERM, by which clusters announce that they take a node away, ends the run once its state is saved; whoever
    started it says when the process is to end then.
    """
    from typing import BinaryIO

    from .worker import serve

    path = Path(folder).absolute()
    take_over()
    commands = _Commands(path / COMMANDS)
    events = os.open(path / EVENTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)

    def hold() -> None:
        from ..engines.launchers import launcher_in

        launcher_in(path).hold(path)

    code = serve(path, events, cast("BinaryIO", commands), on_overdue=hold)
    if code and commands.signalled:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # one more ends it
        hold()
    return code


class _Commands:
    """Lines of a file that grows, until SIGTERM comes: even while the main thread is busy with a long operation."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0
        self.signalled = False
        self._signals, told = os.pipe()
        os.set_blocking(told, False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)

    def readline(self) -> bytes:
        """The next line, waited for; nothing once the signal came."""
        while not self.signalled:
            line = self._next()
            if line:
                return line
            self.signalled = bool(select.select([self._signals], [], [], _LOOK_S)[0])
        return b""

    def _next(self) -> bytes:
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._at)
                line = stream.readline()
        except OSError:
            return b""
        if not line.endswith(b"\n"):
            return b""
        self._at += len(line)
        return line
