"""The score of the Helsinki Tomography Challenge 2022 of several methods on its limited scans.  Run as a script:

    python Testing/benchmarks/htc.py FOLDER --coarsen 2 --out Testing/benchmarks/results/htc.csv

FOLDER holds htc2022_<scan>_limited.mat and htc2022_<scan>_recon_fbp_seg.mat.  The score is Matthews' correlation of the
slice, cut at Otsu's threshold, with the challenge's own segmentation of the full scan (512 x 512 pixels).  With
--coarsen 2 it is reconstructed on 256 x 256 pixels from pairs of columns, and interpolated before the cut.

"ours" is the prior of discs with holes, as the preset discs has it, on its own pixels (--coarsen 4 and no others);
"bounded-tv" is total variation that knows the disc's material and size, as the preset disc-bounds has it.  Files are
reconstructed with one of the two where nothing else is said.  The other methods have the data as they stand, and
settings of the preset limited-angle (of admm-tv 60 sweeps on each of three grids, coarse to fine).  All views are half
a degree apart, so that the matrices of a quarter turn serve all scans.
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
import torch
import torch.nn.functional as F

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.geometry import FanBeam, Grid
from DiffusionMBIRLib.io import matlab5
from DiffusionMBIRLib.operators.fan import _Fan, _view_triplets
from DiffusionMBIRLib.operators.slice_matrix import SliceMatrix, Triplets
from DiffusionMBIRLib.preparation.binning import with_wider_columns
from DiffusionMBIRLib.problems import ct
from DiffusionMBIRLib.scans import Measurement
from DiffusionMBIRLib.tasks import LIMITED_ANGLE

SCANS = tuple(f"0{level}{sample}" for level in range(1, 8) for sample in "ab")
OF_THE_DISC = ("bounded-tv", "ours")  # methods that know its material and size
PIXELS_OF_THE_PRIOR = 4  # of the challenge's, along each side
FIELDS = ("scan", "views", "method", "score", "coarsen", "settings", "processor_s")


def otsu(image: np.ndarray, bins: int = 256) -> float:
    """The threshold between two classes of grey values that makes their means most unlike (Otsu 1979)."""
    counts, edges = np.histogram(image, bins)
    middle = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum()
    above = below[-1] - below
    total = (counts * middle).cumsum()
    known = (below > 0) & (above > 0)
    apart = total[known] / below[known] - (total[-1] - total[known]) / above[known]
    return float(middle[known][np.argmax(below[known] * above[known] * apart**2)])


def matthews(found: np.ndarray, truth: np.ndarray) -> float:
    """Matthews' correlation of two binary images; 0 where one of them is of one kind only."""
    a, b = found.astype(bool), truth.astype(bool)
    tp, tn, fp, fn = (float(np.count_nonzero(x)) for x in (a & b, ~a & ~b, a & ~b, ~a & b))
    size = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return (tp * tn - fp * fn) / size if size else 0.0


def score(slice_of_attenuation: np.ndarray, truth: np.ndarray) -> float:
    """The challenge's score of a slice, interpolated to the truth's pixels where it has others."""
    image = torch.from_numpy(np.ascontiguousarray(slice_of_attenuation, np.float32))[None, None]
    if image.shape[-2:] != truth.shape:
        image = F.interpolate(image, size=truth.shape, mode="bilinear", align_corners=False)
    values = image[0, 0].numpy()
    return matthews(values > otsu(values), truth)


def truth_of(folder: Path, scan: str) -> np.ndarray:
    with matlab5.opened(folder / f"htc2022_{scan}_recon_fbp_seg.mat") as file:
        return file.values(file.variables[0]) > 0


def coarsened(scan: Measurement, factor: int) -> Measurement:
    """The scan with columns averaged and pixels enlarged by a factor."""
    grid, bounds = scan.grid.coarsened(factor), ct.bounds_on_coarser(scan, factor)
    return replace(with_wider_columns(scan, factor), grid=grid, stored_grid=None, **bounds)


class QuarterTurn:
    """Makes projectors of centred square grids from the views of a quarter turn, each computed once."""

    def __init__(self) -> None:
        self._views: dict[tuple[float, int, int], Triplets] = {}

    def __call__(self, geometry: FanBeam, grid: Grid, **options: Any) -> SliceMatrix:
        return SliceMatrix(
            geometry, grid, (self._view(geometry, grid, a) for a in geometry.angles_deg), device="cpu",
            dtype=torch.float32,
        )  # fmt: skip

    def _view(self, geometry: FanBeam, grid: Grid, angle: float) -> Triplets:
        quarter, within = divmod(round(angle % 360, 6), 90)
        key = (within, grid.shape[1], geometry.columns)
        if key not in self._views:
            one = replace(geometry, angles_deg=(within,))
            self._views[key] = _view_triplets(_Fan.of(one.poses(), 0, one.columns), grid, torch.float32)
        view, side = self._views[key], grid.shape[1]
        place = torch.arange(side * side).reshape(side, side).rot90(-int(quarter)).flatten().int()
        turned = _inverse(place)[view.pixel.long()]
        order = torch.argsort(turned, stable=True)
        return Triplets(view.ray[order], turned[order], view.value[order])


def _inverse(place: torch.Tensor) -> torch.Tensor:
    inverse = torch.empty_like(place)
    inverse[place.long()] = torch.arange(len(place), dtype=place.dtype)
    return inverse


def settings_of(method: str, changes: dict[str, Any]) -> mbir.ReconSettings:
    if method == "ours":
        return mbir.ReconSettings.preset("discs", **{"bin_pixels": 1, **changes})
    if method == "bounded-tv":
        return mbir.ReconSettings.preset("disc-bounds", **changes)
    grids = {"tv_sweeps": 60, "tv_grids": 3} if method == "admm-tv" else {}
    return mbir.ReconSettings.preset("limited-angle", method=method, **{**grids, **changes})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", default="fbp,sirt,admm-tv,bounded-tv,ours")
    parser.add_argument("--scans", default=",".join(SCANS))
    parser.add_argument("--coarsen", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], help="a setting, NAME=VALUE")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args(arguments)
    ct.projector = QuarterTurn()
    settings = {name: _value(value) for name, value in (entry.split("=", 1) for entry in chosen.set)}
    for name in chosen.scans.split(","):
        truth = truth_of(chosen.folder, name)
        for method in chosen.methods.split(","):
            prepare = "object=on" if method in OF_THE_DISC else "object=off"
            coarsen = PIXELS_OF_THE_PRIOR if method == "ours" else chosen.coarsen
            scan = mbir.read(chosen.folder / f"htc2022_{name}_limited.mat", prepare=prepare)
            scan = replace(coarsened(scan, coarsen), task=LIMITED_ANGLE)
            begun = time.process_time()
            volume = mbir.reconstruct(scan, settings=settings_of(method, settings)).volume
            row = {
                "scan": name,
                "views": scan.geometry.views,
                "method": method,
                "score": f"{score(volume.array[0], truth):.4f}",
                "coarsen": coarsen,
                "settings": " ".join(chosen.set),
                "processor_s": f"{time.process_time() - begun:.0f}",
            }
            print(", ".join(f"{key} {value}" for key, value in row.items() if value != ""), flush=True)
            if chosen.out:
                _append(chosen.out, row)


def _append(path: Path, row: dict[str, object]) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def _value(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


if __name__ == "__main__":
    main()
