"""How many structures that only the prior vouches for are true, on the runs that a calibration kept.  Run as a script.

    python Testing/benchmarks/doubt_candidates.py FOLDER PRIOR            a table in Markdown

FOLDER: where ``diffusionmbir calibrate`` wrote.  True is a structure that has at least half of the contrast that the
reconstruction gave it.  Voxels are taken for squares.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.uncertainty.calibrate import read_run
from DiffusionMBIRLib.uncertainty.candidates import REACH, find_candidates, surroundings
from DiffusionMBIRLib.uncertainty.doubt import half_widths
from DiffusionMBIRLib.uncertainty.table import find_table, read_table
from DiffusionMBIRLib.volume import Volume


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="How many candidates are true.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("prior")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    path = find_table(options.prior)
    assert path, options.prior
    table, scale = read_table(path)
    slices: dict[str, int] = {}
    rows: dict[str, list[bool]] = {}
    for kept in sorted((options.folder / "runs").glob("file-*.npz")):
        run = read_run(kept, kept.name, table.modality)
        entry = next(e for e in table.entries if e.kind == run.kind)
        widths = half_widths(run.maps, run.kinds, scale, entry)["95"].numpy()
        values, part = run.maps[:, 0].numpy(), run.maps[:, 1].numpy()
        with np.load(kept) as file:
            truth = file["truth"]
        grid = Grid(values.shape, (1.0, 1.0, 4.0))
        labels, found = find_candidates(*(Volume(np.ascontiguousarray(a), grid) for a in (values, part, widths)))
        contrast = truth - surroundings(truth, [REACH, REACH, 0])
        held = [float(contrast[labels.array == c.number].mean()) / c.contrast >= 0.5 for c in found]
        rows.setdefault(run.kind.text, []).extend(held)
        slices[run.kind.text] = slices.get(run.kind.text, 0) + len(values)
    print("| scan | slices | candidates | of them true |")
    print("|---|---:|---:|---:|")
    for kind, held in rows.items():
        print(f"| {kind} | {slices[kind]} | {len(held)} | {np.mean(held):.0%} |")


if __name__ == "__main__":
    main()
