"""What the client asks of a running worker, as lines on stdin; their end means that the client is gone."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import BinaryIO

from ..errors import Cancelled

COMMANDS = ("cancel", "pause", "resume", "preview on", "preview off", "interval S")
GRACE_S = 10.0  # for a run without a client to save its state
_CANCEL_S = 0.7  # a cancelled run may finish its step within this, so that the partial volume is the newest


class ClientGone(Cancelled):
    """The process that started the worker has ended.  Raised once the state is saved, at a step's end."""


class Control:
    """The state of the commands.  :meth:`check` is called by the run, the rest by the thread that reads them."""

    def __init__(
        self,
        *,
        on_pause: Callable[[bool], None],
        on_unknown: Callable[[str], None],
        on_early_cancel: Callable[[], None] = lambda: None,
        on_overdue: Callable[[], None] = lambda: None,
        warm: bool = False,
    ) -> None:
        """warm: this process was up before there was a job.  on_early_cancel: called from the listening
        thread where the run has not begun: there is nothing to ask.  on_overdue: called there before the process is
        ended in the middle of a step; returns when it may be.
        """
        self.preview_on = True
        self.interval_s = 0.5
        self.client_gone = False
        self.warm = warm
        self.made = time.monotonic()  # when the worker came to life, before it imported anything heavy
        self.ended = threading.Event()  # set by the worker when its last word is sent
        self._cancelled_at: float | None = None
        self._paused = False
        self._changed = threading.Condition()
        self._on_pause, self._on_unknown, self._on_early_cancel = on_pause, on_unknown, on_early_cancel
        self._on_overdue = on_overdue
        self._begun = False

    @property
    def cancelled(self) -> bool:
        return self._cancelled_at is not None

    @property
    def paused(self) -> bool:
        """Whether the client wants the run to be held."""
        return self._paused

    def begin(self) -> None:
        """From now on the run asks, often enough, whether it is to end."""
        with self._changed:
            self._begun = True

    def listen(self, commands: BinaryIO) -> None:
        """Obey lines until there are no more; then give the run its time to end, and end the process."""
        for line in iter(commands.readline, b""):
            self.obey(line.decode("utf-8", "replace").strip())
        with self._changed:
            self.client_gone = True
            self._changed.notify_all()
        if not self.ended.wait(GRACE_S):
            try:
                self._on_overdue()
            finally:
                os._exit(3)  # in the middle of a network evaluation: a resume gets the last state that was saved

    def obey(self, command: str) -> None:
        with self._changed:
            if command == "cancel":
                self._cancelled_at = self._cancelled_at or time.monotonic()
                if not self._begun:
                    self._on_early_cancel()
            elif command in ("pause", "resume"):
                self._paused = command == "pause"
            elif command in ("preview on", "preview off"):
                self.preview_on = command == "preview on"
            elif not self._is_interval(command):
                self._on_unknown(command)
            self._changed.notify_all()

    def _is_interval(self, command: str) -> bool:
        word, _, value = command.partition(" ")
        try:
            seconds = float(value)
        except ValueError:
            return False
        if word != "interval" or not 0 <= seconds < 1e6:
            return False
        self.interval_s = seconds
        return True

    def check(self, *, step_ends_in_s: float = 0.0, shown: bool = True) -> float:
        """Raise Cancelled where the run is to end; wait while it is paused.  Returns the seconds that it waited.

        step_ends_in_s: when the present step will be over.  shown: its predecessor's estimate is in the preview.
        """
        self._end_if_asked(step_ends_in_s, shown)
        if not self._paused:
            return 0.0
        began = time.monotonic()
        self._on_pause(True)
        with self._changed:
            self._changed.wait_for(lambda: not self._paused or self.cancelled or self.client_gone)
        self._end_if_asked(step_ends_in_s, shown)
        self._on_pause(False)
        return time.monotonic() - began

    def _end_if_asked(self, step_ends_in_s: float, shown: bool) -> None:
        if self._cancelled_at is not None:
            left = self._cancelled_at + _CANCEL_S - time.monotonic()
            if shown or step_ends_in_s > left:
                raise Cancelled
