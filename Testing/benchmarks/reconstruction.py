"""Time a whole reconstruction against its bare network evaluations.  Run as a script, with prior ids or files.

A scan of 64 slices of 256 x 256 pixels is reconstructed with the accelerated sampler and the preset of its task.  Then
the same number of evaluations is timed again outside the engine, on the same stack in the same sub-batches.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from DiffusionMBIRLib.allocation import keep_what_is_free
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.devices import choose_device
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.methods.diffusion import PIXELS_PER_BATCH
from DiffusionMBIRLib.monitor import Silent
from DiffusionMBIRLib.priors.checkpoints import load_prior
from DiffusionMBIRLib.reconstruction import reconstruct
from DiffusionMBIRLib.scans import Measurement
from DiffusionMBIRLib.simulation import simulate
from DiffusionMBIRLib.tasks import CT_TASKS, task_info
from DiffusionMBIRLib.volume import Volume


class StageClock(Silent):
    """A monitor that notes how long each stage took, from the end of the one before."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


def scan(slices: int, size: int, task: str, views: int | None) -> Measurement:
    """A scan of an ellipse of water whose size changes from slice to slice, with a dense rod in it."""
    z, y, x = np.meshgrid(
        np.linspace(0.6, 0.9, slices), np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij", sparse=True
    )
    hu = np.where((x / z) ** 2 + (y / 0.7) ** 2 <= 1, 0.0, -1000.0)
    hu = np.where((x - 0.2) ** 2 + (y + 0.1) ** 2 <= 0.01, 800.0, hu)
    measured = simulate(Volume(hu.astype(np.float32), Grid(hu.shape)), task=task, views=views)
    assert isinstance(measured, Measurement)
    return measured


def bare_seconds(prior_name: str, device: torch.device, slices: int, size: int, evaluations: int) -> float:
    """Seconds for the evaluations alone, with memory kept from one to the next as a reconstruction keeps it."""
    keep_what_is_free()
    prior = load_prior(prior_name, device=device)
    batch = max(1, PIXELS_PER_BATCH[device.type] // size**2)
    x = torch.rand((slices, 1, size, size), device=device)
    started = time.perf_counter()
    for _ in range(evaluations):
        for start in range(0, slices, batch):
            prior.denoise(x[start : start + batch], 0.3)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def compare(prior_name: str, settings: ReconSettings, measurement: Measurement) -> None:
    clock = StageClock()
    result = reconstruct(measurement, prior=prior_name, settings=settings, monitor=clock)
    slices, size, _ = measurement.grid.shape
    device = choose_device(settings.device)
    bare = bare_seconds(prior_name, device, slices, size, result.nfe)
    print(f"{Path(prior_name).stem}: {result.nfe} evaluations a slice on {device}")
    print(f"  whole call           {result.seconds:8.1f} s")
    print(f"  in the network       {result.network_seconds:8.1f} s   whole / network = ", end="")
    print(f"{result.seconds / result.network_seconds:.3f}")
    print(f"  bare evaluations     {bare:8.1f} s   whole / bare    = {result.seconds / bare:.3f}")
    for stage, seconds in clock.seconds.items():
        print(f"  stage {stage:<15}{seconds:8.1f} s")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time a reconstruction against its network evaluations.")
    parser.add_argument("priors", nargs="*", default=[ReconSettings().prior], help="installed ids or files of priors")
    parser.add_argument("--steps", type=int, default=ReconSettings().steps, help="noise levels")
    parser.add_argument("--slices", type=int, default=64, help="slices of the stack")
    parser.add_argument("--size", type=int, default=256, help="rows and columns of a slice")
    parser.add_argument("--task", default=CT_TASKS[0], choices=CT_TASKS)
    parser.add_argument("--views", type=int, help="number of views; by default the task's")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    options = parser.parse_args(arguments)
    preset = task_info(options.task).preset
    settings = ReconSettings.preset(preset, steps=options.steps, device=options.device)
    measurement = scan(options.slices, options.size, options.task, options.views)
    shape = f"{options.size} x {options.size} x {options.slices}"
    print(f"{shape}, {measurement.geometry.views} views; {torch.get_num_threads()} threads of {os.cpu_count()} cores")
    for prior_name in options.priors:
        compare(prior_name, settings, measurement)


if __name__ == "__main__":
    main()
