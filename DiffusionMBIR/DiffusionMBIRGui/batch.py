"""Many reconstructions one after the other, beside the scene: a folder with a table, the jobs and the results.

The table is that of :mod:`DiffusionMBIRLib.jobs.cases`: a batch can be gone on with in the panel, in a script, and
after Slicer was closed.  Needs no Qt.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from DiffusionMBIRLib.errors import EngineError, InputError
from DiffusionMBIRLib.jobs.cases import TABLE, CaseTable, begin_request
from DiffusionMBIRLib.jobs.client import Job
from DiffusionMBIRLib.jobs.folder import JobFolder
from DiffusionMBIRLib.jobs.messages import Failed, Finished, Progress
from DiffusionMBIRLib.moves import move_over
from DiffusionMBIRLib.names import as_file_name

from .inputs import problem_with_file
from .parameters import Parameters
from .plans import Asked, request_of
from .runner_work import InThread, failure, when_free
from .texts import _, progress

WAITING, PREPARING, RUNNING, FINISHED, FAILED, STOPPED = (
    "waiting", "preparing", "running", "finished", "failed", "stopped",
)  # fmt: skip
RESULTS, JOBS = "results", "jobs"
_GLANCES = 3  # files of a folder that tell whether it is one of a DICOM series


@dataclass
class BatchRow:
    """One reconstruction.  node, path: what it is made of, neither where only its job is known.  note: why it failed,
    or how far it is.
    """

    name: str
    node: Any = None
    path: str = ""
    status: str = WAITING
    note: str = ""
    seconds: str = ""
    psnr: str = ""
    job: JobFolder | None = None

    @property
    def result(self) -> Path | None:
        """The file with the result."""
        return self.job.result_path if self.job is not None and self.status == FINISHED else None


class Batch:
    """Rows, and the folder that they are run in.  Whoever owns a timer calls :meth:`poll` while it is ``running``."""

    def __init__(self) -> None:
        self.rows: list[BatchRow] = []
        self.table: CaseTable | None = None
        self._engine: tuple[Sequence[str], Mapping[str, str] | None] = ((), None)
        self._place: Mapping[str, Any] | None = None
        self._queue: list[BatchRow] = []
        self._preparing: InThread | None = None
        self._starting: InThread | None = None
        self._job: Job | None = None
        self._keeping: InThread | None = None
        self._row: BatchRow | None = None
        self._stopping = False

    @property
    def folder(self) -> Path | None:
        return self.table.folder if self.table is not None else None

    @property
    def running(self) -> bool:
        return any((self._preparing, self._starting, self._job, self._keeping))

    @property
    def stopping(self) -> bool:
        return self._stopping

    # --- rows

    def add(self, name: str, *, node: Any = None, path: str = "") -> bool:
        """A row for a node or a file; False if it is there already."""
        if any((node is not None and row.node is node) or (path and row.path == path) for row in self.rows):
            return False
        self.rows.append(BatchRow(self._free_name(name), node, path))
        return True

    def _free_name(self, name: str) -> str:
        name = " ".join(name.split()) or _("volume")
        taken, free, number = {row.name for row in self.rows}, name, 2
        while free in taken:
            free, number = f"{name} ({number})", number + 1
        return free

    def remove(self, indices: Sequence[int]) -> None:
        """Take rows away; what was computed stays in the folder.  Nothing happens while they are run."""
        if not self.running:
            self.rows = [row for index, row in enumerate(self.rows) if index not in set(indices)]

    def open(self, folder: Path) -> None:
        """Show a batch of an earlier time, to go on with.  Raises InputError where the folder holds none."""
        if not (folder / TABLE).is_file():
            raise InputError(_("{folder}: holds no batch (no {table})").format(folder=folder, table=TABLE))
        self.table = CaseTable(folder)
        self.rows = []
        for known in self.table.rows():
            row = BatchRow(known["case"])
            self._tell(row, known)
            self.rows.append(row)

    def _tell(self, row: BatchRow, known: Mapping[str, str]) -> None:
        """Let a row say what the table knows."""
        assert self.table is not None
        row.note, row.seconds = known["reason"], known["seconds"]
        row.psnr = _mean([known[f"psnr_{plane}"] for plane in ("axial", "coronal", "sagittal")])
        job = JobFolder(self.table.folder / JOBS / known["job"]) if known["job"] else None
        row.job = job if job is not None and (job.path / "job.json").is_file() else None
        row.status = {"finished": FINISHED, "failed": FAILED}.get(known["status"], STOPPED)
        if row.status == FINISHED and row.result is None:
            row.status, row.note = FAILED, _("Its result is gone: remove the row and add the volume again.")

    # --- the run

    def start(
        self,
        parameters: Parameters,
        folder: Path,
        python: Sequence[str],
        environment: Mapping[str, str] | None,
        place: Mapping[str, Any] | None = None,
    ) -> None:
        """Run all rows that lack their result, with the settings as they are now; those that were begun go on.

        place: where new jobs are computed, as ``JobFolder.create`` takes it.
        Raises InputError where the folder's table is none.
        """
        if self.running:
            return
        if self.folder != folder:
            self.table = CaseTable(folder)
        self._engine, self._stopping = (python, environment), False
        self._place = place
        begins: list[tuple[BatchRow, Callable[[], Asked]]] = []
        self._queue = []
        for row in self.rows:
            if row.node is None and not row.path:
                if row.job is not None and row.status != FINISHED:
                    self._queue.append(row)
                    row.status, row.note = WAITING, ""
                continue
            try:
                _title, ask = request_of(parameters, row.node, row.path)
            except InputError as error:
                self._refuse(row, str(error))
                continue
            begins.append((row, ask))
            row.status, row.note = PREPARING, ""
        self._preparing = InThread(lambda: self._prepare(begins))

    def _prepare(
        self, begins: Sequence[tuple[BatchRow, Callable[[], Asked]]]
    ) -> list[tuple[BatchRow, JobFolder | None, str]]:
        """In a thread: make the jobs, so that a scene that is closed or a program that ends takes nothing away."""
        assert self.table is not None
        made: list[tuple[BatchRow, JobFolder | None, str]] = []
        for row, ask in begins:
            try:
                made.append((row, begin_request(self.table, row.name, *ask(), self._place), ""))
            except (InputError, EngineError, OSError) as error:
                made.append((row, None, failure(error).reason))
        return made

    def _refuse(self, row: BatchRow, reason: str) -> None:
        row.status, row.note, row.job = FAILED, reason, None
        if self.table is not None:
            with suppress(EngineError):  # the next row says so as well
                self.table.refuse(row.name, reason)

    def stop(self) -> None:
        """End after what runs has saved its state; the next start goes on from there."""
        self._stopping = self.running
        self._queue = []
        if self._job is not None:
            self._job.close()

    def close(self) -> None:
        """Touch nothing any more; a worker that runs saves its state and ends by itself."""
        self.stop()
        self._preparing = self._starting = self._job = self._keeping = None
        self._stopping = False

    def poll(self) -> None:
        """Follow what runs; takes milliseconds."""
        if self._preparing is not None and self._preparing.done:
            self._take_prepared(self._preparing)
        if self._starting is not None and self._starting.done:
            self._begin(self._starting)
        if self._job is not None:
            self._follow(self._job)
        if self._keeping is not None and self._keeping.done:
            self._end(self._keeping)
        if not self.running:
            self._next()

    def _take_prepared(self, preparing: InThread) -> None:
        self._preparing = None
        if preparing.error is not None:
            reason = failure(preparing.error).reason
            for row in self.rows:
                if row.status == PREPARING:
                    self._refuse(row, reason)
        for row, job, reason in preparing.value or ():
            if reason:
                self._refuse(row, reason)
                continue
            known = self.table.row(row.name) if self.table is not None else None
            if known is not None:
                self._tell(row, known)
            if job is not None:
                row.status, row.note = WAITING, ""
        if self._stopping:
            for row in self.rows:
                row.status = STOPPED if row.status == WAITING else row.status
            return
        queued = {id(row) for row in self._queue}
        self._queue = [row for row in self.rows if row.status == WAITING and (row.job is not None or id(row) in queued)]

    def _next(self) -> None:
        self._stopping = False
        if self._queue:
            row = self._row = self._queue.pop(0)
            folder = row.job
            row.status = RUNNING
            self._starting = InThread(lambda: when_free(folder) if folder is not None else None)

    def _begin(self, starting: InThread) -> None:
        self._starting, row = None, self._row
        assert row is not None
        try:
            if self._stopping or starting.error is not None or row.job is None:
                raise InputError(failure(starting.error).reason if starting.error else _("Stopped."))
            self._job = Job.start(row.job, python=self._engine[0], environment=self._engine[1])
            self._job.set_preview(False, 60.0)
        except InputError as error:
            row.status, row.note = (STOPPED, "") if self._stopping else (FAILED, str(error))

    def _follow(self, job: Job) -> None:
        assert self._row is not None
        for event in job.poll():
            if isinstance(event, Progress):
                self._row.note = progress(event.stage, event.fraction, event.seconds_left)
        if job.last_word is not None:
            self._job, row, last = None, self._row, job.last_word
            self._keeping = InThread(lambda: self._keep(row, last))

    def _keep(self, row: BatchRow, last: Any) -> None:
        """In a thread: the row of the table, and the result under a name that people and systems can read."""
        assert self.table is not None
        assert row.job is not None
        if isinstance(last, Failed) and self._stopping:
            return  # it was interrupted
        self.table.end(row.name, last)
        if isinstance(last, Finished) and not last.partial and row.job.result_path is not None:
            target = result_file(self.table.folder / RESULTS, row.name, row.job)
            target.parent.mkdir(exist_ok=True)
            unfinished = target.with_name(f".{target.name}.new")
            shutil.copyfile(row.job.result_path, unfinished)
            move_over(unfinished, target)
            row.job.tidy()

    def _end(self, keeping: InThread) -> None:
        self._keeping, row = None, self._row
        assert row is not None
        known = self.table.row(row.name) if self.table is not None else None
        if known is not None:
            self._tell(row, known)
        if keeping.error is not None:
            row.note = failure(keeping.error).reason


def result_file(folder: Path, name: str, job: JobFolder) -> Path:
    """Where the result of a job goes: under the row's name; with the end of the job's where another file has that."""
    plain = folder / f"{as_file_name(name)}.nrrd"
    return plain if not plain.exists() else folder / f"{as_file_name(name)} ({job.path.name[-6:]}).nrrd"


def found_in(folder: Path, source: str) -> list[tuple[str, Path]]:
    """(name, path) of what a folder and those below it hold for a batch: files that fit the source and, for volumes,
    each folder of a DICOM series.  What a batch has made is left out.
    """
    found: list[tuple[str, Path]] = []
    for place, folders, files in os.walk(folder):
        here = Path(place)
        if TABLE in files:
            folders[:] = [name for name in folders if name not in (JOBS, RESULTS)]
        folders.sort()
        files = sorted(name for name in files if not name.startswith(".") and name.upper() != "DICOMDIR")
        name = here.name if here == folder else " ".join(here.relative_to(folder).parts)
        if source == "volume" and any(map(_is_dicom, (here / file for file in files[:_GLANCES]))):
            found.append((name, here))
            continue
        fitting = [here / file for file in files if not problem_with_file(here / file, source)]
        inside = "" if here == folder else f"{name} "
        found += [(f"{inside}{path.name.partition('.')[0]}", path) for path in fitting]
    return found


def _is_dicom(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"
    return False


def _mean(texts: Sequence[str]) -> str:
    """The mean of figures in a table, '' where one is not known."""
    try:
        return f"{sum(map(float, texts)) / len(texts):.2f}"
    except ValueError:
        return ""
