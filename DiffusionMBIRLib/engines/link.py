"""A connection to an agent: a process with pipes, be it ``ssh`` or a shell of this computer."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, cast

from ..errors import EngineError, InputError
from ..jobs.files import NotSaved
from .base import Unreachable
from .look import FOUND, OVER, READY, found_python, no_engine
from .wire import Wire

_HANDSHAKE_S = 60.0
_ANSWER_S = 60.0
_NOISE_LINES = 500  # that a login may print before we are heard
_LINES_OF_ERRORS = 40


class Damage(EngineError):
    """A file arrived damaged on the other side."""


class Link:
    """One connection.  Questions are asked by one thread; what the other side tells by itself waits in a queue."""

    def __init__(
        self, name: str, where: str, command: Sequence[str], script: bytes, why: Callable[[str, int], EngineError]
    ) -> None:
        """Start the command, give it the script, and wait for the agent.

        why: what is to be said of a connection that ended, by what the command printed and its exit code.
        Raises Unreachable, or EngineError where the other side answers and cannot serve.
        """
        self.name, self.where = name, where
        self._why = why
        self._errors: deque[str] = deque(maxlen=_LINES_OF_ERRORS)
        self._answers: queue.Queue[tuple[dict[str, Any], bytes] | None] = queue.Queue()
        self._pushed: queue.Queue[tuple[dict[str, Any], bytes] | None] = queue.Queue()
        self._process = open_shell(command)
        errors = cast("BinaryIO", self._process.stderr)
        self._listening = threading.Thread(target=self._listen, args=(errors,), name="errors", daemon=True)
        self._listening.start()
        try:
            self._wire = self._met(script)
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._receive, name="link", daemon=True).start()

    def _listen(self, errors: BinaryIO) -> None:
        with suppress(OSError, ValueError):
            for line in errors:
                self._errors.append(line.decode("utf-8", "replace").strip())

    def _met(self, script: bytes) -> Wire:
        incoming, outgoing = cast("BinaryIO", self._process.stdout), cast("BinaryIO", self._process.stdin)
        late = threading.Timer(_HANDSHAKE_S, self._process.kill)
        late.daemon = True
        late.start()
        found = []
        try:
            with suppress(OSError):
                outgoing.write(script)
                outgoing.flush()
            for _ in range(_NOISE_LINES):
                line = incoming.readline(1 << 16).decode("utf-8", "replace")
                if line.strip() == READY:
                    return Wire(incoming, outgoing)
                if line.startswith(FOUND):
                    about = found_python(line)
                    found += [about] if about is not None else []
                if line.strip() == OVER:
                    raise no_engine(self.name, self.where, found)
                if not line:
                    break
        finally:
            late.cancel()
        raise self._lost()

    def _lost(self) -> EngineError:
        """Why the connection is no more."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2.0)
        self._listening.join(1.0)
        code = self._process.poll()
        return self._why("\n".join(self._errors), -1 if code is None else code)

    def _receive(self) -> None:
        with suppress(OSError, ValueError):
            while (message := self._wire.receive()) is not None:
                (self._answers if "answer" in message[0] else self._pushed).put(message)
        self._answers.put(None)
        self._pushed.put(None)

    def ask(
        self, ask: str, payload: bytes | memoryview = b"", *, within_s: float = _ANSWER_S, **entries: Any
    ) -> dict[str, Any]:
        """The answer to a question; its bytes, if it has any, are ``payload``.

        Raises Unreachable where the connection is lost, InputError and EngineError as the other side does.
        """
        try:
            self._wire.send({"ask": ask, **entries}, payload)
            message = self._answers.get(timeout=within_s)
        except queue.Empty:
            raise Unreachable(f"{self.where}: does not answer any more") from None
        except (OSError, ValueError):
            message = None
        if message is None:
            raise self._as_unreachable()
        answer, brought = message
        if "error" in answer:
            raise self._refused(str(answer["error"]), str(answer.get("kind")))
        return answer | {"payload": brought}

    def _as_unreachable(self) -> Unreachable:
        """Once there was a connection, its end says nothing of the job."""
        lost = self._lost()
        return lost if isinstance(lost, Unreachable) else Unreachable(str(lost))

    def _refused(self, said: str, kind: str) -> EngineError | InputError:
        if kind == "input":
            return InputError(f"{self.where}: {said}")
        if kind == "disk":
            return NotSaved(
                f"on {self.where}: {said}; make room there, for instance by `diffusionmbir engine clean {self.name}`, "
                "and resume the job"
            )
        return (Damage if kind == "damaged" else EngineError)(f"{self.where}: {said}")

    def pushed(self, within_s: float) -> tuple[dict[str, Any], bytes] | None:
        """What the other side told by itself, None where nothing came in time.  Raises Unreachable."""
        try:
            message = self._pushed.get(timeout=within_s)
        except queue.Empty:
            return None
        if message is None:
            self._pushed.put(None)
            raise self._as_unreachable()
        return message

    def close(self) -> None:
        """End the connection; what runs on the other side goes on."""
        end_shell(self._process)


_PATHS = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def system_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a program of the system: Slicer puts its own libraries first, which ``ssh`` does not bear."""
    variables = {**environment, "LC_ALL": "C"}
    slicer = variables.get("SLICER_HOME")
    if slicer:
        for name in ("PYTHONHOME", "PYTHONPATH"):
            variables.pop(name, None)
        for name in _PATHS:
            entries = variables.pop(name, "").split(os.pathsep)
            kept = [entry for entry in entries if entry and not entry.startswith(slicer)]
            variables |= {name: os.pathsep.join(kept)} if kept else {}
    return variables


def open_shell(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a command that is a shell on some computer.  Raises EngineError where it cannot be started."""
    options: dict[str, Any] = {}
    if sys.platform == "win32":
        options["creationflags"] = subprocess.CREATE_NO_WINDOW
    # The working directory is a job's folder: no program is to be taken from there.
    try:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=system_environment(os.environ),
            **options,
        )
    except OSError as error:
        raise EngineError(f"{command[0]}: cannot be started ({error.strerror}); install an OpenSSH client") from None


def end_shell(process: subprocess.Popen[bytes]) -> None:
    """Let it end by itself, since its input does; end it where it does not."""
    with suppress(OSError, ValueError):
        if process.stdin is not None:
            process.stdin.close()
    end = time.monotonic() + 1.0
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    if process.poll() is None:
        process.kill()
        process.wait()
    for stream in (process.stdout, process.stderr):
        with suppress(OSError, ValueError):
            if stream is not None:
                stream.close()
