"""Which launcher a job has: noted in its folder, where whoever meets the job later finds it, its own worker as well."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from ..jobs.files import write_text
from .launching import Launcher, ProcessLauncher
from .slurm_queue import SlurmLauncher

_NOTE = "launcher.json"


def launcher_of(name: str) -> Launcher:
    if name == "slurm":
        return SlurmLauncher()
    return ProcessLauncher()


def launcher_in(folder: Path) -> Launcher:
    """The launcher of a job's folder; that of processes where none is noted."""
    with suppress(OSError, ValueError):
        return launcher_of(json.loads((folder / _NOTE).read_text())["launcher"])
    return ProcessLauncher()


def note_launcher(folder: Path, name: str) -> None:
    """Raises OSError."""
    write_text(folder / _NOTE, json.dumps({"launcher": name}))
