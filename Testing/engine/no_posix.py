"""Runs a program without what only POSIX has, the branches for Windows taken: ``python no_posix.py PROGRAM ARGUMENTS``.

What Windows has and this system lacks - msvcrt, kernel32 - is played; so is that a file which somebody reads cannot be
replaced.  Libraries are imported before, since they look for the real system when they are.
"""

from __future__ import annotations

import builtins
import ctypes
import fcntl
import os
import runpy
import sys
import types
from typing import Any

POSIX_MODULES = ("fcntl", "grp", "posix_ipc", "pwd", "resource", "termios", "tty")
POSIX_NAMES = (
    "fork", "getpgid", "getuid", "geteuid", "killpg", "posix_fallocate", "setsid", "sysconf", "uname", "O_NOFOLLOW",
    "O_NONBLOCK",
)  # fmt: skip
REFUSALS = 2  # times that a file cannot be replaced, as if somebody read it
TOTAL, FREE = 16 << 30, 12 << 30


def played_msvcrt() -> types.ModuleType:
    """Locks of one byte, as far as the module ``lock`` uses them."""
    module = types.ModuleType("msvcrt")
    module.LK_NBLCK = 2  # type: ignore[attr-defined]
    flock, how = fcntl.flock, fcntl.LOCK_EX | fcntl.LOCK_NB

    def locking(handle: int, mode: int, size: int) -> None:
        assert (mode, size) == (2, 1)
        flock(handle, how)

    module.locking = locking  # type: ignore[attr-defined]
    return module


def played_kernel32() -> Any:
    """Memory as GlobalMemoryStatusEx tells it."""

    def status(pointer: Any) -> int:
        found = pointer._obj
        names = [name for name, _kind in found._fields_]
        assert found.length == ctypes.sizeof(found)
        setattr(found, names[2], TOTAL)
        setattr(found, names[3], FREE)
        return 1

    kernel = types.SimpleNamespace(GlobalMemoryStatusEx=status)
    return types.SimpleNamespace(kernel32=kernel)


def take_posix_away() -> None:
    """From now on this process finds nothing that Windows does not have, as far as our own code could ask for it."""
    sys.modules["msvcrt"] = played_msvcrt()
    ctypes.windll = played_kernel32()  # type: ignore[attr-defined]
    for name in POSIX_MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for name in POSIX_NAMES:
        if hasattr(os, name):
            delattr(os, name)
    really_open, really_replace = builtins.open, os.replace
    refused: dict[str, int] = {}

    def open_without_proc(file: Any, *arguments: Any, **choices: Any) -> Any:
        if str(file).startswith("/proc"):
            raise FileNotFoundError(2, "no such file", str(file))
        return really_open(file, *arguments, **choices)

    def replace(source: Any, target: Any) -> None:
        refused[str(target)] = refused.get(str(target), 0) + 1
        if refused[str(target)] <= REFUSALS:
            raise PermissionError(13, "the file is being used by another process", str(target))
        really_replace(source, target)

    builtins.open, os.replace = open_without_proc, replace  # type: ignore[assignment]
    sys.platform = "win32"


def main() -> None:
    import numpy  # noqa: F401
    import scipy.ndimage
    import scipy.sparse  # noqa: F401
    import SimpleITK  # noqa: F401
    import torch  # noqa: F401

    take_posix_away()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
