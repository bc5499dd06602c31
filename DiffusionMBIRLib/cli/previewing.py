"""The newest estimate of a run in a file, for whoever wants to look at it meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import EngineError, InputError
from ..monitor import Monitor

SHARE = 0.03  # of the time that writing may take
_LEAST_S = 2.0  # between two of them


class PreviewFile:
    """Obeys :class:`DiffusionMBIRLib.monitor.Monitor`.  A file that cannot be written is told once; the run goes on."""

    def __init__(self, inside: Monitor, path: Path, warn: Callable[[str], None]) -> None:
        self._inside, self._path, self._warn = inside, path, warn
        self._next = 0.0
        self._on = True

    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        self._inside.tick(stage, done, total, **metrics)

    def preview(self, estimate: Callable[[], Any], step: int) -> None:
        began = time.monotonic()
        if not self._on or began < self._next:
            return
        try:
            estimate().save(self._path)
        except (EngineError, InputError) as error:
            self._on = False
            self._warn(f"previews are off: {error}")
        self._next = time.monotonic() + max(_LEAST_S, (time.monotonic() - began) / SHARE)

    def poll(self) -> None:
        self._inside.poll()
