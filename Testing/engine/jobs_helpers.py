"""What the tests of jobs need: a small prior in a file, a job that runs for a while, and waiting with an end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch

from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.jobs.client import Job
from DiffusionMBIRLib.jobs.control import Control
from DiffusionMBIRLib.jobs.folder import JobFolder
from DiffusionMBIRLib.jobs.messages import Event, Finished, Progress
from DiffusionMBIRLib.jobs.request import Request, folder_input
from DiffusionMBIRLib.jobs.task import Task
from DiffusionMBIRLib.models import MR_VALUE, ModelCard, ValueScale
from DiffusionMBIRLib.priors.checkpoints import save_prior
from DiffusionMBIRLib.priors.compact import CompactConfig, CompactUNet
from DiffusionMBIRLib.volume import Volume
from Testing.engine.helpers import ROOT, body

LONG = 5000  # steps of a run that nobody waits for
PATIENCE_S = 240.0  # until something is thought to hang: much more than it takes on a machine that is busy otherwise


def small_prior(folder: Path, seed: int = 0, modality: str = "CT", name: str = "small") -> Path:
    """A prior that takes milliseconds."""
    torch.manual_seed(seed)
    network = CompactUNet(CompactConfig(widths=(8, 8), blocks=1))
    path = folder / f"{name}.safetensors"
    value = MR_VALUE if modality == "MR" else ValueScale()
    save_prior(network, ModelCard(id="small", modality=modality, value=value, network=network.config.to_dict()), path)
    return path


def request(folder: Path, volume: Volume | None = None, *, name: str = "body", views: int = 8, **settings) -> Request:
    """A scan of the volume, and its reconstruction with the small prior of the folder."""
    volume = volume or body((4, 24, 24))
    chosen = replace(ReconSettings(prior=str(folder / "small.safetensors"), start_sweeps=3, steps=4), **settings)
    return Request(name, folder_input(volume), "sparse-view-ct", {"views": views}, asdict(chosen), "cpu")


def new_job(folder: Path, volume: Volume | None = None, **settings) -> JobFolder:
    volume = volume or body((4, 24, 24))
    return JobFolder.create(folder / "jobs", request(folder, volume, **settings), volume)


def start(folder: JobFolder) -> Job:
    """One thread, so that several workers at once do not get in each other's way."""
    environment = dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    environment["XDG_DATA_HOME"] = environment["LOCALAPPDATA"] = str(folder.path.parent / "data")
    return Job.start(folder, environment=environment)


def watch(job: Job, until: Callable[[Event], bool], *, timeout_s: float = PATIENCE_S) -> list[Event]:
    """Events up to and with the first that fits, or to the end of the job."""
    seen: list[Event] = []
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        for event in job.poll():
            seen.append(event)
            if until(event):
                return seen
        if not job.running:
            return seen
        time.sleep(0.002)
    job.kill()
    raise TimeoutError(f"no such event within {timeout_s} s; the last were {seen[-3:]}")


def step(stage: str, least: int = 1) -> Callable[[Event], bool]:
    """Fits the progress of a stage."""
    return lambda event: isinstance(event, Progress) and event.stage == stage and event.done >= least


def gone(pid: int, within_s: float = 60.0) -> bool:
    """True once no process of the group is left."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def run_here(folder: JobFolder) -> tuple[Finished, list[Event]]:
    """What a worker does between its first and its last event, in this process: (its last word, what it told)."""
    events: list[Event] = []
    control = Control(on_pause=lambda paused: None, on_unknown=lambda command: None)
    return Task(folder, control, events.append).run(), events


_SEVERAL = """
import os, sys
from pathlib import Path
from DiffusionMBIRLib.jobs.streams import Channel
from DiffusionMBIRLib.jobs.worker import Worker
for folder in sys.argv[1:]:
    channel = Channel(os.open(os.devnull, os.O_WRONLY))
    Worker(Path(folder), channel).run()
    channel.close()
"""


def run_apart(folders: list[JobFolder], data: Path) -> None:
    """Run jobs one after the other in one process of their own, which costs its start once.

    As many threads as here: sums over slices come out the same to the last bit.
    """
    variables = dict(os.environ, OMP_NUM_THREADS=str(torch.get_num_threads()), PYTHONPATH=str(ROOT))
    variables["XDG_DATA_HOME"] = variables["LOCALAPPDATA"] = str(data)
    paths = [str(folder.path) for folder in folders]
    done = subprocess.run([sys.executable, "-c", _SEVERAL, *paths], env=variables, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
