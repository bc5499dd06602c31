"""Measured scans with an eighth of their views, judged by filtered back-projection of all of them.  Run as a script:

    python Testing/benchmarks/few_views.py tooth.h5 savu_folder --out Testing/benchmarks/results/few_views.csv

A few slices from the middle on about 160 pixels a side, pixels averaged.  PSNR and SSIM of each slice against the Hann
window's reconstruction from all views, inside the circle that they see, over its 0.5 to 99.5 percentiles; the mean.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from skimage.metrics import structural_similarity

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.preparation.binning import binned
from DiffusionMBIRLib.scans import Measurement

SIDE, SHARE = 160, 8
FIELDS = ("scan", "views", "method", "psnr_db", "ssim", "processor_s")
METHODS: dict[str, dict[str, Any]] = {
    "fbp": {"preset": "all-views", "fbp_filter": "hann"},
    "sirt": {"preset": "sparse-view", "method": "sirt"},
    "admm-tv": {"preset": "object"},
    "dual": {"preset": "sparse-view"},
}


def small(scan: Measurement, slices: int) -> Measurement:
    """Slices from the middle of a parallel scan, on coarser pixels and a grid as wide as the detector."""
    first = (scan.data.shape[0] - slices) // 2
    by = max(1, scan.geometry.detector[1] // SIDE)
    parts = np.repeat(scan.data[first : first + slices], by, axis=0)  # so that columns alone are averaged
    line, geometry = binned(parts, scan.geometry, by)
    pixel = geometry.pitch_mm
    grid = Grid((slices, line.shape[2], line.shape[2]), (pixel, pixel, pixel))
    return replace(scan, data=line, geometry=geometry, grid=grid, photons=0.0, photon_profile=None)


def made(scan: Measurement, method: str) -> np.ndarray:
    changes = dict(METHODS[method])
    settings = mbir.ReconSettings.preset(changes.pop("preset"), **changes)
    return mbir.reconstruct(scan, settings=settings).volume.array


def judged(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    side = wanted.shape[-1]
    inside = np.hypot(*(np.mgrid[:side, :side] - (side - 1) / 2)) < 0.95 * side / 2
    low, high = np.percentile(wanted[:, inside], (0.5, 99.5))
    psnr, ssim = [], []
    for a, b in zip(found, wanted, strict=True):
        psnr.append(10 * np.log10((high - low) ** 2 / np.mean((a - b)[inside] ** 2)))
        ssim.append(structural_similarity(a, b, data_range=high - low, full=True)[1][inside].mean())
    return float(np.mean(psnr)), float(np.mean(ssim))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path, nargs="+")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--slices", type=int, default=2)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args(arguments)
    rows = []
    for path in chosen.scans:
        whole = small(mbir.read(path), chosen.slices)
        wanted = made(whole, "fbp")
        some = slice(None, None, SHARE)
        few = replace(whole, data=whole.data[:, some], geometry=whole.geometry.take(some))
        for method in chosen.methods.split(","):
            begun = time.process_time()
            psnr, ssim = judged(made(few, method), wanted)
            seconds = f"{time.process_time() - begun:.0f}"
            row = (path.stem, few.geometry.views, method, f"{psnr:.2f}", f"{ssim:.4f}", seconds)
            rows.append(dict(zip(FIELDS, row, strict=True)))
            print(rows[-1], flush=True)
    if chosen.out:
        with chosen.out.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
