"""How a worker is started where it computes, and how it stands: as a process; ``slurm_queue`` has another way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import EngineError
from ..jobs.lock import Lock
from ..jobs.processes import BOOTSTRAP

_ALIVE = "alive"


@dataclass(frozen=True)
class Standing:
    """How a job is at present.  phase: waiting, running or gone; why: a few words where there is more to say."""

    phase: str
    why: str = ""


class Launcher(Protocol):
    """Starts workers.  A new one is a file with such a class, named in ``launchers``."""

    @property
    def poll_s(self) -> float:
        """Seconds between two questions how a job is."""
        ...

    def launch(self, folder: Path, options: Sequence[str]) -> None:
        """Start the worker of a folder; raises EngineError."""

    def standing(self, folder: Path) -> Standing: ...

    def withdraw(self, folder: Path) -> bool:
        """Called when the job is cancelled; True where it had not begun and never will."""
        ...

    def hold(self, folder: Path) -> None:
        """Called by a worker whom a signal asked to end, once its state is saved; it ends when this returns."""


def worker_command(folder: Path) -> list[str]:
    return [sys.executable, str(BOOTSTRAP), "--detached", str(folder)]


class ProcessLauncher:
    """A process that leads a session of its own and holds a lock as long as it lives, whoever started it."""

    poll_s = 0.2

    def launch(self, folder: Path, options: Sequence[str]) -> None:
        alive = folder / _ALIVE
        with alive.open("ab") as held, (folder / "log.txt").open("ab") as log:
            lock = _taken(alive)
            try:
                handle = lock.handle
                os.set_inheritable(handle, True)  # the lock is the child's as well, from its first moment on
                process = subprocess.Popen(
                    worker_command(folder),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=folder,
                    env=dict(os.environ, PYTHONSAFEPATH="1"),
                    start_new_session=True,
                    pass_fds=(handle,),
                )
            finally:
                lock.release()
            held.truncate(0)
            held.write(b"%d\n" % process.pid)
        _reap(process)

    def standing(self, folder: Path) -> Standing:
        alive = Lock(folder / _ALIVE)
        if not alive.take():
            return Standing("running")
        alive.release()
        return Standing("gone")

    def withdraw(self, folder: Path) -> bool:
        return False

    def hold(self, folder: Path) -> None:
        pass


def _taken(path: Path) -> Lock:
    """The lock of a job that is to begin; others probe it for an instant."""
    lock = Lock(path)
    for _ in range(20):
        if lock.take():
            return lock
        time.sleep(0.05)
    raise EngineError("the job is being run already")


def _reap(process: subprocess.Popen[bytes]) -> None:
    """So that no zombie is left as long as this connection lasts."""
    threading.Thread(target=process.wait, daemon=True).start()
