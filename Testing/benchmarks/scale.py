"""Many devices: what a run in two processes exchanges, and what one of 1024^3 would take on 1, 8 and 64 H100.

Run as a script.  ``measure`` runs a stack in processes of this computer and prints bytes, exchanges and their share of
the time.  ``plan`` prints the tables of docs/scale.md from the costs below and the number of passes and exchanges in
the loops of the engine.  Costs that were measured say so; those of an H100 are from its data sheet and the stated
shares of it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace

# Of the loops of the engine: reads and writes of whole volumes, and exchanges.
PASSES_OF_STEP = 27  # of conjugate gradient with differences across slices, beside the projector
PASSES_OF_LEVEL = 70  # of dual, beside those
PASSES_OF_SWEEP = 80  # of ADMM-TV, beside those of its four steps
HALOS_OF_LEVEL, HALOS_OF_SWEEP = 3, 3  # beside one a step
SUMS_OF_STEP = 3
CG_STEPS, TV_STEPS, LEVELS, SWEEPS, NORM_STEPS = 5, 4, 20, 30, 13
FLOP_PER_PIXEL = 0.31e6  # of the bundled prior
RAYS_A_VOXEL = 1.6
VOLUMES = 10  # of dual at its peak, float32
COPIES_OF_DATA = 4


@dataclass(frozen=True)
class Costs:
    """Of one device: seconds a pixel of the network, a byte of volumes that is read or written, an update of a voxel by
    a view of a cone and of a stack; bytes a second between devices, and seconds that each exchange takes at least.
    """

    name: str
    pixel_s: float
    byte_s: float
    update_s: float
    stack_update_s: float
    link: float
    latency_s: float


# Two cores of an AMD EPYC (avx512_bf16): 256 x 256 x 64, 50 levels, 112 s of which 1 / 1.04 in the network, the rest
# in the data step and the sampler (docs/benchmarks.md).  The projector of cone beams: 4.8 ns an update on a core of an
# EPYC (AVX2), results/cone/projector.csv; of stacks 3.9 ms for both ways of 8 views (docs/benchmarks.md).  The link is
# taken to be that of loopback, 1 GB/s and 0.1 ms.
CPU = Costs("two cores", 0.51e-6, 1 / 18e9, 2.4e-9, 5.8e-11, 1e9, 1e-4)
# Data sheet: 989 TFLOP/s in bfloat16, 3.35 TB/s, NVLink 450 GB/s each way, one NIC of 400 Gb/s a device.  Taken: a
# quarter, 0.7, 0.7 of these.  An update takes the bytes that it takes on a core.
BANDWIDTH = 0.7 * 3.35e12
PIXEL_S = FLOP_PER_PIXEL / (0.25 * 989e12)
H100 = Costs("H100", PIXEL_S, 1 / BANDWIDTH, 4.8e-9 * 9e9 / BANDWIDTH, 5.8e-11 * 18e9 / BANDWIDTH, 0.7 * 400e9, 15e-6)


@dataclass(frozen=True)
class Plan:
    """Seconds and bytes of one device, of ``devices``, for a volume (slices, rows, columns) and its views."""

    shape: tuple[int, int, int]
    views: int
    devices: int
    costs: Costs
    mixed: bool = True

    @property
    def voxels(self) -> float:
        """Of a slab."""
        slices, rows, columns = self.shape
        return -(-slices // self.devices) * rows * columns

    @property
    def data_bytes(self) -> float:
        """Of all projections where slices mix, else of a slab's."""
        slices, rows, columns = self.shape
        held = slices if self.mixed else -(-slices // self.devices)
        return 4 * RAYS_A_VOXEL * held * max(rows, columns) * self.views

    @property
    def memory_bytes(self) -> float:
        return 4 * VOLUMES * self.voxels + COPIES_OF_DATA * self.data_bytes

    def pairs(self, number: float) -> float:
        """Seconds of projections with their adjoints."""
        update = self.costs.update_s if self.mixed else self.costs.stack_update_s
        return 2 * number * self.voxels * self.views * update

    def passes(self, number: float) -> float:
        return number * 4 * self.voxels * self.costs.byte_s

    def exchanged(self, pairs: float, halos: float, sums: float) -> tuple[float, float]:
        """(bytes that a device hands over, seconds) of so many of each."""
        if self.devices == 1:
            return 0.0, 0.0
        ring = 2 * (self.devices - 1) / self.devices if self.mixed else 0.0
        sent = pairs * ring * self.data_bytes + halos * 2 * 4 * self.shape[1] * self.shape[2]
        calls = halos + sums + (pairs if self.mixed else 0)
        return sent, sent / self.costs.link + calls * self.costs.latency_s

    def level(self) -> dict[str, float]:
        pairs = CG_STEPS + 1.2  # the residual is looked at in every fifth level
        sent, waited = self.exchanged(pairs, CG_STEPS + HALOS_OF_LEVEL, SUMS_OF_STEP * CG_STEPS + 2)
        parts = {
            "network": self.voxels * self.costs.pixel_s,
            "projector": self.pairs(pairs),
            "volumes": self.passes(PASSES_OF_STEP * CG_STEPS + PASSES_OF_LEVEL),
            "exchange": waited,
        }
        return {**parts, "sent_bytes": sent, "seconds": sum(parts.values())}

    def start(self) -> dict[str, float]:
        sent, waited = self.exchanged(TV_STEPS + 1, TV_STEPS + HALOS_OF_SWEEP, SUMS_OF_STEP * TV_STEPS)
        seconds = self.pairs(TV_STEPS + 1) + self.passes(PASSES_OF_STEP * TV_STEPS + PASSES_OF_SWEEP) + waited
        norm = self.pairs(NORM_STEPS) + self.exchanged(NORM_STEPS, 0, NORM_STEPS)[1]
        return {"seconds": SWEEPS * seconds + norm, "sent_bytes": SWEEPS * sent, "exchange": SWEEPS * waited}

    def run(self) -> dict[str, float]:
        level, start = self.level(), self.start()
        seconds = LEVELS * level["seconds"] + start["seconds"]
        passes = LEVELS * (PASSES_OF_STEP * CG_STEPS + PASSES_OF_LEVEL)
        passes += SWEEPS * (PASSES_OF_STEP * TV_STEPS + PASSES_OF_SWEEP)
        return {
            "memory_bytes": self.memory_bytes, "seconds": seconds, "level_s": level["seconds"],
            "start_s": start["seconds"], "traffic_bytes": 4 * passes * self.voxels,
            "sent_bytes": LEVELS * level["sent_bytes"] + start["sent_bytes"],
            "exchange_share": (LEVELS * level["exchange"] + start["exchange"]) / seconds,
        }  # fmt: skip


def plan() -> None:
    laboratory = (1024, 1024, 1024)
    for costs, shape, views, mixed in (
        (H100, laboratory, 24, True),
        (H100, laboratory, 360, True),
        (H100, laboratory, 24, False),
        (CPU, (64, 256, 256), 8, False),
    ):
        for devices in (1, 2) if costs is CPU else (1, 8, 64):
            found = Plan(shape, views, devices, costs, mixed).run()
            print(json.dumps({"on": costs.name, "views": views, "mixed": mixed, "devices": devices} | _short(found)))
    for mixed in (False, True):
        for devices in (1, 2, 4, 8):
            found = Plan((128 * devices, 1024, 1024), 24, devices, H100, mixed).level()
            print(json.dumps({"weak scaling": devices, "mixed": mixed} | _short(found)))


def _short(found: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.3g}") for name, value in found.items()}


def measure(slices: int, side: int, views: int, levels: int, processes: int) -> None:
    """Runs in processes of this computer, by the environment that torchrun gives."""
    from DiffusionMBIRLib.launch import _environment, _free_port

    port = _free_port()
    command = [sys.executable, "-m", "Testing.benchmarks.scale", "part", "--slices", str(slices), "--side", str(side)]
    command += ["--views", str(views), "--levels", str(levels)]
    running = [subprocess.Popen(command, env=_environment(processes, k, port)) for k in range(processes)]
    if any(process.wait() for process in running):
        raise SystemExit("a process failed")


def part(slices: int, side: int, views: int, levels: int) -> None:
    from typing import Any

    from DiffusionMBIRLib.config import ReconSettings
    from DiffusionMBIRLib.many import joining
    from DiffusionMBIRLib.reconstruction import reconstruct
    from Testing.benchmarks.memory import scan

    settings = replace(ReconSettings(), steps=levels, start="fbp", device="cpu")
    measured = scan((slices, side, side), "sparse-view-ct", views)
    with joining("cpu") as group:
        slabs: Any = group.slabs_of(measured)
        began, processor = time.perf_counter(), time.process_time()
        result = reconstruct(measured, settings=settings, slabs=slabs)
        seconds = time.perf_counter() - began
        if group.first:
            told = {"seconds": seconds, "processor_s": time.process_time() - processor, "exchange_s": slabs.seconds}
            told |= {"network_s": result.network_seconds, "levels": levels, "load": os.getloadavg()[0]}
            print(json.dumps(told | {f"sent_{kind}": value for kind, value in slabs.sent.items()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("plan", "measure", "part"))
    for name, usual in (("slices", 64), ("side", 256), ("views", 8), ("levels", 2), ("processes", 2)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    options = parser.parse_args()
    sizes = options.slices, options.side, options.views, options.levels
    if options.what == "plan":
        plan()
    elif options.what == "measure":
        measure(*sizes, options.processes)
    else:
        part(*sizes)


if __name__ == "__main__":
    main()
