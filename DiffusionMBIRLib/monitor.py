"""Who watches a run: progress with metrics, previews and cancellation.  Needs numpy at most."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol, TextIO


class Monitor(Protocol):
    """Watches a run.  ``tick`` may raise :class:`DiffusionMBIRLib.errors.Cancelled` to end it."""

    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        """``done`` of ``total`` steps of ``stage`` are finished."""

    def preview(self, volume: Any, step: int) -> None:
        """The current estimate (slices, rows, columns) on the device, in the prior's value scale; copy to keep it."""


class Silent:
    """Watches nothing."""

    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        return None

    def preview(self, volume: Any, step: int) -> None:
        return None


class Console:
    """A progress bar with stage, step and time left, redrawn in place on a terminal and sparse in a log file."""

    def __init__(self, stream: TextIO | None = None, width: int = 28) -> None:
        self._stream = stream or sys.stderr
        self._width = width
        self._stage = ""
        self._ticked = self._start = time.monotonic()
        self._last = 0.0
        self._base = 0  # steps that were done before this run took the stage up

    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        now = time.monotonic()
        if stage != self._stage:
            # A tick tells of a step that is over: the stage began when the one before ended - or, in a resumed run,
            # at some step.
            resumed = done > 1 and done < total
            self._base, self._start = (done, now) if resumed else (0, self._ticked)
            self._stage, self._last = stage, 0.0
        self._ticked = now
        terminal = self._stream.isatty()
        finished = done >= total
        if not finished and now - self._last < (0.1 if terminal else 10.0):
            return
        self._last = now
        elapsed = now - self._start
        clock = f"{elapsed:.1f} s" if finished else _left(elapsed, done - self._base, total - done)
        filled = self._width * done // max(total, 1)
        bar = "#" * filled + "." * (self._width - filled)
        extra = "".join(f"  {name} {value:.4g}" for name, value in metrics.items())
        line = f"{stage:<18} [{bar}] {done}/{total}  {clock}{extra}"
        if terminal:
            self._stream.write(f"\r\x1b[2K{line}" + ("\n" if finished else ""))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def preview(self, volume: Any, step: int) -> None:
        return None


def _left(elapsed_s: float, done: int, remaining: int) -> str:
    if done <= 0:
        return "..."
    seconds = elapsed_s / done * remaining
    if seconds < 100:
        return f"{seconds:.0f} s left"
    return f"{seconds / 60:.0f} min left" if seconds < 5400 else f"{seconds / 3600:.1f} h left"
