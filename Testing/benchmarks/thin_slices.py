"""Thin slices from thick ones, judged against splines and total variation.  Run as a script.

    python Testing/benchmarks/thin_slices.py judged VOLUMES    rows of results/thin-slices/judged.csv not there yet
    python Testing/benchmarks/thin_slices.py table             judged.csv as tables in Markdown
    python Testing/benchmarks/thin_slices.py discs             heights of discs of a phantom, from slices of 4 mm
    python Testing/benchmarks/thin_slices.py busy              a run beside a busy neighbour, by how threads wait

VOLUMES holds test/ and train/.  Thick slices are averaged from slices four times as fine as the truth's, which follow
its slope.  Total variation is given the strength of ``TV`` that is best for each case by the truth itself.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.io.volumes import read_volume, sample_data
from DiffusionMBIRLib.metrics import PLANES, evaluate
from DiffusionMBIRLib.preparation.thick_slices import around
from DiffusionMBIRLib.reconstruction import reconstruct
from DiffusionMBIRLib.simulation import simulate, truth_for
from DiffusionMBIRLib.tasks import THIN_SLICES, THIN_SLICES_MR
from DiffusionMBIRLib.volume import Volume

FOLDER = Path(__file__).parent / "results" / "thin-slices"
TV = (1e-4, 3e-4, 1e-3)


@dataclass(frozen=True)
class Subject:
    """A block (slices, rows, columns) of a volume, its middle moved by so many voxels.

    coarsen: pixels along rows and columns that one of the truth covers.
    """

    path: str
    block: tuple[int, int, int]
    coarsen: int = 1
    moved: tuple[int, int, int] = (0, 0, 0)
    mr: bool = False

    def volume(self, folder: Path) -> Volume:
        turned = read_volume(folder / self.path).axial()[0]
        rows, columns = (n - n % self.coarsen for n in turned.grid.in_plane)
        array = turned.array[:, :rows, :columns].astype(np.float32)
        grid = replace(turned.grid, shape=array.shape)
        whole = Volume(array, grid, unit="" if self.mr else "HU", name=self.path).coarsened(self.coarsen)
        starts = [(n - k) // 2 + m for n, k, m in zip(whole.array.shape, self.block, self.moved, strict=True)]
        part = whole.array[tuple(slice(s, s + k) for s, k in zip(starts, self.block, strict=True))]
        spacing = whole.grid.spacing_mm
        return replace(
            whole, array=np.ascontiguousarray(part), grid=around(Grid(part.shape, spacing), len(part), spacing[2])
        )


SUBJECTS = {
    "RIDER-0117, chest, in no training": Subject("test/ct_rider-pilot-0117_lower-chest_native.nrrd", (48, 72, 96), 2),
    "pda-00189, abdomen, held out": Subject("train/ct_cptac-pda-00189_abdomen.nrrd", (24, 80, 96), 2),
    "LIDC-0314, chest, in the training": Subject("train/ct_lidc-idri-0314_chest.nrrd", (48, 72, 96), 1, (0, 40, 0)),
    "T1, head, in no training": Subject("test/mr_fnndsc-adi_T1.nrrd", (60, 80, 64), 1, (10, 0, 0), mr=True),
}
CT = {
    "3 times": {"times": 3},
    "4 times": {"times": 4},
    "gaps": {"times": 4, "thickness": 3},
    "Gaussian": {"times": 3, "profile": "gaussian"},
    "Gaussian taken for a box": {"times": 3, "profile": "gaussian", "told": "box"},
    "box taken for a Gaussian": {"times": 3, "told": "gaussian"},
}
MR = {"3 times": {"times": 3}}
METHODS = {
    "spline": ("spline", {}),
    "projected spline": ("spline-projected", {}),
    "planes": ("planes", {}),
    **{f"TV {lam:g}": ("admm-tv", {"tv_lam": lam, "tv_sweeps": 100}) for lam in TV},
}


def cases() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(subject, scan, its settings); Gaussian profiles of the first subject alone."""
    for number, (name, subject) in enumerate(SUBJECTS.items()):
        for scan, given in (MR if subject.mr else CT).items():
            if "Gaussian" not in scan or number == 0:
                yield name, scan, given


def judged(folder: Path) -> None:
    """Measure what is missing, a row at a time."""
    path = FOLDER / "judged.csv"
    FOLDER.mkdir(parents=True, exist_ok=True)
    done = {(row["subject"], row["scan"], row["method"]) for row in rows()}
    for name, scan, given in cases():
        left = [method for method in METHODS if (name, scan, method) not in done]
        if not left:
            continue
        subject = SUBJECTS[name]
        truth, task = subject.volume(folder), THIN_SLICES_MR if subject.mr else THIN_SLICES
        spacing = truth.grid.spacing_mm[2]
        thick = {
            "thickness_mm": given.get("thickness", given["times"]) * spacing,
            "distance_mm": given["times"] * spacing,
            "profile": given.get("profile", "box"),
        }
        measurement = simulate(truth, task=task, **thick)
        told = replace(measurement.geometry, profile=given.get("told", measurement.geometry.profile))
        measurement = replace(measurement, geometry=told)
        for label in left:
            method, changes = METHODS[label]
            settings = ReconSettings.preset(task, method=method, **changes)
            result = reconstruct(measurement, settings=settings, device="cpu")
            found = evaluate(result.volume, truth_for(truth, task=task))
            row: dict[str, Any] = {"subject": name, "scan": scan, "method": label, "nfe": result.nfe}
            row |= {f"psnr_{plane}": f"{found[plane]['psnr']:.3f}" for plane in PLANES}
            row |= {f"ssim_{plane}": f"{found[plane]['ssim']:.4f}" for plane in PLANES}
            row["network_s"] = f"{result.network_seconds:.1f}"
            new = not path.is_file()
            with path.open("a", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, row, lineterminator="\n")
                if new:
                    writer.writeheader()
                writer.writerow(row)
            print(name, scan, label, f"{mean(row):.2f}", flush=True)


def rows() -> list[dict[str, str]]:
    path = FOLDER / "judged.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def mean(row: dict[str, Any]) -> float:
    return statistics.mean(float(row[f"psnr_{plane}"]) for plane in PLANES)


def table() -> str:
    """A line a case: PSNR of the planes of each method, and what ours gains."""
    found: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for row in rows():
        found.setdefault((row["subject"], row["scan"]), {})[row["method"]] = row
    lines = [
        "| volume | slices | cubic spline | spline, projected | best TV | ours | over spline | over TV |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (name, scan), by in found.items():
        best = max((row for method, row in by.items() if method.startswith("TV")), key=mean, default=None)
        if best is None or "planes" not in by:
            continue
        shown = [by["spline"], by["projected spline"], best, by["planes"]]
        ours = mean(by["planes"])
        gains = f"{ours - mean(by['spline']):+.2f} | {ours - mean(best):+.2f}"
        lines.append(f"| {name} | {scan} | {' | '.join(map(_planes, shown))} | {gains} |")
    return "\n".join(lines)


def _planes(row: dict[str, str]) -> str:
    psnr = " / ".join(f"{float(row[f'psnr_{plane}']):.1f}" for plane in PLANES)
    return f"{psnr} ({' / '.join(row[f'ssim_{plane}'][1:4] for plane in PLANES)})"


# --- heights of discs between vertebrae, of a phantom

HEIGHTS_MM = (3.0, 4.0, 5.0, 6.0, 8.0)
_BONE_HU, _PLATE_HU, _DISC_HU, _TISSUE_HU = 250.0, 500.0, 90.0, 40.0
_ROUND_MM, _APART_MM, _LEVELS = 13.0, 32, 3


def spine() -> Volume:
    """Columns of vertebrae side by side, 1 mm voxels; in each the discs have one height, with end plates of 1 mm."""
    fine, side = 4, _APART_MM
    z = (np.arange(96 * fine) + 0.5) / fine
    columns = []
    for k, height in enumerate(HEIGHTS_MM):
        profile = np.full(z.shape, _BONE_HU)
        for level in range(_LEVELS):
            off = np.abs(z - (18.3 + 29.7 * level + 1.3 * k))
            profile[off < height / 2 + 1] = _PLATE_HU
            profile[off < height / 2] = _DISC_HU
        columns.append(profile.reshape(-1, fine).mean(1))
    y, x = np.meshgrid(*2 * [np.arange(side) - (side - 1) / 2], indexing="ij")
    inside = np.clip(_ROUND_MM + 0.5 - np.hypot(y, x), 0, 1)
    array = np.concatenate([_TISSUE_HU + inside * (c[:, None, None] - _TISSUE_HU) for c in columns], axis=2)
    return Volume(array.astype(np.float32), Grid(array.shape), name="spine")


def discs() -> None:
    """Heights of the discs in mm, as they are and as they come out of slices of 4 mm."""
    truth = spine()
    scan = simulate(truth, task=THIN_SLICES, thickness_mm=4.0)
    volumes = {"truth": truth.array}
    for label in ("spline", "projected spline", "TV 0.0003", "planes"):
        method, changes = METHODS[label]
        settings = ReconSettings.preset(THIN_SLICES, method=method, **changes)
        volumes[label] = reconstruct(scan, settings=settings, device="cpu").volume.array
    print("| | " + " | ".join(f"{height:g} mm" for height in HEIGHTS_MM) + " |")
    for label, array in volumes.items():
        found = [_heights(array, k) for k in range(len(HEIGHTS_MM))]
        print(f"| {label} | " + " | ".join(f"{np.mean(h):.1f} ({min(h):.1f} to {max(h):.1f})" for h in found) + " |")


def _heights(array: np.ndarray, column: int) -> list[float]:
    """Of the discs of a column: where the mean of its middle lies below half-way between disc and bone."""
    middle = _APART_MM // 2
    block = array[:, middle - 3 : middle + 3, column * _APART_MM + middle - 3 : column * _APART_MM + middle + 3]
    profile = block.mean(axis=(1, 2))
    fine = np.interp(np.arange(0, len(profile) - 1, 0.01), np.arange(len(profile)), profile)
    low = fine < (_BONE_HU + _DISC_HU) / 2
    places = [18.3 + 29.7 * level + 1.3 * column - 0.5 for level in range(_LEVELS)]
    return [float(low[round((p - 9) * 100) : round((p + 9) * 100)].sum()) / 100 for p in places]


# --- beside other work on the same cores

_RUN = """
import time, torch
torch.set_num_threads(2)
x = torch.randn(8, 128, 128)
def work(times):
    began = time.perf_counter()
    for _ in range(times):
        x.add(1).mul_(2).sub_(x).abs_().square().sum()
    return time.perf_counter() - began
work(20)
print(f"{work(800):.2f}")
"""
WAITS = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "short spin": {"GOMP_SPINCOUNT": "1000"},
}


def busy() -> None:
    """Seconds of 4,800 small operations with two threads, beside neighbours that each keep a core busy, by how threads
    wait for each other.
    """
    for neighbours in (0, 1, 4):
        for name, waits in WAITS.items():
            environment = {
                k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
            }
            beside = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(neighbours)]
            began = time.perf_counter()
            try:
                done = subprocess.run(
                    [sys.executable, "-c", _RUN], env=environment | waits, capture_output=True, text=True, check=True
                )
            finally:
                for process in beside:
                    process.kill()
                    process.wait()
            told, seconds = " ".join(done.stdout.split()), time.perf_counter() - began
            print(f"{neighbours} neighbours, {name}: {told} s, {seconds:.0f} in all", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("judged", "table", "discs", "busy"))
    parser.add_argument("volumes", nargs="?", type=Path, default=sample_data().parent)
    arguments = parser.parse_args()
    if arguments.what == "judged":
        judged(arguments.volumes)
    elif arguments.what == "table":
        print(table())
    elif arguments.what == "discs":
        discs()
    else:
        busy()


if __name__ == "__main__":
    main()
