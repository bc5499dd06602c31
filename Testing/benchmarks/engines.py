"""What a remote engine costs, through an ssh server on this computer: first preview, previews, broken connections.

    python -m Testing.benchmarks.engines [--breaks 20] [--repeats 3] [--size 24 128 128] [--evaluations 20]

Prints JSON.  On loopback both sides share the processor, so that all costs of both count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.jobs.client import Job
from DiffusionMBIRLib.jobs.folder import JobFolder
from DiffusionMBIRLib.jobs.messages import Finished, Log, Preview, Progress
from DiffusionMBIRLib.jobs.request import Request, folder_input
from DiffusionMBIRLib.version import __version__
from Testing.engine.helpers import body
from Testing.engine.remote_helpers import Server, package_there, server

ENGINE = f"ssh:there:{sys.executable}"
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def agents() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().rstrip(b"\0").endswith(b"--agent"):
                found.append(int(path.parent.name))
    return found


def run(folder: Path, asked: Any, engine: str, *, there: Server | None = None, breaks: int = 0) -> dict[str, Any]:
    """One job: seconds to the first preview and in all, processor time of agent and relay while it ran."""
    scan, evaluations = asked
    settings = asdict(ReconSettings(steps=evaluations))
    request = Request("body", folder_input(scan), scan.task, {}, settings, "cpu")
    job_folder = JobFolder.create(folder / "jobs", request, scan, engine=engine)
    began = time.monotonic()
    job = Job.start(job_folder)
    first = prepared = None
    before: dict[int, float] = {}
    spent: dict[int, float] = {}
    broken = again = steps = 0
    while job.running:
        for event in job.poll():
            if isinstance(event, Preview) and first is None:
                first = time.monotonic() - began
            if isinstance(event, Progress) and prepared is None:
                prepared = time.monotonic()
                if engine != "local":
                    before = {pid: cpu_seconds(pid) for pid in [*agents(), job.pid]}
            again += isinstance(event, Log) and event.text.startswith("connected to")
            steps += isinstance(event, Progress) and event.stage == "diffusion"
        for pid in before:
            with suppress(OSError):
                spent[pid] = cpu_seconds(pid) - before[pid]
        if there is not None and prepared is not None and broken < breaks and again >= broken and there.connections():
            time.sleep(0.3)
            broken += bool(there.break_connections())
        time.sleep(0.05)
    assert isinstance(job.last_word, Finished), job.last_word
    ended = time.monotonic()
    volume = mbir.read_volume(job_folder.path / "result.nrrd").array
    seconds = ended - (prepared or began)
    return {
        "first_preview_s": first, "seconds": ended - began, "run_s": seconds, "broken": broken, "again": again,
        "steps_told": steps, "agent_and_relay_share": sum(spent.values()) / seconds, "volume": volume,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--breaks", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=3, default=(24, 128, 128))
    parser.add_argument("--evaluations", type=int, default=20)
    asked = parser.parse_args()
    scan = mbir.simulate(body(tuple(asked.size)), views=24)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("XDG_DATA_HOME", str(folder / "data"))
        with server(folder / "server", XDG_DATA_HOME=os.environ["XDG_DATA_HOME"]) as there:
            package_there(there.root, __version__)
            os.environ["DIFFUSIONMBIR_SSH"] = there.ssh
            what = scan, asked.evaluations
            run(folder, what, "local")  # measures the pace of the machine, once
            here, remote = [], []
            for _ in range(asked.repeats):
                here.append(run(folder, what, "local"))
                remote.append(run(folder, what, ENGINE))
            hard = run(folder, what, ENGINE, there=there, breaks=asked.breaks)
            left = there.wait_until_left()
    result = {
        "size": list(asked.size), "evaluations": asked.evaluations, "load": os.getloadavg()[0],
        "first_preview_local_s": statistics.median(r["first_preview_s"] for r in here),
        "first_preview_ssh_s": statistics.median(r["first_preview_s"] for r in remote),
        "run_local_s": statistics.median(r["run_s"] for r in here),
        "run_ssh_s": statistics.median(r["run_s"] for r in remote),
        "agent_and_relay_share_of_run": statistics.median(r["agent_and_relay_share"] for r in remote),
        "same_volume": all(np.array_equal(r["volume"], here[0]["volume"]) for r in remote),
        "broken_connections": hard["broken"], "taken_up_again": hard["again"], "steps_told": hard["steps_told"],
        "same_volume_after_breaks": bool(np.array_equal(hard["volume"], here[0]["volume"])), "left_behind": left,
    }  # fmt: skip
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
