"""Where the results lie that pages are made of: files, folders of jobs, and lists of cases."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..formats import SCAN, may_hold
from ..jobs.cases import TABLE, CaseTable
from ..jobs.folder import MEASURED, REQUEST, RESULT, JobFolder
from ..names import as_file_name
from ..scans import Scan

REPORTS = "reports"  # folder of the pages of a list of cases, beside its index


@dataclass(frozen=True)
class PageSource:
    """A result to make a page of.  name: of the page, for people.  page: where it goes unless told otherwise.  job: the
    folder that it comes from.
    """

    result: Path
    name: str
    page: Path
    job: JobFolder | None = None

    def scan(self) -> Scan | None:
        """What the job measured: its own copy, or its file as long as that is what it was; None where neither is."""
        if self.job is None:
            return None
        with suppress(InputError):
            from ..io.scan_npz import read_npz

            copy = self.job.path / MEASURED
            if copy.is_file():
                kept = read_npz(copy)
                return kept if isinstance(kept, Scan) else None
            entries = self.job.request.input
            path = Path(str(entries.get("path", "")))
            if entries["kind"] == "file" and may_hold(path, SCAN):
                from ..io.scans import read_scan
                from ..jobs.asking import TOLD
                from ..jobs.request import require_unchanged

                require_unchanged(entries)
                return read_scan(path, **{name: entries[name] for name in TOLD if name in entries})
        return None


def sources_of(paths: list[Path]) -> list[PageSource]:
    """Of a result the file itself, of a job's folder its result, of a folder with a table of cases all that are done.

    Raises InputError that names a folder which is neither, or holds no result.
    """
    found: list[PageSource] = []
    for path in paths:
        if (path / TABLE).is_file():
            found += _of_cases(path)
        elif (path / REQUEST).is_file():
            job = JobFolder.open(path)
            if not (job.path / RESULT).is_file():
                raise InputError(f"{path}: has no result yet; run the job to its end")
            found.append(PageSource(job.path / RESULT, job.request.name, job.path / "report.html", job))
        elif path.is_dir():
            raise InputError(f"{path}: is neither the folder of a job nor one of cases; name results (.nrrd)")
        else:
            found.append(PageSource(path, path.stem, path.with_suffix(".html")))
    return found


def _of_cases(folder: Path) -> list[PageSource]:
    found: list[PageSource] = []
    for row in CaseTable(folder).rows():
        job = JobFolder(folder / "jobs" / row["job"])
        if row["status"] == "finished" and (job.path / RESULT).is_file():
            page = folder / REPORTS / f"{as_file_name(row['case'])}.html"
            page = page if all(page != one.page for one in found) else page.with_stem(f"{page.stem} {row['job'][-6:]}")
            found.append(PageSource(job.path / RESULT, row["case"], page, job))
    if not found:
        raise InputError(f"{folder / TABLE}: no case is finished; run them first")
    return found
