"""What a remote engine costs, through an ssh server on this computer; by processor time, so that other work beside it
does not matter.  On loopback both sides share the processor: all costs of both count.

    python -m Testing.benchmarks.engines first     before the first preview, beyond what a local job takes
    python -m Testing.benchmarks.engines share     of previews, in the processor time of a run
    python -m Testing.benchmarks.engines breaks    a run whose connection breaks 20 times, against a local one

Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.jobs.client import Job
from DiffusionMBIRLib.jobs.folder import JobFolder
from DiffusionMBIRLib.jobs.messages import Event, Finished, Log, Paused, Preview, Progress
from DiffusionMBIRLib.jobs.request import Request, folder_input
from DiffusionMBIRLib.version import __version__
from Testing.engine.helpers import body
from Testing.engine.jobs_helpers import small_prior, watch
from Testing.engine.remote_helpers import Server, one_more_step, package_there, server

ENGINE = f"ssh:there:{sys.executable}"
BREAKS, TURNS = 20, 3
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time of processes and of their children that have ended."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
    return total / _TICKS


def processes(there: Server, mark: bytes) -> list[int]:
    """Those on the other side whose command line holds a mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            command = path.read_bytes()
            if mark in command and str(there.root).encode() in command:
                found.append(int(path.parent.name))
    return found


def begin(folder: Path, shape: tuple[int, int, int], engine: str, **settings: Any) -> tuple[JobFolder, Job]:
    scan = mbir.simulate(body(shape), views=24)
    chosen = asdict(ReconSettings(**settings))
    request = Request("body", folder_input(scan), scan.task, {}, chosen, "cpu")
    made = JobFolder.create(folder / "jobs", request, scan, engine=engine)
    return made, Job.start(made)


def follow(job: Job, on_event: Callable[[Event], None]) -> Finished:
    while job.running:
        for event in job.poll():
            on_event(event)
        time.sleep(0.02)
    assert isinstance(job.last_word, Finished), job.last_word
    return job.last_word


def first(folder: Path, there: Server) -> dict[str, Any]:
    """Everything but the worker takes the same time wherever it runs; medians of a few turns, and by the clock, which a
    quiet machine is needed for, how much later than that of a local job the first preview comes.
    """
    turns = [_first_preview(folder / str(turn), there, ENGINE) for turn in range(TURNS)]
    local = [_first_preview(folder / f"local-{turn}", there, "local")["wall_s"] for turn in range(TURNS)]
    spent = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    extra = spent["relay_s"] + spent["ssh_s"] + spent["there_s"]
    later = spent["wall_s"] - statistics.median(local)
    return {**spent, "extra_s": extra, "local_wall_s": local, "later_s": later, "load": os.getloadavg()[0]}


def _first_preview(folder: Path, there: Server, engine: str) -> dict[str, float]:
    spent: dict[str, float] = {}
    folder.mkdir()
    settings: dict[str, Any] = {"prior": str(small_prior(folder)), "steps": 20, "start_sweeps": 3}
    began = time.monotonic()
    _, job = begin(folder, (4, 24, 24), engine, **settings)

    def look(event: Event) -> None:
        if isinstance(event, Preview) and not spent:
            served = [pid for each in there.connections() for pid in [each, *there.children(each)]]
            spent["wall_s"] = time.monotonic() - began
            spent["relay_s"] = cpu_seconds([job.pid])
            spent["ssh_s"] = cpu_seconds(there.children(job.pid))
            workers = processes(there, b"--detached")
            spent["there_s"] = cpu_seconds(set(served) - set(workers))
            spent["worker_s"] = cpu_seconds(workers)

    follow(job, look)
    return spent


def share(folder: Path, there: Server) -> dict[str, Any]:
    """Agent and relay from the first step on, against the worker."""
    marks: list[tuple[float, float, float]] = []
    previews = 0
    _, job = begin(folder, (24, 96, 96), ENGINE, steps=40, start_sweeps=10)

    def look(event: Event) -> None:
        nonlocal previews
        previews += isinstance(event, Preview)
        if isinstance(event, Progress):
            agents = cpu_seconds([*processes(there, b"--agent"), job.pid])
            marks.append((time.monotonic(), agents, cpu_seconds(processes(there, b"--detached"))))

    follow(job, look)
    wall, agent, worker = (last - before for before, last in zip(marks[0], marks[-1], strict=True))
    found = {"run_s": wall, "agent_and_relay_s": agent, "worker_s": worker, "previews": previews}
    return {**found, "share_of_time": agent / wall, "share_of_worker": agent / worker}


def breaks(folder: Path, there: Server) -> dict[str, Any]:
    """The run is held, and goes on by a step or two between one broken connection and the next."""
    settings: dict[str, Any] = {"prior": str(small_prior(folder)), "steps": 200, "start_sweeps": 3}
    began = time.monotonic()
    made, job = begin(folder, (4, 24, 24), ENGINE, **settings)
    job.pause()
    seen = watch(job, lambda event: isinstance(event, Paused))
    broken = 0
    for _ in range(BREAKS):
        broken += there.break_next_connection()
        seen += watch(job, lambda event: isinstance(event, Log) and event.text.startswith("connected to"))
        one_more_step(there.root)
        seen += watch(job, lambda event: isinstance(event, Progress))
    job.resume()
    seen += watch(job, lambda event: False, timeout_s=600.0)
    seconds = time.monotonic() - began
    assert isinstance(job.last_word, Finished), job.last_word
    again = sum(isinstance(event, Log) and event.text.startswith("connected to") for event in seen)
    told = [event.done for event in seen if isinstance(event, Progress) and event.stage == "diffusion"]
    twin, local = begin(folder, (4, 24, 24), "local", **settings)
    follow(local, lambda event: None)
    one, other = (mbir.read_volume(each.path / "result.nrrd").array for each in (made, twin))
    same = bool(np.array_equal(one, other))
    every_step_once = told == list(range(1, 201))
    found = {"broken": broken, "again": again, "same_volume": same, "every_step_told_once": every_step_once}
    return {**found, "seconds": seconds, "load": os.getloadavg()[0]}


def main() -> None:
    what = {act.__name__: act for act in (first, share, breaks)}
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=what)
    asked = parser.parse_args().what
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_DATA_HOME"] = str(folder / "data")
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        with server(folder / "server", XDG_DATA_HOME=os.environ["XDG_DATA_HOME"]) as there:
            package_there(there.root, __version__)
            os.environ["DIFFUSIONMBIR_SSH"] = there.ssh
            found = what[asked](folder, there)
            left = there.wait_until_left()
    print(json.dumps({asked: found | {"left_behind": left}}, indent=1))


if __name__ == "__main__":
    main()
