"""The worker's monitor: passes on progress with the time left, writes previews, obeys the client's commands."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .control import Control
from .messages import Event, Preview, Progress
from .preview import PreviewWriter

PREVIEW_SHARE = 0.03  # of a run's time that may go into previews
_SHARE_TO_PLAN = 0.025  # what is aimed at, since costs vary
_USUAL_BYTES_PER_S = 5e8


@dataclass
class TimedStage:
    """A part of the run.  predicted_s: before it began; passes: how often its steps are gone through."""

    name: str
    predicted_s: float
    passes: int = 1


class Clock:
    """How far the whole run is, and how long it still takes, from predictions that its own pace replaces."""

    def __init__(self, stages: Sequence[TimedStage], now: float) -> None:
        self._stages = list(stages)
        self._began = self._step_ended = now
        self._at = -1  # the present stage
        self._pass = 0
        self._done = 0
        self._pace: float | None = None  # seconds a step of the present stage
        self._own = 0  # steps that this process did of it
        self._fraction = 0.0

    def waits(self, seconds: float) -> None:
        """Time in which nothing was done."""
        self._began += seconds
        self._step_ended += seconds

    def worked_s(self, now: float) -> float:
        """How long the run took until now, without pauses."""
        return now - self._began

    def step_left_s(self, now: float) -> float:
        """When the present step will be over; 0 while unknown."""
        return max(0.0, (self._pace or 0.0) - (now - self._step_ended))

    def expected_s(self) -> float:
        """What the whole run is thought to take."""
        return sum(s.predicted_s for s in self._stages)

    def take_up(self, name: str, passes: int, done: int) -> None:
        """Begin a stage after so many passes and steps."""
        if self._enter(name):
            self._pass, self._done = passes, done

    def tick(self, name: str, done: int, total: int, now: float) -> tuple[float, float, float | None]:
        """(fraction of the run, seconds, seconds left or None) after ``done`` of ``total`` steps of a stage."""
        self._enter(name)
        stage = self._stages[self._at]
        if done <= self._done and self._done > 0:
            self._pass = min(self._pass + 1, stage.passes - 1)
            self._done = 0
        seconds = (now - self._step_ended) / max(1, done - self._done)
        # The first step may hold what is prepared for all.
        self._pace = seconds if self._pace is None or self._own < 2 else 0.8 * self._pace + 0.2 * seconds
        self._own += done - self._done
        self._done, self._step_ended = done, now
        steps_left = max(0, total - done) + total * (stage.passes - 1 - self._pass)
        left_here = self._pace * steps_left
        share = (self._pass + done / max(1, total)) / stage.passes
        return self._whole(share), now - self._began, self._left(left_here, steps_left)

    def _enter(self, name: str) -> bool:
        names = [s.name for s in self._stages]
        if name not in names:
            self._stages.append(TimedStage(name, 0.0))
            names.append(name)
        if self._at != names.index(name):
            self._at = names.index(name)
            self._pass = self._done = self._own = 0
            self._pace = None
            return True
        return False

    def _whole(self, share: float) -> float:
        before = sum(s.predicted_s for s in self._stages[: self._at])
        whole = max(self.expected_s(), 1e-9)
        self._fraction = max(self._fraction, min(1.0, (before + share * self._stages[self._at].predicted_s) / whole))
        return self._fraction

    def _left(self, left_here: float, steps_left: int) -> float | None:
        if self._own < 2 and steps_left > 0:
            return None
        return left_here + sum(s.predicted_s for s in self._stages[self._at + 1 :])


class Watch:
    """Obeys :class:`DiffusionMBIRLib.monitor.Monitor`.

    writer: made when the first preview comes, or None where the disk has no room for it.
    """

    def __init__(self, control: Control, clock: Clock, send: Callable[[Event], None]) -> None:
        self._control, self._clock, self._send = control, clock, send
        self.writer: PreviewWriter | None = None
        self.steps_done: Callable[[str], tuple[int, int]] = lambda stage: (0, 0)
        self.on_no_room: Callable[[OSError], None] = lambda error: None
        self.newest: tuple[np.ndarray, int] | None = None  # where it could not be written
        self._began = time.monotonic()
        self._shown_at = -1e9
        self._cost_s = 0.0
        self._spent_s = 0.0
        self._stage = ""
        self.step = 0  # of the present stage that are over
        self._shown = True  # the estimate of the last step is in the preview

    def worked_s(self) -> float:
        """How long the run took until now, without pauses."""
        return self._clock.worked_s(time.monotonic())

    def begin(self) -> None:
        """The run proper begins now; what previews may cost is counted from here."""
        self._began = time.monotonic()

    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        now = time.monotonic()
        self._meet(stage)
        self.step = done
        fraction, seconds, left = self._clock.tick(stage, done, total, now)
        self._send(Progress(stage, done, total, fraction, seconds, left, dict(metrics)))
        self._check(self._clock.step_left_s(now))

    def _meet(self, stage: str) -> None:
        if stage != self._stage:
            self._stage = stage
            self._clock.take_up(stage, *self.steps_done(stage))

    def poll(self) -> None:
        self._check(self._clock.step_left_s(time.monotonic()))

    def _check(self, step_ends_in_s: float) -> None:
        self._clock.waits(self._control.check(step_ends_in_s=step_ends_in_s, shown=self._shown))

    def preview(self, estimate: Callable[[], Any], step: int) -> None:
        """Write the estimate if it is time for one, or if it is the last chance before a cancelled run ends."""
        now = time.monotonic()
        self._shown = False
        if not (self._control.cancelled or self._is_time(now)):
            return
        self.show(estimate().array, step)
        self._cost_s = time.monotonic() - now
        self._spent_s += self._cost_s
        self._shown_at = time.monotonic()
        self._shown = True

    def _is_time(self, now: float) -> bool:
        if self._shown_at < 0:
            return True  # the first one comes early, whatever it costs
        if now - self._shown_at < self._control.interval_s:
            return False
        return self._spent_s + self._cost_s <= _SHARE_TO_PLAN * (now - self._began)

    def show(self, array: np.ndarray, step: int) -> None:
        """Put a volume where the client finds it, and tell of it unless it does not want to know."""
        if self.writer is None:
            self.newest = array, step
            return
        try:
            sequence = self.writer.write(array, step)
        except OSError as error:
            self.close()
            self.newest = array, step
            self.on_no_room(error)
            return
        if self._control.preview_on:
            self._send(Preview(step, sequence))

    def close(self) -> None:
        """Let go of the file of previews."""
        if self.writer is not None:
            self.writer.close()
        self.writer = None
