"""What the page computes: one job at a time, of the files that there are, with settings that a browser sent.

Nothing of a browser is believed: names are looked up, numbers are read and checked by the tables that check those of
the command line.  No trame, no Slicer, no torch.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EngineError, InputError
from ..formats import SCAN, may_hold, suffixes
from ..geometry import Grid
from ..jobs.asking import ask
from ..jobs.client import Job
from ..jobs.folder import JobFolder
from ..jobs.messages import Event, Failed, Finished, Prepared, Progress
from ..jobs.saving import save_result
from ..names import as_file_name
from ..simulation.settings import SCANS, scan_settings
from ..tasks import SLICES, TASKS, THIN_SLICES, task_info
from ..volume import Volume
from .sources import Sources

USUAL = "usual"  # the preset of a measured scan that is chosen by what it holds
_AMOUNTS = {"CT": "views", "MR": "acceleration", SLICES: "spacing_mm"}  # the one setting of a scan that is shown


@dataclass(frozen=True)
class Look:
    """A source that was looked into.  volume: None of a measured scan.  tasks: those that it can be used for."""

    name: str
    volume: Volume | None
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Wish:
    """What a browser asks for, as it came.  Empty numbers are the usual ones."""

    source: Any
    task: Any
    preset: Any
    amount: Any = ""
    coarsen: Any = ""
    steps: Any = ""


@dataclass
class Session:
    """One at a time for all who have the page open.

    output: the folder that results go to.  root: of the jobs.  engine: as arguments of ``JobFolder.create``.  device:
    of the owner's choice.  environment: of the worker, by default this process's.
    """

    sources: Sources
    output: Path
    root: Path
    engine: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    environment: Mapping[str, str] | None = None
    job: Job | None = None
    saved: Path | None = None  # the newest result
    _name: str = ""
    _starting: Any = field(default_factory=threading.Lock)
    _array: np.ndarray | None = None

    # --- before a run

    def look(self, name: object) -> Look:
        """Read a source; takes a while for a large one.  Raises InputError."""
        from ..io.scans import read_scan
        from ..io.volumes import read_volume

        path = self.sources.path(name)
        if may_hold(path, SCAN):
            return Look(str(name), None, (read_scan(path).task,))
        volume = read_volume(path)
        return Look(str(name), volume, _tasks_for(volume))

    def start(self, wish: Wish) -> None:
        """Begin a run in a process of its own; takes a while where a scan is large.  Raises InputError, EngineError."""
        if not self._starting.acquire(blocking=False):
            raise InputError("a run is being started already")
        try:
            if self.running:
                raise InputError("a run is under way; cancel it first")
            self._start(wish)
        finally:
            self._starting.release()

    def _start(self, wish: Wish) -> None:
        path = self.sources.path(wish.source)
        if wish.task not in TASKS:
            raise InputError("this task is not known")
        is_scan = may_hold(path, SCAN)
        offered = presets_for(wish.task, is_scan=is_scan)
        if wish.preset not in offered:
            raise InputError(f"this preset is not one of {', '.join(offered)}")
        choices: dict[str, Any] = {"device": self.device, "steps": _number(wish.steps, int, "steps")}
        if not is_scan:
            name = amount_of(wish.task).name
            choices[name] = _number(wish.amount, amount_of(wish.task).kind, amount_of(wish.task).label)
            if "coarsen" in {item.name for item in fields(SCANS[task_info(wish.task).data])}:
                choices["coarsen"] = _number(wish.coarsen, int, "coarser grid")
        given = {name: value for name, value in choices.items() if value is not None}
        request, inside = ask(
            path,
            task=None if is_scan else wish.task,
            preset=None if wish.preset == USUAL else wish.preset,
            choices=given,
        )
        folder = JobFolder.create(self.root, request, inside, **self.engine)
        self.job, self._name, self._array = Job.start(folder, environment=self.environment), path.name, None

    # --- during a run

    @property
    def running(self) -> bool:
        return self.job is not None and self.job.running

    def poll(self) -> Sequence[Event]:
        """What the job told since the last call."""
        return self.job.poll() if self.job is not None else []

    def preview(self) -> tuple[np.ndarray, Grid] | None:
        """The newest estimate and its grid, None as long as there is none; the array is used again by the next call."""
        if self.job is None or self.job.prepared is None:
            return None
        found = self.job.read_preview(self._array)
        if found is None:
            return None
        self._array = found[0]
        grid = Grid.from_dict(self.job.prepared.grid)
        return (found[0], grid) if found[0].shape == grid.shape else None

    def cancel(self) -> None:
        if self.job is not None:
            self.job.cancel()

    def close(self) -> str:
        """Let go of a run when the server ends: it saves its state and ends; a line that says how it goes on."""
        if self.job is None or not self.running:
            return ""
        self.job.close()
        self.job.folder.wait_until_free()
        return f"the run was stopped{self.how_to_go_on}"

    @property
    def how_to_go_on(self) -> str:
        """What can be done about a run that did not come to its end; empty for one that did."""
        if self.job is None or self.job.folder.status == "finished" or not self.job.folder.resumable:
            return ""
        return f"; `diffusionmbir job resume {self.job.folder.path.name}` goes on"

    # --- after a run

    def result(self) -> Volume | None:
        """What the run ended with, saved among the results unless it was cancelled; None where there is nothing.

        Takes a while.  Raises EngineError where the run failed, or its result cannot be written.
        """
        from ..io.volumes import read_volume

        assert self.job is not None
        folder, last = self.job.folder, self.job.last_word
        if isinstance(last, Failed):
            raise EngineError(last.reason)
        if not isinstance(last, Finished) or not last.result:
            return None
        volume = read_volume(folder.path / last.result)
        if not last.partial:
            target = self._free_name()
            save_result(folder, last.result, target)
            self.saved = target
            folder.tidy()
        return volume

    def _free_name(self) -> Path:
        """No result overwrites another."""
        stem = as_file_name(_without_suffix(self._name))
        number, path = 1, self.output / f"{stem}-reconstruction.nrrd"
        while os.path.lexists(path):
            number += 1
            path = self.output / f"{stem}-reconstruction-{number}.nrrd"
        return path


@dataclass(frozen=True)
class Amount:
    """How much was measured, of a task: a setting of its scan.  usual: what counts where nothing is given."""

    name: str
    label: str
    kind: type
    usual: Any


def amount_of(task: str) -> Amount:
    table = SCANS[task_info(task).data]
    item = next(item for item in fields(table) if item.name == _AMOUNTS[task_info(task).data])
    usual = getattr(scan_settings(task), item.name)
    unit = f" ({item.metadata['unit']})" if item.metadata["unit"] else ""
    return Amount(item.name, f"{item.metadata['label']}{unit}", type(item.default), usual)


def presets_for(task: str, *, is_scan: bool) -> tuple[str, ...]:
    """What is offered; of a measured scan first what is usual for it."""
    return (USUAL, *task_info(task).presets) if is_scan else task_info(task).presets


def event_line(event: Event) -> str:
    """An event as a line for people; empty for those that are none."""
    if isinstance(event, Prepared):
        return f"on {event.device}: {' x '.join(map(str, event.shape[::-1]))} voxels"
    if isinstance(event, Progress):
        left = "" if event.seconds_left is None else f", {_duration(event.seconds_left)} left"
        return f"{event.stage} {event.done} of {event.total}{left}"
    if isinstance(event, Finished):
        return f"cancelled after {_duration(event.seconds)}" if event.partial else f"done in {_duration(event.seconds)}"
    return event.reason if isinstance(event, Failed) else ""


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _tasks_for(volume: Volume) -> tuple[str, ...]:
    """All, those of the volume's own modality first, as it tells it."""
    from ..preparation.thick_slices import task_of

    modality = task_info(task_of(volume, THIN_SLICES)[0]).modality
    return tuple(sorted(TASKS, key=lambda task: task_info(task).modality != modality))


def _number(value: Any, kind: type, label: str) -> Any:
    """A number as a form sends it, None for an empty field."""
    if value is None or value == "":
        return None
    if isinstance(value, str | int | float) and not isinstance(value, bool) and len(str(value)) < 30:
        try:
            number = float(value)
            if np.isfinite(number) and (kind is float or number == int(number)):
                return kind(number)
        except (ValueError, OverflowError):
            pass
    raise InputError(f"{label}: this is no {'whole ' if kind is int else ''}number")


def _without_suffix(name: str) -> str:
    known = sorted((s for s in suffixes("") if name.lower().endswith(s)), key=len)
    return name[: -len(known[-1])] if known and len(known[-1]) < len(name) else name
