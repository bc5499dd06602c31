"""Many reconstructions one after the other, with a table on disk: what is done is not done again."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EngineError, InputError
from ..geometry import Grid
from ..io.scan_fields import content_of
from ..models import find
from ..scans import Scan
from ..volume import Volume
from .asking import Source, ask
from .client import Job
from .files import write_text
from .folder import JobFolder
from .messages import Event, Failed, Finished
from .request import Request

TABLE = "cases.csv"
COLUMNS = (
    "case", "status", "method", "seconds", "residual",
    "psnr_axial", "psnr_coronal", "psnr_sagittal", "ssim_axial", "ssim_coronal", "ssim_sagittal",
    "job", "reason", "fingerprint",
)  # fmt: skip
Row = dict[str, str]


@dataclass(frozen=True)
class Case:
    """One reconstruction; the fields are those of :func:`DiffusionMBIRLib.jobs.asking.ask`.

    name: of the row and of the result, unique in a table.
    """

    name: str
    source: Source
    task: str | None = None
    grid: Grid | None = None
    preset: str | None = None
    choices: Mapping[str, Any] = field(default_factory=dict)

    def request(self) -> tuple[Request, Scan | Volume | None]:
        return ask(
            self.source, task=self.task, name=self.name, grid=self.grid, preset=self.preset, choices=self.choices
        )


class CaseTable:
    """``cases.csv`` in a folder: one row a case, written after each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / TABLE
        self._rows: dict[str, Row] = {}
        if self.path.is_file():
            self._read()

    def _read(self) -> None:
        try:
            with self.path.open(encoding="utf-8", newline="") as stream:
                for row in csv.DictReader(stream):
                    self._rows[row["case"]] = {column: row.get(column) or "" for column in COLUMNS}
        except (OSError, KeyError, UnicodeDecodeError, csv.Error):
            raise InputError(f"{self.path}: is no table of cases; move it away or choose another folder") from None

    def rows(self) -> list[Row]:
        return [dict(row) for row in self._rows.values()]

    def row(self, name: str) -> Row | None:
        return self._rows.get(name)

    def is_done(self, name: str, fingerprint: str) -> bool:
        """True if this very case has its result."""
        row = self._rows.get(name)
        done = row is not None and row["status"] == "finished" and row["fingerprint"] == fingerprint
        return bool(done and row and JobFolder(self.folder / "jobs" / row["job"]).result_path)

    def job_of(self, name: str, fingerprint: str) -> JobFolder | None:
        """The job of a case that was begun with the same request, to go on with."""
        row = self._rows.get(name)
        if row is None or row["fingerprint"] != fingerprint or not row["job"]:
            return None
        job = JobFolder(self.folder / "jobs" / row["job"])
        return job if (job.path / "job.json").is_file() else None

    def begin(self, name: str, request: Request, fingerprint: str, job: JobFolder) -> None:
        method = str(request.settings.get("method", ""))
        self._put({"case": name, "status": "begun", "method": method, "job": job.path.name, "fingerprint": fingerprint})

    def refuse(self, name: str, reason: str) -> None:
        """A case that could not even begin."""
        self._put({"case": name, "status": "failed", "reason": reason})

    def end(self, name: str, last: Event) -> None:
        """Note the last word of a case."""
        row = dict(self._rows[name])
        if isinstance(last, Failed):
            row |= {"status": "failed", "reason": last.reason}
        elif isinstance(last, Finished):
            row |= {"status": "partial" if last.partial else "finished", "seconds": f"{last.seconds:.1f}"}
            row["residual"] = "" if last.residual is None else f"{last.residual:.6g}"
            for plane, found in (last.metrics or {}).items():
                row |= {f"{key}_{plane}": "" if value is None else f"{value:.4f}" for key, value in found.items()}
        self._put(row)

    def _put(self, row: Row) -> None:
        """Raises EngineError where the table cannot be written."""
        self._rows[row["case"]] = {column: row.get(column, "") for column in COLUMNS}
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows.values())
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.path, text.getvalue())
        except OSError as error:
            raise EngineError(f"{self.path}: could not be written ({error.strerror})") from error


def fingerprint_of(request: Request, inside: Scan | Volume | None) -> str:
    """Of everything that decides a result: the request, what lies in the folder and the prior's file as it is now."""
    digest = hashlib.sha256(request.to_json().encode())
    for name, value in content_of(inside).items() if inside is not None else ():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value).data if isinstance(value, np.ndarray) else repr(value).encode())
    with suppress(InputError, OSError):
        found = find(str(request.settings.get("prior", ""))).stat()
        digest.update(f"{found.st_size} {found.st_mtime_ns}".encode())
    return digest.hexdigest()[:32]


def require_unique(names: Iterable[str]) -> None:
    """Raise InputError that names a case which comes twice, or has no name."""
    seen: set[str] = set()
    for name in names:
        if not name.strip():
            raise InputError("a case has no name; give each one its own")
        if name in seen:
            raise InputError(f"two cases are named {name!r}; give each one its own name")
        seen.add(name)


def run_cases(
    cases: Sequence[Case],
    folder: str | os.PathLike[str],
    *,
    python: Sequence[str] = (sys.executable,),
    environment: Mapping[str, str] | None = None,
    on_event: Callable[[str, Event], None] | None = None,
    idle: Callable[[], None] | None = None,
) -> list[Row]:
    """Run cases one after the other and return the table's rows, which ``folder/cases.csv`` holds as well.

    Called again it skips what has its result, goes on with what was interrupted, and runs again what failed or was
    changed.  A case that fails does not end the others.  on_event: called with the case's name and each event.  idle:
    called while waiting, many times a second; what it raises ends the run, whose jobs can then be resumed.
    """
    require_unique(case.name for case in cases)
    table = CaseTable(Path(folder))
    for case in cases:
        try:
            begun = begin_case(table, case)
        except InputError as error:
            table.refuse(case.name, str(error))
            continue
        if begun is not None:
            table.end(case.name, _follow(case.name, begun, python, environment, on_event, idle))
    return [row for row in (table.row(case.name) for case in cases) if row is not None]


def begin_case(table: CaseTable, case: Case) -> JobFolder | None:
    """The job of a case, new or to go on with; None if its result is there.  Raises InputError."""
    return begin_request(table, case.name, *case.request())


def begin_request(
    table: CaseTable,
    name: str,
    request: Request,
    inside: Scan | Volume | None,
    place: Mapping[str, Any] | None = None,
) -> JobFolder | None:
    """As :func:`begin_case`, of a request and the scan or volume that goes with it.

    place: where a new job is computed, as ``JobFolder.create`` takes it.
    """
    fingerprint = fingerprint_of(request, inside)
    if table.is_done(name, fingerprint):
        return None
    job = table.job_of(name, fingerprint)
    if job is None:
        job = JobFolder.create(table.folder / "jobs", request, inside, **(place or {}))
        table.begin(name, request, fingerprint, job)
    return job


def _follow(
    name: str,
    folder: JobFolder,
    python: Sequence[str],
    environment: Mapping[str, str] | None,
    on_event: Callable[[str, Event], None] | None,
    idle: Callable[[], None] | None,
) -> Event:
    try:
        folder.wait_until_free()
        job = Job.start(folder, python=python, environment=environment)
    except InputError as error:
        return Failed(str(error), "input", True)
    try:
        while job.running:
            for event in job.poll():
                if on_event is not None:
                    on_event(name, event)
            if idle is not None:
                idle()
            time.sleep(0.02)
    finally:
        if job.running:  # somebody raised: the worker saves its state and ends
            job.close()
    assert job.last_word is not None
    folder.tidy()
    return job.last_word
