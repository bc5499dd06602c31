"""Time the X-ray transform and compare it with ASTRA's CPU projectors.  Run as a script.

A stack of 64 slices of 256 x 256 pixels, seen from 8 and from 60 views over 180 degrees, or by fan beams (--scanner
fan-beam) over 360.  The candidates take turns in
one run, each on the memory order that suits it, and medians are shown, so that other work on the machine meets them
alike.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import FanBeam, Grid, ParallelBeam, view_angles
from DiffusionMBIRLib.operators import LinearOperator, projector
from DiffusionMBIRLib.operators.backends.astra import AstraFanTransform, AstraTransform
from DiffusionMBIRLib.operators.slice_matrix import SliceMatrix
from DiffusionMBIRLib.operators.space import slices_last

BYTES_PER_ENTRY = 16  # A and A^T, each a 4-byte value and a 4-byte index


def medians(candidates: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each candidate; all take their turn in every round, after one round to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(rounds + 1):
        for name, run in candidates.items():
            started = clock()
            run()
            if round_number:
                taken[name].append(clock() - started)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


SCANNERS = {
    "parallel-beam": lambda grid, views: ParallelBeam.covering(grid, view_angles(views)),
    "fan-beam": lambda grid, views: FanBeam.covering(grid, view_angles(views, 360.0)),
}
COLUMNS = ("scanner", "views", "slices", "rows", "columns", "direction", "projector", "seconds", "ours_over_it")


def astra_rivals(geometry: ParallelBeam | FanBeam, grid: Grid) -> dict[str, LinearOperator]:
    try:
        if isinstance(geometry, FanBeam):
            kinds = ("strip_fanflat", "line_fanflat")
            return {f"ASTRA {kind}": AstraFanTransform(geometry, grid, kind=kind) for kind in kinds}
        return {f"ASTRA {kind}": AstraTransform(geometry, grid, kind=kind) for kind in ("strip", "linear")}
    except InputError as error:
        print(f"without ASTRA: {error}")
        return {}


def compare(
    scanner: str, views: int, grid: Grid, rounds: int, clock: Callable[[], float]
) -> Iterator[tuple[object, ...]]:
    """Print the seconds of each candidate, and give them as rows of ``COLUMNS``."""
    geometry = SCANNERS[scanner](grid, views)
    started = clock()
    ours = projector(geometry, grid)
    built = clock() - started
    assert isinstance(ours, SliceMatrix)
    print(f"{views} views: matrix built in {built:.2f} s, {ours.entries * BYTES_PER_ENTRY / 1e6:.1f} MB")
    x, y = torch.rand(ours.domain.shape), torch.rand(ours.range.shape)
    rivals = astra_rivals(geometry, grid)
    for direction in ("forward", "adjoint"):
        argument = x if direction == "forward" else y
        last = slices_last(argument)
        candidates: dict[str, Callable[[], object]] = {"ours": lambda d=direction, a=last: getattr(ours, d)(a)}
        for name, rival in rivals.items():
            candidates[name] = lambda d=direction, a=argument, r=rival: getattr(r, d)(a)
        seconds = medians(candidates, rounds, clock)
        for name, median in seconds.items():
            ratio = "" if name == "ours" else f"   ours / {name} = {seconds['ours'] / median:.3f}"
            print(f"  {direction}  {name:<20}{1000 * median:9.1f} ms{ratio}", flush=True)
            yield scanner, views, *grid.shape, direction, name, f"{median:.4g}", f"{seconds['ours'] / median:.3g}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time the X-ray transform and ASTRA's CPU projectors.")
    parser.add_argument("--rounds", type=int, default=5, help="timed repetitions, of which the median is shown")
    parser.add_argument("--slices", type=int, default=64, help="slices of the stack")
    parser.add_argument("--size", type=int, default=256, help="rows and columns of a slice")
    parser.add_argument("--views", type=int, nargs="+", default=[8, 60], help="numbers of views")
    parser.add_argument("--scanner", choices=list(SCANNERS), default="parallel-beam")
    parser.add_argument("--csv", type=Path, help="file to write the figures to")
    parser.add_argument(
        "--processor-time", action="store_true", help="of all threads together: for a machine busy with other work"
    )
    options = parser.parse_args(arguments)
    clock = time.process_time if options.processor_time else time.perf_counter
    grid = Grid((options.slices, options.size, options.size))
    print(f"{options.size} x {options.size} x {options.slices}; {os.cpu_count()} cores, ", end="")
    print(f"{torch.get_num_threads()} threads for ours; ASTRA's CPU projectors use one")
    rows = [row for views in options.views for row in compare(options.scanner, views, grid, options.rounds, clock)]
    if options.csv:
        with options.csv.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main()
