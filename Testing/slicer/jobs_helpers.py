"""What the tests of running jobs share: an engine's Python, a small prior, waiting with an end."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from DiffusionMBIRGui.runner import Quiet, Runner
from DiffusionMBIRLib.geometry import Grid

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (6, 32, 40)
MAKE_PRIOR = (
    "import sys\n"
    "from pathlib import Path\n"
    "from Testing.engine.jobs_helpers import small_prior\n"
    "small_prior(Path(sys.argv[1]))\n"
)


def engine() -> tuple[str, ...]:
    """A Python with torch: this one, or the one that $DIFFUSIONMBIR_ENGINE names."""
    chosen = os.environ.get("DIFFUSIONMBIR_ENGINE") or (
        sys.executable if importlib.util.find_spec("torch") is not None else ""
    )
    if not chosen:
        pytest.skip("no Python with torch; name one by DIFFUSIONMBIR_ENGINE")
    return (chosen,)


def environment(folder: Path) -> dict[str, str]:
    values = dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    values["XDG_DATA_HOME"] = values["LOCALAPPDATA"] = str(folder / "data")
    return values


def small_prior(folder: Path) -> Path:
    """A prior that takes milliseconds, made by the engine."""
    command = [*engine(), "-c", MAKE_PRIOR, str(folder)]
    subprocess.run(command, check=True, env=dict(environment(folder), PYTHONPATH=str(ROOT)))
    return folder / "small.safetensors"


def chest(shape: tuple[int, int, int] = SHAPE) -> tuple[np.ndarray, Grid]:
    """The bundled CT, cropped and thinned out to a few voxels."""
    from DiffusionMBIRLib.io.volumes import read_volume, sample_data

    volume = read_volume(sample_data())
    slices, rows, columns = shape
    step = 6
    array = volume.array[10 : 10 + slices, 30 : 30 + step * rows : step, 8 : 8 + step * columns : step]
    x, y, z = volume.grid.spacing_mm
    return np.ascontiguousarray(array), Grid(array.shape, (step * x, step * y, z), volume.grid.origin_mm)


class Heard(Quiet):
    """Notes what a runner tells, in order."""

    def __init__(self) -> None:
        self.progress: list[Any] = []
        self.previews: list[Any] = []
        self.logs: list[str] = []
        self.paused: list[bool] = []
        self.last: Any = None
        self.node: Any = None
        self.at_preview: Callable[[], None] = lambda: None

    def on_progress(self, event: Any) -> None:
        self.progress.append(event)

    def on_preview(self, event: Any) -> None:
        self.previews.append(event)
        self.at_preview()

    def on_paused(self, paused: bool) -> None:
        self.paused.append(paused)

    def on_log(self, event: Any) -> None:
        self.logs.append(event.text)

    def on_finished(self, event: Any, node: Any) -> None:
        self.last, self.node = event, node

    def on_failed(self, event: Any) -> None:
        self.last = event


def poll_until(runner: Runner, condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Poll as the panel's timer does; fails the test if the condition does not hold in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        runner.poll()
        time.sleep(0.005)


def gone(pid: int, within_s: float = 60.0) -> bool:
    """True once no process of the worker's group is left."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False
