"""What a runner does in threads: nothing of it touches a node."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from DiffusionMBIRLib.errors import EngineError, InputError
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.jobs.client import Job
from DiffusionMBIRLib.jobs.folder import DEVIATION, RESULT, JobFolder
from DiffusionMBIRLib.jobs.messages import Failed, Finished
from DiffusionMBIRLib.names import beside
from DiffusionMBIRLib.volume import Volume

from .plans import Plan
from .scene import CANDIDATES, FILLED, UNCERTAINTY
from .texts import _
from .volumes import empty_image, image_voxels

Keep = Callable[[np.ndarray], Any]


class InThread:
    """A call in a thread.  ``value`` or ``error`` is set once ``done``."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act
        self.value: Any = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.value = self._act()
        except Exception as error:  # told where the value is asked for
            self.error = error


class RunClock:
    """How long a run takes, over all its attempts; pauses are counted apart."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began: float | None = None
        self._paused_at: float | None = None
        self._paused_s = 0.0
        self._worked_s = 0.0  # until the present attempt began

    def start(self) -> None:
        """An attempt begins; what earlier ones took is kept."""
        if self._began is not None:
            self._worked_s = self.seconds()
        self._began, self._paused_s, self._paused_at = self._now(), 0.0, None

    def pause(self, paused: bool) -> None:
        if paused and self._paused_at is None:
            self._paused_at = self._now()
        elif not paused:
            self._paused_s, self._paused_at = self.paused_s, None

    @property
    def paused_s(self) -> float:
        """How long the present attempt was held."""
        return self._paused_s + (self._now() - self._paused_at if self._paused_at is not None else 0.0)

    def seconds(self) -> float:
        """What the run worked until now, without pauses."""
        return self._worked_s + (self._now() - self._began - self.paused_s if self._began is not None else 0.0)


@dataclass
class Shown:
    """What a thread brought for the node.

    grid: where it tells one; copy: of the array, for the sequence; image: whose voxels the array is, if any; spreads:
    how far off the array may be, by what they are: standard deviation of its samples, half-widths of its interval, what
    the prior filled in, candidates; each with the role by which the result knows it.
    """

    array: np.ndarray | None
    step: int
    grid: Grid | None = None
    metrics: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] | None = None
    copy: Any = None
    image: Any = None
    spreads: Mapping[str, tuple[np.ndarray, str]] = field(default_factory=dict)


def when_free(folder: JobFolder) -> JobFolder:
    folder.wait_until_free()
    return folder


def read(job: Job, spare: np.ndarray | None, keep: Keep | None, shape: tuple[int, ...] | None) -> Shown | None:
    """In a thread: the newest preview, and its copy for the sequence where one is kept.

    shape: of the first preview, which is read into an image that the node takes over; None for later ones.
    """
    image = empty_image(shape) if shape is not None else None
    found = job.read_preview(spare if image is None else image_voxels(image))
    if found is None:
        return None
    array, step = found
    copy = keep(array) if keep is not None else None
    if image is not None and not np.shares_memory(array, image_voxels(image)):
        image = None
    return Shown(array, step, copy=copy, image=image)


def final(job: Job, event: Finished, plan: Plan | None, keep: Keep | None = None) -> Shown:
    """In a thread: the volume that a job ended with, its record and how good it is."""
    folder = job.folder
    found = job.read_preview()
    array, step = found if found is not None else (None, 0)
    grid: Grid | None = None
    if (found is None or job.prepared is None) and folder.result_path is not None:
        from DiffusionMBIRLib.io.volumes import read_volume

        volume = read_volume(folder.result_path)
        array, grid = volume.array, volume.grid
    provenance: Mapping[str, Any] | None = None
    with suppress(OSError, ValueError):
        provenance = json.loads((folder.path / "provenance.json").read_text(encoding="utf-8"))
    metrics = event.metrics
    if array is not None and not event.partial and metrics is None and plan is not None:
        metrics = _judged(array, grid or _grid_of(job), plan)
    folder.tidy()
    copy = keep(array) if keep is not None and array is not None else None
    return Shown(array, step, grid, _known(metrics), provenance, copy, spreads=_spreads(folder, event))


def _spreads(folder: JobFolder, event: Finished) -> dict[str, tuple[np.ndarray, str]]:
    from DiffusionMBIRLib.io.volumes import read_volume

    parts = (
        (_("standard deviation"), DEVIATION, UNCERTAINTY),
        (_("95 % interval"), _beside("interval-95"), UNCERTAINTY),
        (_("prior-filled share"), _beside("filled"), FILLED),
        (_("candidates"), _beside("candidates"), CANDIDATES),
    )
    found = {}
    for what, name, role in parts:
        path = folder.path / name
        if not event.partial and path.is_file():
            with suppress(InputError):  # a damaged file does not spoil the result
                found[what] = (read_volume(path).array, role)
    return found


def _beside(mark: str) -> str:
    return beside(Path(RESULT), f"-{mark}").name


def _grid_of(job: Job) -> Grid | None:
    return Grid.from_dict(job.prepared.grid) if job.prepared is not None else None


def _judged(array: np.ndarray, grid: Grid | None, plan: Plan) -> Mapping[str, Any] | None:
    """PSNR and SSIM against the reference that the user chose; None where the two do not fit."""
    if plan.reference is None or grid is None:
        return None
    from DiffusionMBIRLib.metrics import PLANES, evaluate

    try:
        found = evaluate(Volume(array, grid, unit=plan.reference.unit), plan.reference)
    except InputError:
        return None
    return {plane: found[plane] for plane in PLANES}


def _known(metrics: Mapping[str, Any] | None) -> dict[str, dict[str, float]] | None:
    """Figures as numbers: null in a message stands for an infinite PSNR."""
    if metrics is None:
        return None
    return {
        plane: {name: float("inf") if value is None else float(value) for name, value in found.items()}
        for plane, found in metrics.items()
    }


def failure(error: Exception) -> Failed:
    """What is said of an error, in one line."""
    reason = " ".join(str(error).split())
    if isinstance(error, InputError):
        return Failed(reason, "input", False)
    if isinstance(error, EngineError | OSError):
        return Failed(reason, "engine", False)
    return Failed(f"{type(error).__name__}: {reason}", "crash", False)
