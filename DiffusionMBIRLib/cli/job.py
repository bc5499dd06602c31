"""``diffusionmbir job``: reconstructions that survive a crash, a cancel and a closed terminal."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config import ReconSettings
from ..errors import EngineError, InputError
from ..jobs.asking import ask
from ..jobs.client import Job
from ..jobs.folder import STATUSES, JobFolder, clean, jobs_root, list_jobs
from ..jobs.messages import Event, Failed, Finished, Log, Progress
from ..jobs.request import Request
from ..jobs.saving import save_result
from ..monitor import Monitor
from ..names import printable
from ..tasks import SPARSE_VIEW, TASKS
from .options import (
    Outcome,
    add_engine,
    add_scan_settings,
    add_settings,
    add_told,
    add_told_trajectory,
    engine_options,
    given_scan_settings,
    given_settings,
    told,
)
from .terminal import tell

NAME, HELP = "job", "reconstruct in a job that can be resumed; list and clean up jobs"
ACTIONS = ("run", "resume", "list", "clean")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of all actions; those of ``run`` stand in groups of their own."""
    parser.add_argument("action", choices=ACTIONS, help="run a new job, resume one, list them, or clean up")
    parser.add_argument("input", nargs="?", type=Path, help="measurement, volume or job (run), job (resume)")
    parser.add_argument("--folder", type=Path, help="where jobs lie (default: $DIFFUSIONMBIR_JOBS or your data folder)")
    parser.add_argument("-o", "--output", type=Path, help="also write the result here (.nrrd, .nii.gz, .mha)")
    parser.add_argument("--report", action="store_true", help="also write a page of the result into the job's folder")
    parser.add_argument("--all", action="store_true", help="clean: interrupted jobs and new ones as well")
    parser.add_argument("--keep", type=int, default=0, help="clean: leave this many of the newest (default 0)")
    parser.add_argument("--task", choices=TASKS, help=f"of a volume's scan (default {SPARSE_VIEW})")
    add_engine(parser)
    add_told(parser)
    add_told_trajectory(parser, file=False)
    add_scan_settings(parser, open_to=("trajectory",))
    parser.add_argument("--preset", help="name of a preset (default: the one of the task)")
    add_settings(parser, ReconSettings)


def run(arguments: argparse.Namespace, monitor: Monitor) -> Outcome:
    """Do the chosen action; returns what --json prints and what is printed otherwise."""
    if arguments.action == "list":
        return _list(_root(arguments))
    if arguments.action == "clean":
        return _clean(arguments)
    if arguments.input is None:
        what = "the measurement or volume" if arguments.action == "run" else "the job's folder"
        raise InputError(f"job {arguments.action}: name {what}")
    _check_output(arguments.output)
    if arguments.action == "resume" or (arguments.input / "job.json").is_file():
        folder = _existing(arguments)
    else:
        folder = JobFolder.create(_root(arguments), _request(arguments), **engine_options(arguments))
    return follow_job(folder, arguments, monitor)


def _root(arguments: argparse.Namespace) -> Path:
    return Path(arguments.folder).absolute() if arguments.folder else jobs_root()


def _check_output(path: Path | None) -> None:
    if path is not None:
        from ..io.volumes import require_writable

        require_writable(path)


def _existing(arguments: argparse.Namespace) -> JobFolder:
    """The job of a folder, or of a name as ``job list`` shows it."""
    named = _root(arguments) / arguments.input
    return JobFolder.open(arguments.input if (arguments.input / "job.json").is_file() else named)


def _request(arguments: argparse.Namespace) -> Request:
    choices = told(arguments) | given_scan_settings(arguments) | given_settings(arguments, ReconSettings)
    return ask(arguments.input, task=arguments.task, preset=arguments.preset, choices=choices)[0]


# --- a job in the terminal


def follow_job(folder: JobFolder, arguments: argparse.Namespace, monitor: Monitor) -> Outcome:
    """Run the job to its end; Ctrl-C cancels it and keeps what there is, a second one kills it."""
    job = Job.start(folder)
    interrupts = 0
    while job.running:
        try:
            for event in job.poll():
                _show(event, arguments, monitor)
            time.sleep(0.02)
        except KeyboardInterrupt:
            interrupts += 1
            _stop(job, interrupts)
    assert job.last_word is not None
    return _ended(folder, job.last_word, arguments)


def _show(event: Event, arguments: argparse.Namespace, monitor: Monitor) -> None:
    if isinstance(event, Progress):
        numbers = {name: value for name, value in event.metrics.items() if value is not None}
        monitor.tick(event.stage, event.done, event.total, **numbers)
    elif isinstance(event, Log) and not arguments.quiet:
        level = "" if event.level == "info" else f"diffusionmbir: {event.level}: "
        tell(f"{level}{event.text}")


def _stop(job: Job, interrupts: int) -> None:
    if interrupts > 1:
        job.kill()
    else:
        job.cancel()


def _ended(folder: JobFolder, last: Event, arguments: argparse.Namespace) -> Outcome:
    again = f"`diffusionmbir job resume {folder.path}` goes on"
    if isinstance(last, Failed):
        if last.kind == "input":
            raise InputError(last.reason)
        raise EngineError(f"{last.reason}; {again}" if last.resumable else last.reason)
    assert isinstance(last, Finished)
    if last.partial:
        kept = f"the partial volume is {folder.path / last.result}" if last.result else "there was no volume yet"
        raise EngineError(f"cancelled; {kept}; {again}")
    output = folder.path / last.result
    if arguments.output is not None:
        save_result(folder, last.result, arguments.output)
        output = arguments.output
    folder.tidy()
    entries = {"folder": str(folder.path), "output": str(output), **asdict(last)}
    if arguments.report:
        from ..page import gathered, write_page
        from ..page.sources import sources_of

        [source] = sources_of([folder.path])
        entries["page"] = str(write_page(gathered(source.result, source.scan()), source.page))
    quality = _quality(last.metrics)
    residual = "" if last.residual is None else f", residual {last.residual:.3e}"
    page = f"\n{entries['page']}" if arguments.report else ""
    return entries, f"{output}: {last.seconds:.1f} s, nfe {last.nfe}{residual}{quality}{page}"


def _quality(metrics: dict[str, Any] | None) -> str:
    if not metrics:
        return ""
    rows = [f"{plane:<9} {_number(found['psnr'], 2)} / {_number(found['ssim'], 3)}" for plane, found in metrics.items()]
    return "\n" + "\n".join([*rows, "PSNR in dB / SSIM"])


def _number(value: float | None, digits: int) -> str:
    return "inf" if value is None else f"{value:.{digits}f}"


# --- what there is


def _list(root: Path) -> Outcome:
    rows, entries = [], []
    for folder in list_jobs(root):
        entry = _entry(folder)
        entries.append(entry)
        size = f"{entry['bytes'] / 1e6:.0f} MB"
        name, method, title = map(printable, (folder.path.name, entry["method"], entry["name"]))
        rows.append(f"{name}  {entry['status']:<11} {size:>9}  {method:<11} {title}")
    return {"folder": str(root), "jobs": entries}, "\n".join(rows) or f"no jobs in {root}"


def _entry(folder: JobFolder) -> dict[str, Any]:
    result = folder.result_path
    status = "damaged" if folder.summary_is_damaged else folder.status
    entry: dict[str, Any] = {"id": folder.path.name, "status": status, "bytes": folder.bytes}
    entry |= {"result": str(result) if result else None, "name": "", "task": "", "method": "damaged"}
    try:
        request = folder.request
    except InputError:
        return entry
    return entry | {"name": request.name, "task": request.task, "method": request.settings.get("method", "")}


def _clean(arguments: argparse.Namespace) -> Outcome:
    if arguments.keep < 0:
        raise InputError(f"--keep must be zero or positive, not {arguments.keep}")
    ended = ("finished", "partial", "failed")
    statuses = [s for s in STATUSES if s != "running"] if arguments.all else list(ended)
    gone = clean(_root(arguments), statuses, keep=arguments.keep)
    names = [folder.path.name for folder in gone]
    return {"removed": names}, f"{len(names)} job{'s' if len(names) != 1 else ''} removed from {_root(arguments)}"
