"""A running job, seen from the program that started it.  No Qt, no torch: numpy and the standard library."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO

import numpy as np

from ..errors import InputError
from ..geometry import Grid
from .files import require_no_links
from .folder import LOG, JobFolder
from .messages import Continued, Event, Failed, Finished, Paused, Prepared, decode
from .partial import NAME as PARTIAL
from .partial import write_partial
from .preview import NAME as PREVIEW
from .preview import PreviewReader
from .processes import end_tree, start_engine
from .standby import Standby

_LONGEST_LINE = 1 << 20
_GRACE_S, _GRACE_REMOTE_S = 1.5, 15.0
_LAUNCHER_S = 1.0  # for the real Python to end after a launcher did


class Job:
    """One worker process and what it tells.  Made by :meth:`start`; every method returns at once but :meth:`wait`."""

    def __init__(
        self,
        folder: JobFolder,
        process: subprocess.Popen[bytes],
        instead: Callable[[], subprocess.Popen[bytes]] | None = None,
    ) -> None:
        """instead: starts another process, where this one, which was there before, ends without a word."""
        self.folder = folder
        self.pid = process.pid
        self.paused = False
        self.prepared: Prepared | None = None
        self.last_word: Event | None = None  # Finished or Failed, once poll() has returned it
        self._process = process
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._cancelled = self._closed = False
        self._killer: threading.Timer | None = None
        self._dead_since: float | None = None
        self._sending = threading.Lock()
        self._instead = instead
        self._sent: list[str] = []  # as long as another process may have to be told again
        self._reader = PreviewReader(folder.path / PREVIEW)
        self._thread = threading.Thread(target=self._listen, name="job events", daemon=True)
        self._thread.start()

    @classmethod
    def start(
        cls,
        folder: JobFolder,
        *,
        python: Sequence[str] = (sys.executable,),
        environment: Mapping[str, str] | None = None,
        standby: Standby | None = None,
    ) -> Job:
        """Start a worker, which goes on from where an earlier one of this folder was.

        python: the command that starts the engine's Python.  environment: all its variables, by default this
        process's own.  standby: a process that waits for a job, which becomes the worker if it was started alike.
        Raises InputError where that Python cannot be started, or the folder is gone.
        """
        folder = JobFolder(folder.path.absolute())
        if not folder.path.is_dir():
            raise InputError(f"{folder.path}: the folder of the job is gone; begin a new job")
        require_no_links(folder.path)

        def fresh() -> subprocess.Popen[bytes]:
            return _start_worker(folder, python, environment)

        warm = standby.take(folder.path, python, environment) if standby is not None else None
        return cls(folder, fresh()) if warm is None else cls(folder, warm, instead=fresh)

    # --- events

    @property
    def running(self) -> bool:
        """True until :meth:`poll` has returned the last word."""
        return self.last_word is None

    def poll(self) -> list[Event]:
        """What came since the last call.  Ends with Finished or Failed, once, however the worker ends."""
        self._look_after_launcher()
        events: list[Event] = []
        while self.last_word is None:
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                break
            events.append(event)
            self._note(event)
        return events

    def _note(self, event: Event) -> None:
        if isinstance(event, Paused | Continued):
            self.paused = isinstance(event, Paused)
        elif isinstance(event, Finished | Failed):
            self.last_word = event
            self.paused = False

    def wait(self, timeout_s: float | None = None) -> Event:
        """The last word, for callers without a loop of their own; other events are dropped.

        Raises TimeoutError if it does not come in time.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while self.last_word is None:
            self.poll()
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"the job did not end within {timeout_s} s")
            if self.last_word is None:
                time.sleep(0.01)
        return self.last_word

    def _listen(self) -> None:
        """In a thread: lines to events, and a last word if the worker leaves none."""
        last = self._hear()
        if self._instead is not None:  # nothing was heard
            self._begin_anew(self._instead)
            last = self._hear()
        self.close()
        if self._killer is not None:
            self._killer.cancel()
        self._events.put(self._last_word(last))

    def _hear(self) -> Event | None:
        """All that the process tells, to its end; its last word, if it left one."""
        stream = self._process.stdout
        assert stream is not None
        last: Event | None = None
        with suppress(OSError, ValueError):
            for line in iter(lambda: stream.readline(_LONGEST_LINE), b""):
                self._instead = None
                event = decode(line)
                if isinstance(event, Prepared):
                    self.prepared = event
                if isinstance(event, Finished | Failed):
                    last = event
                else:
                    self._events.put(event)
        self._process.wait()
        stream.close()
        return last

    def _begin_anew(self, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        """A process that waited for us has ended before it heard of the job."""
        with self._sending, suppress(InputError):
            if self._cancelled or self._closed:
                return
            with suppress(OSError):
                if self._process.stdin is not None:
                    self._process.stdin.close()
            self._process, self._instead = start(), None
            self.pid = self._process.pid
            self._dead_since = None
            for command in self._sent:
                self._write(command)

    def _last_word(self, told: Event | None) -> Event:
        if isinstance(told, Finished) or (told is not None and not self._cancelled):
            return told
        if self._cancelled:
            return self._cancelled_word()
        code = self._process.returncode
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Failed(
            f"the computing process ended unexpectedly ({how}); resume the job, or look into its log", "crash", True
        )

    def _cancelled_word(self) -> Finished:
        """For a worker that did not end by itself: the newest preview becomes the partial volume."""
        path = self.folder.path / PARTIAL
        with suppress(OSError):
            found = PreviewReader(self.folder.path / PREVIEW).read()
            if found is not None and self.prepared is not None:
                grid = Grid.from_dict(self.prepared.grid)
                write_partial(path, found[0], grid, unit=self.prepared.unit, step=found[1])
        word = Finished(0.0, None, 0, 0.0, None, PARTIAL if path.is_file() else "", True)
        with suppress(OSError):
            self.folder.write_last_word(word)
        return word

    # --- commands

    def pause(self) -> None:
        self._send("pause")

    def resume(self) -> None:
        self._send("resume")

    def set_preview(self, on: bool, interval_s: float) -> None:
        """Whether previews are told of, and how many seconds lie between them at least."""
        self._send(f"interval {max(0.0, interval_s):.3f}")
        self._send("preview on" if on else "preview off")

    def cancel(self, grace_s: float | None = None) -> None:
        """Ask the worker to end; after the grace time its process tree is killed.  Ends in Finished(partial=True).

        The default leaves half a second of two for a volume of 256^3 to be written, and more for a remote one.
        """
        grace_s = grace_s or (_GRACE_REMOTE_S if self.folder.is_remote else _GRACE_S)
        if self._cancelled or not self.running:
            return
        self._cancelled = True
        self._send("cancel")
        self._killer = threading.Timer(grace_s, self.kill)
        self._killer.daemon = True
        self._killer.start()

    def kill(self) -> None:
        """End the worker and every process that it started, now."""
        if self._thread.is_alive():
            end_tree(self._process)

    def close(self) -> None:
        """Let go of the job: a worker that still runs saves its state and ends by itself."""
        with self._sending, suppress(OSError):
            self._closed = True
            if self._process.stdin is not None:
                self._process.stdin.close()

    def _send(self, command: str) -> None:
        with self._sending:
            if self._instead is not None:
                self._sent.append(command)
            self._write(command)

    def _write(self, command: str) -> None:
        with suppress(OSError, ValueError):  # a worker that has ended is no concern of the caller
            if self._process.stdin is not None:
                self._process.stdin.write(f"{command}\n".encode())
                self._process.stdin.flush()

    def _look_after_launcher(self) -> None:
        """PythonSlicer is a launcher: where it dies and the Python that it started does not, that one goes as well."""
        if self.last_word is not None or self._process.poll() is None or not self._thread.is_alive():
            return
        now = time.monotonic()
        self._dead_since = self._dead_since or now
        if now - self._dead_since > _LAUNCHER_S:
            end_tree(self._process)

    # --- previews

    def read_preview(self, out: np.ndarray | None = None) -> tuple[np.ndarray, int] | None:
        """The newest complete preview, float32 (slices, rows, columns) in the user's axis order, and its step.

        out: an array to fill where it fits.  None as long as there is no preview.  At the end of a run that was not
        cancelled this is the result.
        """
        return self._reader.read(out)


def _start_worker(
    folder: JobFolder, python: Sequence[str], environment: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    try:
        log: IO[bytes] | int = (folder.path / LOG).open("ab")  # what Python says before the worker is up
    except OSError:
        log = subprocess.DEVNULL
    try:
        return start_engine(python, [str(folder.path)], environment, folder=folder.path, errors=log)
    finally:
        if not isinstance(log, int):
            log.close()
