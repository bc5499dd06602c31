"""An engine that is kept warm: a process that has imported all and waits to become the worker of the next job."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .processes import BOOTSTRAP, end_tree, start_engine

IDLE_S = 600.0  # without a job, until it ends by itself


class Standby:
    """One waiting process.  It serves one job at most; whoever wants to stay ready starts another.

    python, environment: as for :meth:`DiffusionMBIRLib.jobs.client.Job.start`.  device: that the next job will most
    likely be computed on.  Raises InputError where that Python cannot be started.
    """

    def __init__(
        self,
        python: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        device: str = "auto",
        idle_s: float = IDLE_S,
    ) -> None:
        self._made_for = self._key(python, environment)
        # In the engine's own folder, which stays; a job's folder is entered once there is one.
        arguments = ("--wait", f"{idle_s:g}", device)
        self._process: subprocess.Popen[bytes] | None = start_engine(
            python, arguments, environment, folder=BOOTSTRAP.parent
        )
        self.pid = self._process.pid

    @staticmethod
    def _key(python: Sequence[str], environment: Mapping[str, str] | None) -> tuple[object, ...]:
        return tuple(python), None if environment is None else tuple(sorted(environment.items()))

    def fits(self, python: Sequence[str], environment: Mapping[str, str] | None) -> bool:
        """Whether it was started as a job with these would be."""
        return self._key(python, environment) == self._made_for

    @property
    def alive(self) -> bool:
        """False once it serves a job, was closed or has ended."""
        return self._process is not None and self._process.poll() is None

    def take(
        self, folder: Path, python: Sequence[str], environment: Mapping[str, str] | None
    ) -> subprocess.Popen[bytes] | None:
        """The process, which is the worker of a job's folder from now on; None if it has ended, or was started
        otherwise than a job with this Python and environment would be, and is ended then.

        It may still end before it hears of the job: then nothing at all comes from it.
        """
        process, self._process = self._process, None
        lost = process is None or process.poll() is not None
        if process is None or lost or not self.fits(python, environment) or "\n" in str(folder):
            _end(process)
            return None
        try:
            assert process.stdin is not None
            process.stdin.write(str(folder).encode("utf-8", "surrogateescape") + b"\n")
            process.stdin.flush()
        except OSError:
            _end(process)
            return None
        return process

    def close(self) -> None:
        """End it, if it serves no job."""
        process, self._process = self._process, None
        _end(process)


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is None:
        return
    if process.poll() is None:
        end_tree(process)
    for stream in (process.stdin, process.stdout):
        with suppress(OSError):
            if stream is not None:
                stream.close()
    threading.Thread(target=process.wait, daemon=True).start()  # so that nothing of it is left
