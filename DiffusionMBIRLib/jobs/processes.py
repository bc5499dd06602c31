"""Child processes that lead a group of their own, so that they end with all that they started.  Standard library."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any


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
