"""Measure how many volumes a reconstruction holds at its peak.  Run as a script.

Every case runs in a process of its own, which loads the prior, reconstructs a very small stack and makes the
measurement before it starts to count.  From then on the growth is followed stage by stage: of the resident memory on
the CPU (Linux: VmHWM, set back at each step), of what torch has allocated on a GPU.  The projector's matrices and the
network's working set (of evaluating the prior alone on a volume of the same size, beyond that volume and its result)
are measured in the same way in further processes and told apart.

What is counted is what the system sees: glibc keeps freed blocks of up to 32 MB for later use once it has seen blocks
of that size, so that a volume in this range may be counted although nobody holds it any more.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from DiffusionMBIRLib.allocation import give_back_what_is_free
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.denoisers import SliceDenoiser
from DiffusionMBIRLib.devices import choose_device
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.methods.diffusion import slices_per_batch
from DiffusionMBIRLib.monitor import Silent
from DiffusionMBIRLib.operators import projector
from DiffusionMBIRLib.priors.base import Prior
from DiffusionMBIRLib.priors.checkpoints import load_prior
from DiffusionMBIRLib.reconstruction import reconstruct
from DiffusionMBIRLib.scans import Measurement
from DiffusionMBIRLib.simulation import simulate
from DiffusionMBIRLib.tasks import CT_TASKS, task_info
from DiffusionMBIRLib.volume import Volume

PARTS = ("projector", "network", "run")


class Meter(Silent):
    """Peak bytes above those at its making; as a monitor, of each stage by itself."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.peaks: dict[str, int] = {}
        self._base = 0
        self._base = self.grown()
        self._forget()

    def grown(self) -> int:
        """What is held now."""
        gc.collect()
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device) - self._base
        give_back_what_is_free()  # so that what comes later cannot hide in freed blocks
        return _status("VmRSS") - self._base

    def peak(self) -> int:
        """Since the last time that it was forgotten."""
        most = torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else _status("VmHWM")
        return most - self._base

    def _forget(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def note(self, stage: str) -> None:
        self.peaks[stage] = max(self.peaks.get(stage, 0), self.peak())
        self._forget()

    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        self.note(stage)


def _status(entry: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(entry + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {entry}: on the CPU this needs Linux")


def scan(shape: tuple[int, int, int], task: str, views: int | None) -> Measurement:
    """An ellipse of water, the same in every slice: the values make no difference to the memory."""
    slices, rows, columns = shape
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij", sparse=True)
    hu = np.where((x / 0.8) ** 2 + (y / 0.6) ** 2 <= 1, 0.0, -1000.0).astype(np.float32)
    one = simulate(Volume(hu[None], Grid((1, rows, columns))), task=task, views=views)
    assert isinstance(one, Measurement)
    grid = Grid(shape)
    return replace(one, data=np.repeat(one.data, slices, 0), grid=grid, stored_grid=grid)


def warmed_up(settings: ReconSettings, task: str, device: torch.device) -> Prior:
    """The prior after a reconstruction of a small stack: what libraries load at their first use is not counted."""
    prior = load_prior(settings.prior, device=device)
    reconstruct(scan((2, 32, 32), task, None), prior=prior, settings=settings)
    return prior


def measure(part: str, shape: tuple[int, int, int], settings: ReconSettings, task: str, views: int | None) -> None:
    """Print the peaks of one part in bytes, as JSON."""
    device = choose_device(settings.device)
    prior = warmed_up(settings, task, device)
    measurement = scan(shape, task, views)
    meter = Meter(device)
    if part == "projector":
        kept = projector(measurement.geometry, measurement.grid, device=device).scaled(0.5)
        meter.peaks["projector"] = meter.grown()
        del kept
    elif part == "network":
        denoiser = SliceDenoiser(prior, slices_per_batch(settings, measurement.grid.in_plane, device))
        x = torch.rand(shape, device=device)
        with torch.inference_mode():
            for _ in range(2):
                denoiser(x, 0.1)
                meter.note("network")
        meter.peaks["network"] -= 2 * x.nbytes
    else:
        reconstruct(measurement, prior=prior, settings=settings, monitor=meter)
        meter.note("end")
    print(json.dumps(meter.peaks))


def report(shape: tuple[int, int, int], options: argparse.Namespace) -> None:
    peaks: dict[str, int] = {}
    for part in PARTS:
        command = [sys.executable, __file__, "--part", part, "--sizes", "x".join(map(str, shape))]
        command += ["--prior", options.prior, "--method", options.method, "--task", options.task]
        command += ["--device", options.device]
        command += ["--views", str(options.views)] if options.views else []
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        peaks |= json.loads(done.stdout)
    volume = 4 * shape[0] * shape[1] * shape[2]
    matrix, network = peaks.pop("projector"), peaks.pop("network")
    print(f"{shape[2]} x {shape[1]} x {shape[0]}: a volume takes {volume / 1e6:.1f} MB, ", end="")
    print(f"the projector {matrix / 1e6:.1f} MB, the network at work {network / 1e6:.1f} MB")
    for stage, peak in peaks.items():
        # What the network has freed stays with the process until the end.
        own = peak - matrix - (network if stage == "diffusion" or (stage == "end" and "diffusion" in peaks) else 0)
        print(f"  {stage:<10} peak {peak / 1e6:8.1f} MB   beside matrix and network {own / volume:6.2f} volumes")
    print(flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure the peak memory of a reconstruction in volumes.")
    parser.add_argument("--sizes", nargs="+", default=["128x128x128", "128x256x256"], help="slices x rows x columns")
    parser.add_argument("--prior", default=ReconSettings().prior, help="installed id or file of the prior")
    parser.add_argument("--method", default=ReconSettings().method, help="reconstruction method")
    parser.add_argument("--task", default=CT_TASKS[0], choices=CT_TASKS)
    parser.add_argument("--views", type=int, help="number of views; by default the task's")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    shapes = [tuple(int(n) for n in size.split("x")) for size in options.sizes]
    if options.part:
        few = {"steps": 3, "start_sweeps": 3, "tv_sweeps": 3, "sirt_iterations": 3}  # each step takes the same memory
        settings = ReconSettings.preset(
            task_info(options.task).preset, prior=options.prior, method=options.method, device=options.device, **few
        )
        measure(options.part, shapes[0], settings, options.task, options.views)
        return
    for shape in shapes:
        report(shape, options)


if __name__ == "__main__":
    main()
