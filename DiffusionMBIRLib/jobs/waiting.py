"""A worker's process before there is a job: it imports what takes long and waits for a line that names a folder.

It ends when its client does, and when nobody asked for long enough.  One job, then it ends like any worker, so that
nothing of a run is left to the next one.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import BinaryIO

from .streams import take_over


def wait_for_job(idle_s: float, device: str) -> int:
    """Wait so many seconds at most; returns the exit code of the job, 0 where there was none."""
    events, commands = take_over()
    call = _Call(commands)
    _get_ready(device)
    folder = call.wait(idle_s)
    if not folder:
        return 0
    from .worker import serve

    path = Path(folder)
    os.chdir(path)  # as for any worker
    return serve(path, events, commands, warm=True)


class _Call:
    """The first line of the commands, waited for in a thread: a client that ends takes us along at any time."""

    def __init__(self, commands: BinaryIO) -> None:
        self._commands = commands
        self._folder = ""
        self._heard = threading.Event()
        threading.Thread(target=self._listen, name="call", daemon=True).start()

    def _listen(self) -> None:
        line = self._commands.readline()  # unbuffered: what follows is left to whoever listens next
        if not line:
            os._exit(0)
        self._folder = line.decode("utf-8", "surrogateescape").rstrip("\n")
        self._heard.set()

    def wait(self, seconds: float) -> str:
        """The folder; '' where none was named in time."""
        self._heard.wait(seconds)
        return self._folder


def _get_ready(device: str) -> None:
    """Import what a job needs, and make on a tiny scan what is made at first use.  What goes wrong the job will say."""
    try:
        import numpy as np

        from .. import Grid, Volume, simulate
        from ..config import ReconSettings
        from ..reconstruction import reconstruct
        from . import task  # noqa: F401

        water = Volume(np.zeros((2, 32, 32), np.float32), Grid((2, 32, 32)))
        reconstruct(simulate(water, views=4), settings=ReconSettings(method="fbp"), device=device)
    except Exception:
        return
