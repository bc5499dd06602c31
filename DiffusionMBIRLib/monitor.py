"""Who watches a run (progress with metrics, previews, cancellation) and who keeps its state.  Needs numpy at most."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TextIO


class Monitor(Protocol):
    """Watches a run.  ``tick`` and ``poll`` may raise :class:`DiffusionMBIRLib.errors.Cancelled` to end it."""

    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        """``done`` of ``total`` steps of ``stage`` are finished."""

    def preview(self, estimate: Callable[[], Any], step: int) -> None:
        """After ``step`` steps of the present stage.  ``estimate()`` makes the volume and costs nothing if not called.

        To a caller of :func:`DiffusionMBIRLib.reconstruct` it gives a Volume in HU in the user's own axis order; inside
        the engine a tensor (slices, rows, columns) on the device in the prior's value scale, which changes later.
        """

    def poll(self) -> None:
        """Between sub-batches of slices, many times a step; may wait (a pause) or raise Cancelled."""


class Checkpoint(Protocol):
    """Keeps the state of a run, so that a killed one goes on where it was.  States are dictionaries of tensors."""

    def load(self, stage: str) -> dict[str, Any] | None:
        """The last state that was saved of a stage, with the layout in memory that it had; None if there is none."""

    def save(self, stage: str, state: dict[str, Any]) -> None:
        """Offered after every step; whether it is worth its time to write is for the keeper to say.  Its tensors change
        once this returns.
        """


class NoCheckpoint:
    """Keeps nothing."""

    def load(self, stage: str) -> dict[str, Any] | None:
        return None

    def save(self, stage: str, state: dict[str, Any]) -> None:
        return None


class Silent:
    """Watches nothing."""

    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        return None

    def preview(self, estimate: Callable[[], Any], step: int) -> None:
        return None

    def poll(self) -> None:
        return None


class Polled(Silent):
    """Passes on nothing but the wish to end."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def poll(self) -> None:
        self._monitor.poll()


class Console(Silent):
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
        text = f"\r\x1b[2K{line}" + ("\n" if finished else "") if terminal else line + "\n"
        with suppress(OSError, ValueError):  # a stream that is full or closed must not end the run
            self._stream.write(text)
            self._stream.flush()


def _left(elapsed_s: float, done: int, remaining: int) -> str:
    if done <= 0:
        return "..."
    seconds = elapsed_s / done * remaining
    if seconds < 100:
        return f"{seconds:.0f} s left"
    return f"{seconds / 60:.0f} min left" if seconds < 5400 else f"{seconds / 3600:.1f} h left"
