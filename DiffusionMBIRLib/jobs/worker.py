"""The worker process of a job: one folder, events out, commands in, and always a last word.

Imports the standard library only until the first event has left.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..version import __version__
from .messages import Continued, Event, Failed, Finished, Log, Paused, Started
from .streams import Channel, log_to, take_over, write_log

if TYPE_CHECKING:
    from .folder import JobFolder

_LOCK_TRIES = 20


def main(folder: str) -> int:
    """Run the job of a folder; returns the exit code."""
    events, commands = take_over()
    return serve(Path(folder).absolute(), events, commands)


def serve(
    path: Path,
    events: int,
    commands: BinaryIO,
    *,
    warm: bool = False,
    on_overdue: Callable[[], None] = lambda: None,
) -> int:
    """Run the job of a folder for a client at the other ends of two pipes; returns the exit code.

    warm: this process was up before there was a job, so that its start tells nothing of what others will take.
    on_overdue: called before the process is ended in the middle of a step, where the client is gone.
    """
    log_to(path / "log.txt")
    channel = Channel(events)
    state = path / "state"
    resumed = state.is_dir() and any(p.suffix == ".pt" for p in state.iterdir())
    channel.send(Started(path.name, __version__, os.getpid(), resumed))
    worker = Worker(path, channel, warm=warm, on_overdue=on_overdue)
    worker.listen(commands)
    last = worker.run()
    channel.send(last)
    channel.close()
    worker.control.ended.set()
    sys.stderr.flush()
    return 0 if isinstance(last, Finished) else 1


class Worker:
    """Runs the task, and says how it ended."""

    def __init__(
        self, path: Path, channel: Channel, *, warm: bool = False, on_overdue: Callable[[], None] = lambda: None
    ) -> None:
        from .control import Control

        self._path, self._channel = path, channel
        self._redact: Any = None
        self.control = Control(
            on_pause=lambda paused: self.send(Paused() if paused else Continued()),
            on_unknown=lambda command: self.send(Log("warning", f"unknown command: {command[:100]}")),
            on_early_cancel=self._end_early,
            on_overdue=on_overdue,
            warm=warm,
        )
        self._folder: JobFolder | None = None  # once its lock is ours

    def listen(self, commands: Any) -> None:
        threading.Thread(target=self.control.listen, args=(commands,), name="commands", daemon=True).start()

    def send(self, event: Event) -> None:
        if isinstance(event, Log):
            self.log(f"{event.level}: {event.text}")
        self._channel.send(event)

    def log(self, text: str) -> None:
        write_log(self._redact(text) if self._redact else text)

    def run(self) -> Event:
        """The last word, which is also written to the folder."""
        try:
            return self._run()
        except Exception as error:
            return self._unexpected(error)

    def _end_early(self) -> None:
        """Cancelled while libraries are being imported or data read, which may take longer than a client waits."""
        partial = (self._path / "result-partial.nrrd").is_file()
        last = Finished(0.0, None, 0, 0.0, None, "result-partial.nrrd" if partial else "", True)
        if self._folder is not None:
            with suppress(OSError):
                self._folder.write_last_word(last)
        self._channel.send(last)
        self._channel.close()
        os._exit(0)

    def _unexpected(self, error: Exception) -> Failed:
        self.log(traceback.format_exc())
        if isinstance(error, ImportError):
            package = (error.name or str(error)).partition(".")[0]
            reason = f"the package {package} is missing in {sys.executable}; install it there or choose another Python"
            return Failed(reason, "engine", True)
        return Failed(f"{type(error).__name__}: {_one_line(error)}", "crash", True)

    def _run(self) -> Event:
        from ..errors import InputError
        from .files import require_no_links
        from .folder import SUMMARY, JobFolder
        from .lock import NAME, Lock

        folder = JobFolder(self._path)
        try:
            require_no_links(self._path)
        except InputError as error:
            return self._failed(error, "input", False)
        lock = Lock(self._path / NAME)
        if self.control.client_gone:
            return _nobody_listens(folder)
        if not _taken(lock):
            return Failed("the job is being run by another process; wait for it or cancel it", "input", False)
        self._folder = folder
        before = folder.last_word()
        if isinstance(before, Finished) and not before.partial:
            return before
        (self._path / SUMMARY).unlink(missing_ok=True)
        last = self._attempt(folder)
        if self.control.client_gone and isinstance(last, Failed):
            return last  # nobody hears it: the job is one that was interrupted
        try:
            folder.write_last_word(last)
        except OSError as error:
            self.log(f"error: the summary cannot be written: {error.strerror}")
            if isinstance(last, Finished) and not last.partial:
                last = Failed(f"the result cannot be recorded: {error.strerror}; make room and resume", "disk", True)
        if isinstance(last, Finished) and not last.partial:
            _forget_state(self._path)
        self.log(f"ended: {type(last).__name__}")
        return last

    def _attempt(self, folder: JobFolder) -> Event:
        """Prepare and run; what goes wrong becomes the last word."""
        from ..errors import Cancelled, EngineError, InputError
        from .control import ClientGone
        from .files import is_no_room
        from .redact import redactor

        task = None
        try:
            self._redact = redactor(folder.request)
            self.log(f"DiffusionMBIR {__version__}, Python {sys.version.split()[0]}")
            task = folder.engine.task(folder, self.control, self.send)
            self.log(f"settings: {_settings_text(folder)}")
            if self.control.cancelled:
                return task.keep_partial()
            return task.run()
        except ClientGone:
            return _nobody_listens(folder)
        except Cancelled:
            assert task is not None
            return task.keep_partial()
        except InputError as error:
            return self._failed(error, "input", False)
        except (EngineError, OSError, MemoryError) as error:
            full = is_no_room(error)
            reason = f"the disk is full or cannot be written to ({_one_line(error)})" if full else _one_line(error)
            return self._failed(reason, "disk" if full else "engine", True)
        except Exception as error:
            return self._unexpected(error)

    def _failed(self, reason: object, kind: str, resumable: bool) -> Failed:
        line = _one_line(reason)
        self.log(f"error: {line}")
        return Failed(line, kind, resumable)


def _settings_text(folder: JobFolder) -> str:
    """What a log says of the settings: no path."""
    from ..provenance import plain

    return json.dumps(plain(folder.request.recon_settings()))


def _nobody_listens(folder: JobFolder) -> Failed:
    return Failed("the program that started the job has ended", "crash", folder.resumable)


def _taken(lock: Any) -> bool:
    """Whether the lock could be had; others probe it for an instant, so one refusal says nothing."""
    for _ in range(_LOCK_TRIES):
        if lock.take():
            return True
        time.sleep(0.05)
    return False


def _forget_state(path: Path) -> None:
    for file in (path / "state").glob("*"):
        file.unlink(missing_ok=True)


def _one_line(text: object) -> str:
    return " ".join(str(text).split()) or type(text).__name__
