"""Time the job layer.  Run as a script.

* from the start of a worker to its first event;
* from the submission of the bundled CT to its first preview, of a cold and of a warm engine;
* from the end of a step to the moment when its preview of N^3 lies in the client's memory;
* what previews and saved states take of the run's time;
* from a cancel to its end.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.io.volumes import read_volume, sample_data
from DiffusionMBIRLib.jobs.asking import ask
from DiffusionMBIRLib.jobs.client import Job
from DiffusionMBIRLib.jobs.folder import JobFolder
from DiffusionMBIRLib.jobs.messages import Finished, Prepared, Preview, Progress
from DiffusionMBIRLib.jobs.standby import Standby
from DiffusionMBIRLib.rates import processor

# A worker that notes when each preview begins and ends, and what states take, by the clock that the client reads, too.
NOTING = """
import runpy, sys, time
from pathlib import Path
bootstrap = runpy.run_path(sys.argv[1])
bootstrap["load"]()
from DiffusionMBIRLib.jobs import keeper, watch, worker
notes = open(Path(sys.argv[2]) / "notes.txt", "w", buffering=1)
def noted(kind, owner, name):
    plain = getattr(owner, name)
    def call(self, *arguments):
        began, before = time.time(), getattr(self, "_spent_s")
        result = plain(self, *arguments)
        if getattr(self, "_spent_s") != before:
            notes.write(f"{kind} {began} {time.time()}\\n")
        return result
    setattr(owner, name, call)
noted("preview", watch.Watch, "preview")
noted("state", keeper.Keeper, "save")
sys.exit(worker.main(sys.argv[2]))
"""


def body(size: int) -> np.ndarray:
    """An ellipsoid of water with a dense rod, in air."""
    z, y, x = np.meshgrid(*3 * [np.linspace(-1, 1, size)], indexing="ij", sparse=True)
    hu = np.where(x**2 + (y / 0.7) ** 2 + (0.5 * z) ** 2 <= 0.8, 0, -1000)
    return np.where((x - 0.2) ** 2 + (y + 0.1) ** 2 <= 0.01, 800, hu).astype(np.int16)


def make(root: Path, size: int, **choices: object) -> JobFolder:
    array = body(size)
    return JobFolder.create(root, *ask(array, grid=Grid(array.shape), choices={"views": 8, "device": "cpu", **choices}))


def first_events(root: Path, runs: int) -> list[float]:
    """Seconds from the start of each of several workers to its first event."""
    found = []
    for _ in range(runs):
        folder = make(root, 16, method="fbp")
        began = time.perf_counter()
        job = Job.start(folder)
        while not job.poll():
            time.sleep(0.0005)
        found.append(time.perf_counter() - began)
        job.cancel()
        job.wait()
    return found


def first_preview(root: Path, *, warm: bool) -> tuple[float, float]:
    """(seconds, seconds of the processor) from the submission of the bundled CT to its first preview at the client."""
    standby = Standby((sys.executable,), device="cpu") if warm else None
    if standby is not None:
        while (before := _processor_s(standby.pid)) != _later(standby.pid):  # it still gets ready
            pass
    volume = read_volume(sample_data())
    began = time.perf_counter()
    folder = JobFolder.create(root, *ask(volume, choices={"device": "cpu"}))
    job = Job.start(folder, standby=standby)
    while not any(isinstance(event, Preview) for event in job.poll()):
        time.sleep(0.002)
    job.read_preview()
    seconds, worked = time.perf_counter() - began, _processor_s(job.pid) - (before if warm else 0.0)
    job.cancel()
    job.wait()
    return seconds, worked


def _later(pid: int) -> float:
    time.sleep(3.0)
    return _processor_s(pid)


def _processor_s(pid: int) -> float:
    """What a process took of the processors until now (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def follow(root: Path, size: int, sweeps: int) -> None:
    """Print what previews and states cost in a run of admm-tv."""
    folder = make(root, size, method="admm-tv", tv_sweeps=sweeps)
    script = root / "noting.py"
    script.write_text(NOTING)
    job = Job.start(folder, python=[sys.executable, str(script)])
    job.set_preview(True, 0.0)
    out = np.empty((size, size, size), np.float32)
    arrived, reading, began, last = [], [], 0.0, 0.0
    while job.running:
        for event in job.poll():
            if isinstance(event, Prepared):
                began = time.time()
            elif isinstance(event, Progress):
                last = time.time()
            elif isinstance(event, Preview):
                started = time.time()
                job.read_preview(out)
                arrived.append(time.time())
                reading.append(arrived[-1] - started)
        time.sleep(0.002)
    assert isinstance(job.last_word, Finished), job.last_word
    notes = [line.split() for line in (folder.path / "notes.txt").read_text().splitlines()]
    previews = [(float(a), float(b)) for kind, a, b in notes if kind == "preview"]
    states = [(float(a), float(b)) for kind, a, b in notes if kind == "state"]
    latency = [there - start for (start, _), there in zip(previews, arrived, strict=False)]
    run = last - began
    print(f"{size}^3, {sweeps} sweeps of admm-tv: {run:.1f} s from Prepared to the last step")
    print(f"  previews {len(previews)}: {_ms(latency)} from the step to the client, of which {_ms(reading)} reading")
    print(f"    worker {_ms([b - a for a, b in previews])}")
    print(f"    {100 * sum(b - a for a, b in previews) / run:.2f} % of the run")
    print(f"  states   {len(states)}: {_ms([b - a for a, b in states])} each")
    print(f"    {100 * sum(b - a for a, b in states) / run:.2f} % of the run")


def cancel(root: Path, size: int) -> float:
    """Seconds from a cancel in the middle of a run to its end."""
    job = Job.start(make(root, size, method="admm-tv", tv_sweeps=5000))
    while not any(isinstance(event, Preview) for event in job.poll()):
        time.sleep(0.002)
    time.sleep(2.0)
    began = time.perf_counter()
    job.cancel()
    job.wait()
    return time.perf_counter() - began


def _ms(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none"
    return f"median {1000 * statistics.median(seconds):.0f} ms, most {1000 * max(seconds):.0f} ms"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time the job layer.")
    parser.add_argument("--size", type=int, default=256, help="side of the volume (default %(default)s)")
    parser.add_argument("--sweeps", type=int, default=60, help="of the run that is followed (default %(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="starts of a worker (default %(default)s)")
    options = parser.parse_args(arguments)
    print(f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_DATA_HOME"] = os.environ["LOCALAPPDATA"] = folder
        root = Path(folder)
        print(f"first event: {_ms(first_events(root, options.runs))}")
        first_preview(root, warm=False)  # which measures the pace of a machine that was never seen
        for warm in (False, True):
            seen = [first_preview(root, warm=warm) for _ in range(options.runs)]
            times = ", ".join(f"{wall:.2f} s (processors {worked:.2f} s)" for wall, worked in seen)
            print(f"first preview, {'warm' if warm else 'cold'}: {times}")
        follow(root, options.size, options.sweeps)
        print(f"cancel at {options.size}^3: {cancel(root, options.size):.2f} s")


if __name__ == "__main__":
    main()
