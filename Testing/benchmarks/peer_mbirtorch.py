"""mbirtorch with its defaults on the benchmark's own scans, as a further row.  Run as a script.

    python Testing/benchmarks/peer_mbirtorch.py VOLUME --coarsen 4 --scans 8-views-noise-free cone-beam-20-views

mbirtorch (BSD licence, https://github.com/cabouman/mbirtorch) is no dependency: run this with an interpreter that has
it beside what this package needs.  The volume is reconstructed on the grid of the scan; all else is mbirtorch's
choice: regularisation by its own rule, 15 iterations at most, values outside the circle that its mask keeps are air.
Each model is compared with our projection of the truth first, so that a wrong turn or flip is an error, no low figure.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from DiffusionMBIRLib.benchmark.plan import FULL, SCANNERS, PlannedScan
from DiffusionMBIRLib.benchmark.run import Subject
from DiffusionMBIRLib.geometry import ConeBeam, ParallelBeam
from DiffusionMBIRLib.metrics import PLANES, evaluate
from DiffusionMBIRLib.operators import projector
from DiffusionMBIRLib.scans import Measurement
from DiffusionMBIRLib.simulation import simulate, truth_for
from DiffusionMBIRLib.volume import hu_to_attenuation

PLANNED = {scan.label: scan for scan in (*FULL["CT"], *SCANNERS["cone-beam"])}
COLUMNS = ("case", "scan", "method", *(f"{p}_{f}" for f in ("psnr", "ssim") for p in PLANES), "seconds", "cpu_seconds")
MOST_APART = 0.05  # of projections of the same voxels by them and by us, which differ in how they see edges


def model_of(scan: Measurement) -> tuple[Any, float]:
    """mbirtorch's model of a scan, and the millimetres that are its unit.

    Its angles run the other way, and its source of a cone beam stands on the other side, so that columns are mirrored.
    """
    import mbirtorch

    geometry, (slices, rows, columns), (x, y, z) = scan.geometry, scan.grid.shape, scan.grid.spacing_mm
    angles = -np.radians(geometry.angles_deg)
    assert isinstance(geometry, ParallelBeam | ConeBeam)
    unit = geometry.pitch_mm
    seen = (geometry.views, scan.data.shape[0], geometry.columns)
    if isinstance(geometry, ConeBeam):
        model: Any = mbirtorch.ConeBeamModel(seen, angles + np.pi, geometry.sdd_mm / unit, geometry.sod_mm / unit)
        model.set_params(delta_det_row=geometry.row_pitch_mm / unit)
    else:  # of which it takes slices of the pixels' side alone; to each line integral they do not matter
        model = mbirtorch.ParallelBeamModel(seen, angles)
    model.set_params(recon_shape=(rows, columns, slices), delta_voxel=x / unit, voxel_row_aspect=y / x)
    if isinstance(geometry, ConeBeam):
        model.set_params(recon_slice_offset=0.0, voxel_slice_aspect=z / x)
    return model, unit


def reconstructed(scan: Measurement, truth: np.ndarray) -> np.ndarray:
    """Attenuation in 1/mm (slices, rows, columns).  truth: likewise, for the comparison of projections alone."""
    model, unit = model_of(scan)
    ours = projector(scan.geometry, scan.grid).forward(torch.from_numpy(truth)).numpy().transpose(1, 0, 2)
    theirs = np.asarray(model.forward_project(np.ascontiguousarray(truth.transpose(1, 2, 0)) * unit))
    mirrored = slice(None, None, -1 if isinstance(scan.geometry, ConeBeam) else 1)
    theirs = theirs[..., mirrored]
    apart = float(np.linalg.norm(theirs - ours) / np.linalg.norm(ours))
    print(f"projections of the truth differ by {apart:.4f}", flush=True)
    if apart > MOST_APART:
        raise SystemExit("mbirtorch sees this scan in another way than we do: its model is not set up rightly")
    data = np.ascontiguousarray(scan.data.transpose(1, 0, 2)[..., mirrored])
    volume, _ = model.recon(data, print_logs=False, logfile_path=None)
    return np.asarray(volume).transpose(2, 0, 1) / unit


def row_of(case: Subject, plan: PlannedScan) -> dict[str, Any]:
    volume = case.volume()
    scan = simulate(volume, task=plan.task, **plan.options, coarsen=case.coarsen, seed=0)
    assert isinstance(scan, Measurement)
    truth = truth_for(volume, case.coarsen)
    axial = truth.axial()[0]
    clock, worked = time.perf_counter(), time.process_time()
    found = reconstructed(scan, np.maximum(hu_to_attenuation(axial.array, scan.mu_water_per_mm), np.float32(0.0)))
    seconds, worked = time.perf_counter() - clock, time.process_time() - worked
    judged = evaluate(scan.volume(1000 * (found / np.float32(scan.mu_water_per_mm) - 1), "mbirtorch"), truth)
    figures = {f"{p}_{f}": round(judged[p][f], 4) for f in ("psnr", "ssim") for p in PLANES}
    named = {"case": case.name, "scan": plan.label, "method": "mbirtorch"}
    return {**named, **figures, "seconds": round(seconds, 1), "cpu_seconds": round(worked, 1)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="mbirtorch with its defaults on the benchmark's scans.")
    parser.add_argument("volume", type=Path)
    parser.add_argument("--scans", nargs="+", default=["8-views-noise-free", "24-views-noise-free"], choices=PLANNED)
    parser.add_argument("--coarsen", type=int, default=2)
    parser.add_argument("--slices", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--csv", type=Path, help="file that the rows are added to")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    case = Subject(options.volume.name.split(".")[0], options.volume, options.coarsen, options.slices)
    for label in options.scans:
        row = row_of(case, PLANNED[label])
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        if options.csv:
            with open(options.csv, "a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                if file.tell() == 0:
                    writer.writeheader()
                writer.writerow(row)


if __name__ == "__main__":
    main()
