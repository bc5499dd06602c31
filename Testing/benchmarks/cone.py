"""Time the transform of cone beams and compare it with RTK's Joseph pair and mbirtorch's.  Run as a script.

Volumes of n^3 voxels on a flat detector of 1.25 n x 1.25 n, views over 360 degrees.  The candidates take turns in one
run, each on the memory order that suits it.  Shown are medians of seconds on the clock and of the processor's, over all
threads: the latter are what counts where other work shares the machine.  Peers that are not installed are left out.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import ConeBeam, Grid, view_angles
from DiffusionMBIRLib.operators import projector
from DiffusionMBIRLib.operators.space import slices_last

COLUMNS = ("size", "views", "threads", "direction", "projector", "seconds", "cpu_seconds", "ours_over_it_cpu")
Pair = tuple[Callable[[], object], Callable[[], object]]


def scan_of(size: int, views: int) -> tuple[ConeBeam, Grid]:
    cells = 5 * size // 4
    return ConeBeam(view_angles(views, 360.0), cells, cells, 1.5, 1.5, 3.0 * size, 4.5 * size), Grid((size,) * 3)


def ours(geometry: ConeBeam, grid: Grid, x: torch.Tensor, y: torch.Tensor) -> Pair:
    A = projector(geometry, grid)
    mine, data = slices_last(x), slices_last(y)
    return lambda: A.forward(mine), lambda: A.adjoint(data)


def joseph(geometry: ConeBeam, grid: Grid, x: torch.Tensor, y: torch.Tensor) -> Pair:
    A = projector(geometry, grid, backend="rtk")
    return lambda: A.forward(x), lambda: A.adjoint(y)


def mbirtorch(geometry: ConeBeam, grid: Grid, x: torch.Tensor, y: torch.Tensor) -> Pair:
    try:
        import mbirtorch as module
    except ImportError as error:
        raise InputError(f"mbirtorch cannot be imported ({error})") from error
    shape = (geometry.views, geometry.rows, geometry.columns)
    angles = np.radians(geometry.angles_deg)
    unit = geometry.pitch_mm
    model: Any = module.ConeBeamModel(shape, angles, geometry.sdd_mm / unit, geometry.sod_mm / unit)
    slices, rows, columns = grid.shape
    model.set_params(recon_shape=(rows, columns, slices), delta_voxel=1 / unit, use_ror_mask=False)
    volume, data = x.permute(1, 2, 0).contiguous().numpy(), y.permute(1, 0, 2).contiguous().numpy()
    return lambda: model.forward_project(volume), lambda: model.back_project(data)


PEERS: dict[str, Callable[..., Pair]] = {"RTK Joseph": joseph, "mbirtorch": mbirtorch}


def medians(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, float]]:
    """Median (seconds, seconds of processors) of each; all take their turn in every round, after one to warm up.

    rounds: 0 for one round and none to warm up.
    """
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    for round_number in range(rounds + 1):
        for name, run in candidates.items():
            clock, worked = time.perf_counter(), time.process_time()
            run()
            if round_number or not rounds:
                taken[name].append((time.perf_counter() - clock, time.process_time() - worked))
    return {name: tuple(map(statistics.median, zip(*runs, strict=True))) for name, runs in taken.items()}  # type: ignore[misc]


def compare(size: int, views: int, peers: Sequence[str], rounds: int) -> Iterator[tuple[object, ...]]:
    geometry, grid = scan_of(size, views)
    x, y = torch.rand(grid.shape), torch.rand(geometry.data_shape(size))
    pairs = {"ours": ours(geometry, grid, x, y)}
    for name in peers:
        try:
            pairs[name] = PEERS[name](geometry, grid, x, y)
        except InputError as error:
            print(f"without {name}: {error}")
    for k, direction in enumerate(("forward", "adjoint")):
        found = medians({name: pair[k] for name, pair in pairs.items()}, rounds)
        for name, (seconds, worked) in found.items():
            ratio = found["ours"][1] / worked
            print(
                f"{size}^3, {views} views, {direction} {name:<12}{seconds:9.3f} s {worked:9.3f} s of processors "
                f"  ours / it {ratio:.3f}",
                flush=True,
            )
            yield size, views, torch.get_num_threads(), direction, name, *(f"{v:.3g}" for v in (seconds, worked, ratio))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time the transform of cone beams.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--views", type=int, nargs="+", default=[30, 360])
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--rounds", type=int, default=3, help="of which medians are shown; 0: one, and none before it")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--csv", type=Path, help="file that the rows are added to")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(options.threads)
    warnings.filterwarnings("ignore")  # of peers
    if not options.rounds:  # kernels are compiled all the same
        geometry, grid = scan_of(16, 4)
        for run in ours(geometry, grid, torch.rand(grid.shape), torch.rand(geometry.data_shape(16))):
            run()
    for size in options.sizes:
        for views in options.views:
            rows = list(compare(size, views, options.peers, options.rounds))
            if options.csv:
                new = not options.csv.exists()
                with options.csv.open("a", newline="", encoding="utf-8") as file:
                    csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows] if new else rows)


if __name__ == "__main__":
    main()
