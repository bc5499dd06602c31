"""The other side: serves one connection, line by line, and ends with it.  Jobs go on.

Started by the script of ``look`` in the Python that is to compute.  Speaks on the pipes that it was started with;
nothing that names a patient or a scan comes here but in messages.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..errors import EngineError, InputError, one_line
from ..jobs.files import is_no_room
from ..models import sha256
from ..version import __version__
from .following import Following
from .hosted import HostedJob, hosted_jobs, keep_private, root_there
from .look import READY
from .store import Damaged, Store
from .wire import Wire

SILENT_S = 60.0  # without a word from the other end, which asks every few seconds: it is gone
LARGEST_PIECE = 4 << 20


def run_agent() -> int:
    """Serve whoever is at the other end of the standard streams; returns the exit code."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):  # what libraries print is no message
        os.dup2(nothing, standard)
    keep_private()
    agent = Agent(Wire(incoming, outgoing))
    outgoing.write(READY.encode() + b"\n")
    outgoing.flush()
    agent.serve()
    return 0


class Agent:
    """Answers questions, each by one method."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._root = root_there()
        self._store = Store(self._root / "files")
        self._heard = time.monotonic()
        self._answers: dict[str, Callable[[dict[str, Any], bytes], dict[str, Any]]] = {
            "ping": lambda asked, payload: {},
            "hello": self._hello,
            "describe": self._describe,
            "have": lambda asked, payload: {"have": self._store.have(asked["digest"], asked["size"])},
            "put": self._put,
            "begin": self._begin,
            "follow": self._follow,
            "command": self._command,
            "outputs": self._outputs,
            "get": self._get,
            "log": lambda asked, payload: {"lines": self._job(asked).folder.log_tail(60)},
            "forget": self._forget,
            "clean": self._clean,
        }

    def serve(self) -> None:
        """Until the other end is gone."""
        threading.Thread(target=self._watch, name="silence", daemon=True).start()
        with suppress(OSError, ValueError):
            while (message := self._wire.receive()) is not None:
                self._heard = time.monotonic()
                answer = self._answer(*message)
                payload = answer.pop("payload", b"")
                self._wire.send({"answer": message[0].get("ask"), **answer}, payload)

    def _watch(self) -> None:
        """A connection may die without a word: nothing of it is to stay."""
        while time.monotonic() - self._heard < SILENT_S:
            time.sleep(1.0)
        os._exit(0)

    def _answer(self, asked: dict[str, Any], payload: bytes) -> dict[str, Any]:
        try:
            return self._answers[asked["ask"]](asked, payload)
        except InputError as error:
            return {"error": one_line(error), "kind": "input"}
        except (EngineError, OSError, ImportError) as error:
            kind = "disk" if is_no_room(error) else "damaged" if isinstance(error, Damaged) else "engine"
            said = error.strerror if isinstance(error, OSError) and error.strerror else error
            return {"error": one_line(said), "kind": kind}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return {"error": f"not understood ({type(error).__name__})", "kind": "engine"}

    def _job(self, asked: dict[str, Any]) -> HostedJob:
        return HostedJob(self._root, asked["job"])

    def _hello(self, asked: dict[str, Any], payload: bytes) -> dict[str, Any]:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        free = shutil.disk_usage(self._root).free
        return {"version": __version__, "python": sys.version.split()[0], "executable": sys.executable, "free": free}

    def _describe(self, asked: dict[str, Any], payload: bytes) -> dict[str, Any]:
        from .machine_there import describe_devices

        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        entries = describe_devices(self._root)
        if asked.get("launcher") == "slurm":
            from .slurm_queue import describe_cluster

            entries |= describe_cluster()
        return {"machine": entries}

    def _put(self, asked: dict[str, Any], payload: bytes) -> dict[str, Any]:
        return {"have": self._store.put(asked["digest"], asked["size"], asked["offset"], payload)}

    def _begin(self, asked: dict[str, Any], payload: bytes) -> dict[str, Any]:
        launcher, options = asked["launcher"], asked["options"]
        return {"phase": self._job(asked).begin(asked["attempt"], launcher, options, asked["request"], asked["files"])}

    def _follow(self, asked: dict[str, Any], payload: bytes) -> dict[str, Any]:
        Following(self._wire, self._job(asked), int(asked["start"]))
        return {}

    def _command(self, asked: dict[str, Any], payload: bytes) -> dict[str, Any]:
        self._job(asked).command(str(asked["line"]).replace("\n", " "))
        return {}

    def _outputs(self, asked: dict[str, Any], payload: bytes) -> dict[str, Any]:
        found = self._job(asked).outputs()
        return {"outputs": {name: {"size": p.stat().st_size, "digest": sha256(p)} for name, p in found.items()}}

    def _get(self, asked: dict[str, Any], payload: bytes) -> dict[str, Any]:
        path = self._job(asked).outputs()[asked["name"]]
        with path.open("rb") as stream:
            stream.seek(int(asked["offset"]))
            return {"payload": stream.read(LARGEST_PIECE)}

    def _forget(self, asked: dict[str, Any], payload: bytes) -> dict[str, Any]:
        self._job(asked).forget()
        return {}

    def _clean(self, asked: dict[str, Any], payload: bytes) -> dict[str, Any]:
        """Delete jobs that are there, with "running" also those that run, and scans that were not used for long."""
        jobs = hosted_jobs(self._root)
        for job in jobs:
            if asked["running"]:
                job.command("cancel")
            job.forget(wait_s=10.0 if asked["running"] else 0.0)
        left = [job.path.name for job in hosted_jobs(self._root)]
        gone = self._store.clean(float(asked["older_than_s"]))
        return {"jobs": len(jobs) - len(left), "running": len(left), "bytes": gone}
