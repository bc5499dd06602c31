"""Child processes that lead a group of their own, so that they end with all that they started.  No torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from ..errors import InputError

BOOTSTRAP = Path(__file__).with_name("bootstrap.py")


def group_of_its_own() -> dict[str, Any]:
    """Options of ``subprocess.Popen`` for a process that :func:`end_tree` can end."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def end_tree(process: subprocess.Popen[Any]) -> None:
    """End a process and every one that it started, now: a launcher such as PythonSlicer, killed alone, leaves the real
    Python behind.
    """
    if sys.platform == "win32":
        command = ["taskkill", "/T", "/F", "/PID", str(process.pid)]
        subprocess.run(command, capture_output=True, check=False, creationflags=subprocess.CREATE_NO_WINDOW)
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def start_engine(
    python: Sequence[str],
    arguments: Sequence[str],
    environment: Mapping[str, str] | None,
    *,
    folder: Path,
    errors: IO[bytes] | int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start this very engine in a Python, in a folder, with pipes to and from it; errors: where it says what it cannot
    tell otherwise.  Raises InputError where that Python cannot be started.
    """
    try:
        return subprocess.Popen(
            [*python, str(BOOTSTRAP), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env=_without_here(os.environ if environment is None else environment),
            **group_of_its_own(),
        )
    except OSError as error:
        raise InputError(f"{python[0]}: cannot be started as Python ({error.strerror}); choose another") from None


def _without_here(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a worker, whose working directory is the job's folder: no module is to be imported from there.

    An empty or relative entry of PYTHONPATH would mean that folder, for Python's own start as well.
    """
    variables = {**environment, "PYTHONSAFEPATH": "1"}  # of Python 3.11 and newer
    entries = [os.path.abspath(entry) for entry in variables.pop("PYTHONPATH", "").split(os.pathsep) if entry]
    return {**variables, "PYTHONPATH": os.pathsep.join(entries)} if entries else variables
