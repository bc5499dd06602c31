"""Measured scans from an eighth of their views, against what all of the views show.  Run as a script:

    python Testing/benchmarks/measured.py SCAN... --out Testing/benchmarks/results/measured.csv

SCAN is FILE or FILE:COARSEN, by which columns are averaged and pixels enlarged: the matrix of all 181 views of a tooth
on its own 640 x 640 pixels takes 4.8 GB while it is built, whatever the number of slices.  Of the slices some in the
middle are taken (--slices).

The reference is filtered back-projection of all views (filter "hann"): it has noise and streaks of its own, and no
prior.  PSNR in dB within the circle that the detector sees, over the range of the reference in it, of each slice; mean
and worst.  "default" is what the file is reconstructed with where nothing is said, "ours" diffusion as the preset of
the scan's task has it, "admm-tv STRENGTH" the preset object with a fixed strength; fbp and sirt have their usual
settings.  The column strength tells that of total variation which the scan itself called for, ramp_db
the mean PSNR against all views with the filter "ramp", which smooths nothing.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.preparation.binning import with_wider_columns
from DiffusionMBIRLib.preparation.field_of_view import edge_distances
from DiffusionMBIRLib.scans import Measurement
from DiffusionMBIRLib.scans.slabs import slab_of_projections
from DiffusionMBIRLib.tasks import task_info
from DiffusionMBIRLib.usual import usual_settings

PART = 8  # one of so many views
FIELDS = ("scan", "pixels", "slices", "views", "method", "strength", "psnr_db", "worst_db", "ramp_db", "processor_s")


def scan_of(path: Path, coarsen: int, slices: int) -> Measurement:
    """Some slices in the middle of a scan, coarser in their planes."""
    scan = mbir.read(path)
    held = min(slices, scan.grid.shape[0])
    first = (scan.grid.shape[0] - held) // 2
    scan = slab_of_projections(scan, slice(first, first + held))
    if coarsen == 1:
        return scan
    return replace(with_wider_columns(scan, coarsen), grid=scan.grid.coarsened(coarsen), stored_grid=None)


def with_views(scan: Measurement, stride: int) -> Measurement:
    some = slice(None, None, stride)
    profile = scan.photon_profile
    if profile is not None and profile.shape[1] > 1:
        profile = profile[:, some]
    return replace(scan, data=scan.data[:, some], photon_profile=profile, geometry=scan.geometry.take(some))


def settings_of(method: str, scan: Measurement) -> mbir.ReconSettings:
    if method == "default":
        return usual_settings(scan).settings
    if method == "ours":
        return mbir.ReconSettings.preset(task_info(scan.task).preset)
    name, _, strength = method.partition(" ")
    if strength:
        return mbir.ReconSettings.preset("object", method=name, tv_lam=float(strength))
    return mbir.ReconSettings.preset("all-views", method=method)


def strength_told(remarks: Sequence[str]) -> str:
    told = [remark.partition("of strength ")[2].split(",")[0] for remark in remarks if "of strength " in remark]
    return told[0] if told else ""


def psnr(found: np.ndarray, reference: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Of each slice (slices,)."""
    kept = reference[:, inside]
    error = np.mean((found[:, inside] - kept) ** 2, axis=1)
    return np.asarray(10 * np.log10(np.ptp(kept, axis=1) ** 2 / error))


def seen(scan: Measurement) -> np.ndarray:
    """Which pixels (rows, columns) lie in the circle that the detector sees."""
    (rows, columns), (dx, dy) = scan.grid.in_plane, scan.grid.spacing_mm[:2]
    middle_x, middle_y = scan.grid.off_isocentre_mm[:2]
    x = (np.arange(columns) - (columns - 1) / 2) * dx + middle_x
    y = (np.arange(rows) - (rows - 1) / 2) * dy + middle_y
    near, far = sorted(edge_distances(scan.geometry))
    return np.asarray(np.hypot(x, y[:, None]) < min(0.95 * (far if near < 0.8 * far else near), x[-1]))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+")
    parser.add_argument("--methods", default="fbp,sirt,admm-tv 3e-4,admm-tv 3e-3,default,ours")
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args(arguments)
    rows = []
    for text in chosen.scans:
        path, _, coarsen = text.partition(":")
        scan = scan_of(Path(path), int(coarsen or 1), chosen.slices)
        inside = seen(scan)
        reference, sharp = (
            mbir.reconstruct(scan, settings=mbir.ReconSettings.preset("all-views", fbp_filter=name)).volume.array
            for name in ("hann", "ramp")
        )
        part = with_views(scan, PART)
        for method in chosen.methods.split(","):
            begun = time.process_time()
            result = mbir.reconstruct(part, settings=settings_of(method, part))
            spent, found = time.process_time() - begun, result.volume.array
            values = psnr(found, reference, inside)
            strength = strength_told(result.provenance.get("remarks", ()))
            row = (
                Path(path).stem, f"{scan.grid.shape[1]} x {scan.grid.shape[2]}", scan.grid.shape[0],
                f"{part.geometry.views} of {scan.geometry.views}", method, strength,
                f"{values.mean():.2f}", f"{values.min():.2f}", f"{psnr(found, sharp, inside).mean():.2f}",
                f"{spent:.0f}",
            )  # fmt: skip
            rows.append(dict(zip(FIELDS, row, strict=True)))
            print(rows[-1], flush=True)
    if chosen.out:
        with chosen.out.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
