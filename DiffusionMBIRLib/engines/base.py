"""What an engine is, and how one is named: ``local``, ``ssh:HOST``, ``slurm``, ``slurm:HOST``.  Costs nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import EngineError, InputError

if TYPE_CHECKING:
    from ..jobs.control import Control
    from ..jobs.folder import JobFolder
    from ..jobs.messages import Event

LOCAL = "local"
_KINDS = {"local": "local:Local", "ssh": "ssh:Ssh", "slurm": "slurm:Slurm"}
# What ssh takes as a destination.  None of it begins with a dash, or could be taken for an option or a command.
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@%+-]*")
_PYTHON = re.compile(r"[~/A-Za-z0-9_][^\x00-\x1f\x7f]*")


class Unreachable(EngineError):
    """No connection at present; the job there, if there is one, is not concerned."""


class Runs(Protocol):
    """A job that is being worked on: what a worker does between its first and its last event."""

    def run(self) -> Event: ...

    def keep_partial(self) -> Event: ...


class Engine(Protocol):
    """Serves folders of jobs.  name: as the user gave it; where: for people."""

    name: str
    where: str

    def task(self, folder: JobFolder, control: Control, send: Callable[[Event], None]) -> Runs: ...

    def describe(self) -> dict[str, Any]:
        """What is there: version, Python, torch, devices with their memory in bytes.  Raises what a job would."""
        ...


def kinds_of_engines() -> tuple[str, ...]:
    return tuple(_KINDS)


def engine_of(name: str, options: Sequence[str] = ()) -> Engine:
    """The engine of a name, KIND[:HOST[:PYTHON]].

    options: of SLURM's ``sbatch``, such as --partition=gpu.  Raises InputError for a name that is none.
    """
    kind, _, rest = name.partition(":")
    host, _, python = rest.partition(":")
    if kind not in _KINDS:
        raise InputError(f"engine {name!r}: use local, ssh:HOST, slurm or slurm:HOST")
    if (kind == "local" and rest) or (kind == "ssh" and not host):
        raise InputError(f"engine {name!r}: " + ("local has no host" if rest else "name the host, as in ssh:HOST"))
    if host and not _HOST.fullmatch(host):
        raise InputError(
            f"engine {name!r}: {host!r} is no name of a host; what else ssh has to know goes into ~/.ssh/config"
        )
    if python and not _PYTHON.fullmatch(python):
        raise InputError(f"engine {name!r}: {python!r} is no path of a Python")
    if options and kind != "slurm":
        raise InputError(f"engine {name!r}: options of sbatch are for slurm only")
    module, _, cls = _KINDS[kind].partition(":")
    make: Callable[..., Engine] = getattr(import_module(f"{__package__}.{module}"), cls)
    return make(name, host, python, tuple(options))


def engine_to_json(name: str, options: Sequence[str] = ()) -> str:
    """What the folder of a job says of its engine; raises InputError as :func:`engine_of` does."""
    engine_of(name, options)
    return json.dumps({"engine": name, "options": list(options)})


def engine_from_json(text: str, path: Any) -> Engine:
    """The engine that a job's folder names; raises InputError that names the file."""
    try:
        entries = json.loads(text)
        name, options = entries["engine"], entries["options"]
        if not isinstance(name, str) or not all(isinstance(option, str) for option in options):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}: is damaged and names no engine; begin a new job") from None
    return engine_of(name, options)
