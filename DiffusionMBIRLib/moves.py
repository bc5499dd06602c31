"""A file or folder that takes the place of another one at once, on every system.  Needs the standard library only."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

_PATIENCE_S = 2.0


def move_over(temporary: Path, path: Path) -> None:
    """Rename ``temporary`` to ``path``, whose place it takes.  Raises OSError.

    Windows refuses as long as somebody reads the file - another program of ours, a virus scanner - which lasts a
    moment: it is tried again for a while.
    """
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            os.replace(temporary, path)
            return
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > end:
                raise
        time.sleep(0.02)
