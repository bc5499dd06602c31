"""Time one slice through the published networks, and measure its memory.  Run as a script.

The networks have their published sizes and random weights: NCSN++ (61 million weights) and the ADM U-Net (374 million).
Each is timed in turns with a plain implementation of the same network, in float32 and in bf16 under autocast.  Memory
is what a process of its own takes for the weights and the evaluation of one slice.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# The plain networks lie with the tests, in the checkout rather than in the package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from DiffusionMBIRLib.priors.adm import ADMConfig, ADMUNet
from DiffusionMBIRLib.priors.ncsnpp import NCSNpp, NCSNppConfig
from DiffusionMBIRLib.priors.unet import on_meta
from Testing.engine.plain_networks import PlainADM, PlainNCSNpp

KINDS: dict[str, tuple[Any, Any, Any]] = {
    "ncsnpp": (NCSNpp, NCSNppConfig, PlainNCSNpp),
    "adm": (ADMUNet, ADMConfig, PlainADM),
}
PRECISIONS = ("float32", "autocast", "bf16 weights")


def build(kind: str, weights: torch.dtype = torch.float32, device: str = "cpu") -> Any:
    """The published network with random weights, made without a second copy of them."""
    network_class, config_class, _ = KINDS[kind]
    network = on_meta(network_class, config_class()).eval().requires_grad_(False)
    network = network.to(weights).to_empty(device=device).to(memory_format=torch.channels_last)
    for tensor in chain(network.parameters(), network.buffers()):
        tensor.normal_(std=0.02)
    return network


def evaluate(network: Callable[[Tensor, Tensor], Tensor], x: Tensor, label: Tensor, autocast: bool) -> Tensor:
    with torch.inference_mode(), torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
        return network(x, label)


def seconds(call: Callable[[], Tensor], device: str) -> float:
    started = time.perf_counter()
    call()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def compare(kind: str, size: int, runs: int, device: str) -> None:
    torch.manual_seed(0)
    network = build(kind, device=device)
    plain = KINDS[kind][2](network.config, {k: v.contiguous() for k, v in network.state_dict().items()})
    x, label = torch.rand(1, 1, size, size, device=device), torch.full((1,), 2.0, device=device)
    for autocast in (False, True):
        calls = [partial(evaluate, n, x, label, autocast) for n in (network, plain)]
        found, expected = (call() for call in calls)  # warms up, too
        difference = float((found - expected).norm() / expected.norm())
        times = [[seconds(call, device) for call in calls] for _ in range(runs)]
        ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{kind:<8}{'bf16' if autocast else 'float32':<9}{ours:8.3f} s   plain {theirs:8.3f} s   ", end="")
        print(f"ours / plain = {ours / theirs:.3f}   outputs differ by {difference:.1e}", flush=True)


def measure_memory(kind: str, size: int, precision: str) -> None:
    """Print, as JSON, the growth of this process's peak memory in GB; meant for a process of its own."""
    import resource

    torch.conv2d(torch.rand(1, 8, 16, 16), torch.rand(8, 8, 3, 3))  # the libraries' own memory is not the network's
    unit = 1e9 if sys.platform == "darwin" else 1e6 / 1.024  # getrusage counts bytes there and KiB elsewhere

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

    start = peak()
    network = build(kind, torch.bfloat16 if precision == "bf16 weights" else torch.float32)
    loaded = peak()
    evaluate(network, torch.rand(1, 1, size, size), torch.full((1,), 2.0), precision == "autocast")
    print(json.dumps([loaded - start, peak() - start]))


def report_memory(kind: str, size: int) -> None:
    for precision in PRECISIONS:
        command = [sys.executable, __file__, kind, "--size", str(size), "--measure-memory", precision]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        weights, peak = json.loads(done.stdout)
        print(f"{kind:<8}{precision:<13}weights {weights:.2f} GB   peak for one slice {peak:.2f} GB", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time one slice through the published networks.")
    parser.add_argument("networks", nargs="*", default=list(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--size", type=int, default=256, help="rows and columns of the slice")
    parser.add_argument("--runs", type=int, default=3, help="timed evaluations of each")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps; memory is measured on the CPU only")
    parser.add_argument("--measure-memory", choices=PRECISIONS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure_memory:
        measure_memory(options.networks[0], options.size, options.measure_memory)
        return
    print(f"one slice of {options.size} x {options.size} on {options.device}, {torch.get_num_threads()} threads")
    if options.device == "cpu":  # first, since a process inherits the peak of the one that starts it
        for kind in options.networks:
            report_memory(kind, options.size)
    for kind in options.networks:
        compare(kind, options.size, options.runs, options.device)


if __name__ == "__main__":
    main()
