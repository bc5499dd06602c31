"""Time a prior's network in every precision that the device computes in, and in 'auto'.  Run as a script.

All are timed in turns, so that whatever else the machine does falls on all of them alike; the medians count.  What is
printed are rows for results/precision.md.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from DiffusionMBIRLib.benchmark.results import machine_record
from DiffusionMBIRLib.config import PRECISIONS, ReconSettings
from DiffusionMBIRLib.devices import choose_device, precision_name
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.priors.checkpoints import load_prior
from DiffusionMBIRLib.priors.networks import NetworkPrior

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16")  # as Linux calls them; the last one of ARM


def flags() -> list[str]:
    """Those of FLAGS that this processor has; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    known = next((line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return [flag for flag in FLAGS if flag in known]


def usable(prior: str, device: torch.device) -> dict[str, NetworkPrior]:
    """The prior in each precision that the device computes in."""
    priors = {}
    for name in PRECISIONS:
        try:
            priors[name] = load_prior(prior, device=device, precision=name)
        except InputError as error:
            print(f"left out: {error}")
    return priors


def seconds(prior: NetworkPrior, x: torch.Tensor) -> float:
    started = time.perf_counter()
    prior.denoise(x, 0.3)
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    elif x.device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - started


def measure(prior: str, device: torch.device, size: int, slices: int, runs: int) -> dict[str, float]:
    """Median seconds of an evaluation of ``slices`` images in each precision."""
    priors = usable(prior, device)
    x = torch.rand((slices, 1, size, size), generator=torch.Generator().manual_seed(0)).to(device)
    times: dict[str, list[float]] = {name: [] for name in priors}
    for run in range(runs + 1):
        for name, each in priors.items():
            taken = seconds(each, x)
            if run:  # the first one warms up
                times[name].append(taken)
    auto = precision_name(priors["auto"].precision)
    print(f"auto is {auto}")
    return {name: statistics.median(taken) for name, taken in times.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time a prior's network in every precision.")
    parser.add_argument("prior", nargs="?", default=ReconSettings().prior, help="id or file (default %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--size", type=int, default=256, help="rows and columns of a slice (%(default)s)")
    parser.add_argument("--slices", type=int, default=4, help="slices of an evaluation (%(default)s)")
    parser.add_argument("--runs", type=int, default=7, help="timed evaluations in each precision (%(default)s)")
    options = parser.parse_args(arguments)
    device, about = choose_device(options.device), machine_record()
    where = about["processor"] if device.type == "cpu" else about["gpu"]
    found = " ".join(flags()) or platform.machine()
    print(f"{where} ({found}), {about['threads']} threads, torch {about['torch']}, {options.size} x {options.size}")
    times = measure(options.prior, device, options.size, options.slices, options.runs)
    fastest = min(times.values())
    cells = [f"{times[name] / options.slices * 1000:.1f}" if name in times else "-" for name in PRECISIONS]
    print(f"\n| machine | {' | '.join(PRECISIONS)} | auto / fastest |")
    print(f"|---|{'---:|' * (len(PRECISIONS) + 1)}")
    print(f"| {where}, {about['threads']} threads ({found}) | {' | '.join(cells)} | {times['auto'] / fastest:.3f} |")


if __name__ == "__main__":
    main()
