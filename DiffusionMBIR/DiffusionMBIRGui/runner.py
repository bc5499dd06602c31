"""Runs a job and lets it appear in the scene.  No Qt: whoever owns a timer calls :meth:`Runner.poll`.

What takes long - copying voxels to disk, reading a preview back - happens in threads that touch no node.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from DiffusionMBIRLib.errors import EngineError, InputError
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.jobs.client import Job
from DiffusionMBIRLib.jobs.folder import JobFolder, jobs_root
from DiffusionMBIRLib.jobs.messages import (
    Continued,
    Event,
    Failed,
    Finished,
    Log,
    Paused,
    Prepared,
    Preview,
    Progress,
)
from DiffusionMBIRLib.jobs.standby import Standby

from .listener import Quiet
from .plans import Plan, plan_of
from .results import ConvergencePlot, ResultsTable
from .runner_work import InThread, RunClock, Shown, failure, final, read, when_free
from .scene import JOB, REFERENCE, OutputVolume, PreviewSequence, add_spread
from .texts import _, measure_name

_PLOT_S = 1.0  # between two updates of the convergence plot
_STEPS_OF = "diffusion"


class Runner:
    """One job at a time, from its plan to the volume in the scene.

    listener: hears of everything, always from within :meth:`poll`.  python, environment: the engine's.  root: where
    jobs lie.  node: what the present or last job fills; plot: how it converges.
    """

    def __init__(self, scene: Any, *, root: Path | None = None) -> None:
        self.scene = scene
        self.listener: Any = None
        self.python: Sequence[str] = (sys.executable,)
        self.environment: Mapping[str, str] | None = None
        self.root = root
        self.place: Mapping[str, Any] = {}  # of new jobs, where they are computed: as for ``JobFolder.create``
        self.plot: ConvergencePlot | None = None
        self.sequence: PreviewSequence | None = None
        self.standby: Callable[[], Standby | None] = lambda: None  # a process that waits for the next job
        self.slice_logics: Sequence[Any] = ()  # views that were empty are fitted to the first preview
        self._plan: Plan | None = None
        self._folder: JobFolder | None = None
        self._output: OutputVolume | None = None
        self._preparing: InThread | None = None
        self._job: Job | None = None
        self._fetching: InThread | None = None
        self._finishing: InThread | None = None
        self._last: Finished | None = None
        self._spare: np.ndarray | None = None
        self._wanted_preview: Preview | None = None
        self._previews = (True, 0.5)
        self._cancelled = self._resumable = self._paused = self._hold = self._was_deleted = False
        self._flushed = 0.0
        self._recorded = 0
        self._told: set[str] = set()
        self._clock = RunClock()
        self._observer: int | None = None

    # --- what the user asks for

    @property
    def running(self) -> bool:
        return self._preparing is not None or self._job is not None or self._finishing is not None

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def paused_s(self) -> float:
        """How long the present or last run was held."""
        return self._clock.paused_s

    @property
    def resumable(self) -> bool:
        """Whether the last job can be taken up again."""
        return not self.running and self._resumable

    @property
    def job_path(self) -> Path | None:
        """The folder of the present or last job."""
        return self._folder.path if self._folder is not None else None

    @property
    def node(self) -> Any:
        """The output volume, None where there is none or it was deleted."""
        return self._output.node if self._output is not None and self._output.alive else None

    def start(self, parameters: Any) -> None:
        """Run what the settings of a scene ask for.  Raises InputError in one line where that cannot be."""
        self.begin(plan_of(parameters))

    def begin(self, plan: Plan) -> None:
        """Run a plan.  Raises InputError while another job runs, and for an output that cannot hold the result."""
        self._require_idle()
        if plan.output is not None:
            OutputVolume.create(self.scene, "", Grid((1, 1, 1)), plan.beside, plan.output)
        self._plan, self._folder, self._output = plan, None, None
        self._clock = RunClock()
        self.plot, self.sequence = None, None
        root, place = self.root or jobs_root(), dict(self.place)
        self._launch(lambda: plan.folder or JobFolder.create(root, *plan.ask(), **place))

    def resume(self) -> None:
        """Take up the last job where it was.  Raises InputError where there is none."""
        self._require_idle()
        folder = self._folder
        if folder is None or self._plan is None:
            raise InputError(_("There is no job to resume: run one."))
        self._launch(lambda: folder)

    def _require_idle(self) -> None:
        if self.running:
            raise InputError(_("A job is running: wait for it, or cancel it."))

    def _launch(self, find: Callable[[], JobFolder]) -> None:
        self._cancelled = self._resumable = self._paused = self._hold = self._was_deleted = False
        self._last, self._wanted_preview = None, None
        self._told = set()
        self._clock.start()
        self._watch_scene()
        self._preparing = InThread(lambda: when_free(find()))

    def pause(self) -> None:
        """Hold the job at the end of its present step, or as soon as it has begun."""
        self._hold = True
        if self._job is not None:
            self._job.pause()

    def go_on(self) -> None:
        self._hold = False
        if self._job is not None:
            self._job.resume()

    def cancel(self) -> None:
        """End the job within two seconds and keep its newest estimate; tells so through ``on_finished``."""
        self._cancelled = True
        if self._job is not None:
            self._job.cancel()

    def set_preview(self, on: bool, interval_s: float) -> None:
        self._previews = (on, interval_s)
        if self._job is not None:
            self._job.set_preview(on, interval_s)

    def close(self) -> None:
        """End whatever runs and touch no node any more.  Returns at once; may be called again."""
        self._stop_watching_scene()
        if self._job is not None:
            self._job.cancel()
        self._cancelled = True  # a job that is still being prepared is not started
        self._preparing = self._job = self._fetching = self._finishing = None
        self._output = self.plot = self.sequence = None
        self._resumable = self._paused = False

    def _watch_scene(self) -> None:
        if self._observer is None:
            self._observer = self.scene.AddObserver(self.scene.StartCloseEvent, lambda *_state: self.close())

    def _stop_watching_scene(self) -> None:
        if self._observer is not None:
            self.scene.RemoveObserver(self._observer)
            self._observer = None

    # --- the timer

    def poll(self) -> bool:
        """Bring scene and listener up to date; returns whether there is more to come.  Takes milliseconds."""
        if self._preparing is not None and self._preparing.done:
            self._start_job(self._preparing)
        if self._job is not None:
            self._take_events(self._job)
        if self._fetching is not None and self._fetching.done:
            fetched, self._fetching = self._fetching, None
            self._try(lambda: self._show_preview(fetched))
        if self._finishing is not None and self._finishing.done and self._fetching is None:
            finishing, self._finishing = self._finishing, None  # first of all: whatever goes wrong now happens once
            self._finish(finishing)
        elif self._wanted_preview is not None and self._fetching is None and self._job is not None:
            self._fetch(self._job, self._wanted_preview)
        return self.running

    def _try(self, act: Callable[[], Any]) -> bool:
        """Do something with the scene; an error becomes one line, told once, and the run goes on.  False for one."""
        try:
            act()
        except Exception as error:  # nodes may be gone, modules missing, observers of others broken
            line = failure(error).reason
            if line not in self._told:
                self._told.add(line)
                self._tell().on_log(Log("warning", line))
            return False
        return True

    def _tell(self) -> Any:
        return self.listener if self.listener is not None else Quiet()

    def _start_job(self, preparing: InThread) -> None:
        self._preparing = None
        if preparing.error is not None:
            self._fail(failure(preparing.error))
            return
        self._folder = preparing.value
        assert self._folder is not None
        if self._cancelled:
            self._end()
            self._tell().on_finished(Finished(0.0, None, 0, 0.0, None, "", True), None)
            return
        try:
            ready = None if self._folder.is_remote else self.standby()
            self._job = Job.start(self._folder, python=self.python, environment=self.environment, standby=ready)
        except InputError as error:
            self._fail(Failed(str(error), "input", False))
            return
        self._job.set_preview(*self._previews)
        if self._hold:
            self._job.pause()

    def _take_events(self, job: Job) -> None:
        for event in job.poll():
            self._try(lambda event=event: self._take(job, event))
            if self._job is not job:  # a listener closed us
                return

    def _take(self, job: Job, event: Event) -> None:
        tell = self._tell()
        if isinstance(event, Prepared):
            self._prepare_output(event)
            tell.on_prepared(event)
        elif isinstance(event, Progress):
            self._note(event)
            tell.on_progress(event)
        elif isinstance(event, Preview):
            self._wanted_preview = event
        elif isinstance(event, Paused | Continued):
            self._paused = isinstance(event, Paused)
            self._clock.pause(self._paused)
            tell.on_paused(self._paused)
        elif isinstance(event, Log):
            tell.on_log(event)
        elif isinstance(event, Finished):
            self._job, self._last, self._wanted_preview = None, event, None
            keep = self.sequence.copy_of if self.sequence is not None else None
            self._finishing = InThread(lambda: final(job, event, self._plan, keep))
        elif isinstance(event, Failed):
            self._job = None
            self._fail(event)

    def _fail(self, event: Failed) -> None:
        self._resumable = event.resumable and self._folder is not None
        if self._output is not None:
            self._output.mark_partial()
        self._end()
        self._tell().on_failed(event)

    def _end(self) -> None:
        self._stop_watching_scene()
        self._paused = False
        self._fetching = self._finishing = None
        self._spare = None

    # --- the scene

    def _prepare_output(self, event: Prepared) -> None:
        assert self._plan is not None
        grid, plan = Grid.from_dict(event.grid), self._plan
        if self.plot is None:
            self.plot = ConvergencePlot(self.scene, plan.name)
        if self._output is None or not self._output.alive:
            self._output = self._make_output(grid, event.unit)
        if plan.record and self.sequence is None:
            PreviewSequence.require(self.scene)
            self.sequence = PreviewSequence(self.scene, plan.name, grid, unit=event.unit)

    def _make_output(self, grid: Grid, unit: str) -> OutputVolume:
        assert self._plan is not None
        plan = self._plan
        kept = plan.output if plan.output is not None and plan.output.GetScene() is self.scene else None
        output = OutputVolume.create(self.scene, plan.name, grid, plan.beside, kept, unit=unit)
        if plan.judge is not None and plan.judge.GetScene() is self.scene:
            output.node.SetNodeReferenceID(REFERENCE, plan.judge.GetID())
        if plan.made is not None:
            plan.made(output.node)
        return output

    def _note(self, event: Progress) -> None:
        if self.plot is None or event.stage != _STEPS_OF:
            return
        known = {measure_name(name): value for name, value in event.metrics.items() if value is not None}
        self.plot.add(event.done, known)
        now = time.monotonic()
        if self.plot.chart is not None and now - self._flushed > _PLOT_S:
            self.plot.flush()
            self._flushed = now

    def _fetch(self, job: Job, event: Preview) -> None:
        """Read a preview in a thread, and copy it for the sequence: 67 MB at 256^3."""
        self._wanted_preview = None
        spare, self._spare = self._spare, None
        keep = self.sequence.copy_of if self.sequence is not None else None
        shape = self._output.grid.shape if self._output is not None and not self._output.updates else None
        self._fetching = InThread(lambda: (read(job, spare, keep, shape), event))

    def _show_preview(self, fetched: InThread) -> None:
        shown, event = fetched.value if fetched.value is not None else (None, None)
        if shown is None or self._finishing is not None or self._output is None:
            return
        self._update(shown, image=shown.image)
        self._spare = shown.array if shown.image is None else None  # the node's own memory is none to read into
        self._tell().on_preview(event)

    def _update(self, found: Shown, **choices: Any) -> bool:
        """Show a volume; False where the node was deleted, which is said once."""
        assert self._output is not None
        assert found.array is not None
        first = self._output.updates == 0
        shown = self._output.update(found.array, found.step, **choices)
        if shown and first:
            self._output.show(fit=self.slice_logics)
        if not shown and not self._was_deleted:
            self._was_deleted = True
            text = _("The output volume was deleted: the result will come into a new one.")
            self._tell().on_log(Log("warning", text))
        if self.sequence is not None:
            self._recorded += 1  # steps begin anew with each stage
            self.sequence.record(found.array, self._recorded, last=bool(choices.get("final")), copy=found.copy)
        return shown

    def _finish(self, finishing: InThread) -> None:
        event, shown = self._last, finishing.value
        assert event is not None
        if finishing.error is not None or shown is None:
            self._fail(failure(finishing.error or EngineError(_("The result cannot be read."))))
            return
        found: list[Any] = [None]
        if not self._try(lambda: found.append(self._show_result(event, shown))):
            self._fail(Failed(self._not_shown(event), "engine", False))
            return
        node = found[-1]
        self._try(lambda: self._note_result(event, node, shown))
        if self.plot is not None and self.plot.chart is not None:
            self._try(self.plot.flush)
        if self.sequence is not None:
            sequence = self.sequence
            self._try(lambda: sequence.finish(node))
        self._resumable = event.partial and self._folder is not None and self._folder.resumable
        self._end()
        self._tell().on_finished(replace(event, seconds=self._clock.seconds()), node)

    def _not_shown(self, event: Finished) -> str:
        path = self.job_path / event.result if self.job_path is not None else event.result
        return _("The result could not be shown; it is kept as {file}.").format(file=path)

    def _note_result(self, event: Finished, node: Any, shown: Shown) -> None:
        """A row of the table for a run that came to its end; and how far samples spread."""
        if node is None or event.partial or self._plan is None:
            return
        seconds = self._clock.seconds()
        ResultsTable(self.scene).add(node.GetName(), self._plan.method, seconds, event.residual, shown.metrics, node)
        node.SetAttribute(JOB, self._folder.path.name if self._folder is not None else "")
        for what, (array, role) in shown.spreads.items() if self._output is not None else ():
            add_spread(self._output, what, array, shown.provenance or {}, role)

    def _show_result(self, event: Finished, shown: Shown) -> Any:
        """The node with the result; None where a cancelled job had nothing yet."""
        if shown.array is None:
            if self._output is not None:
                self._output.discard_if_empty()
            return None
        grid = shown.grid if shown.grid is not None else (self._output.grid if self._output else None)
        if grid is None:
            return None
        if self._output is None or not self._output.alive:
            self._output = self._make_output(grid, self._output.unit if self._output else "HU")
        self._update(shown, final=True, partial=event.partial, grid=shown.grid)
        if shown.provenance:
            self._output.describe(shown.provenance)
        return self._output.node
