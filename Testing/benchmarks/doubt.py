"""Judge intervals and warnings on people who were in no calibration.  Run as a script.

    python Testing/benchmarks/doubt.py judged VOLUMES [SUBJECT ...] [--scans SCAN ...]
                                                                       rows of results/doubt/judged.csv that are missing
    python Testing/benchmarks/doubt.py table                           means and worst of them in Markdown, and the area
                                                                       under the curve of the warning

VOLUMES holds test/ and train/.  A row is written as soon as it is measured.  Impostors are objects, units and angles
that the warning is to tell from people.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.reconstruction import reconstruct
from DiffusionMBIRLib.scans import Scan
from DiffusionMBIRLib.tasks import task_info
from DiffusionMBIRLib.uncertainty.calibrate import SCANS, scan_of
from DiffusionMBIRLib.uncertainty.conformal import CLASSES

FOLDER = Path(__file__).parent / "results" / "doubt"
SLICES = 4


def _hotter(scan: Any) -> Any:
    return replace(scan, data=(scan.data * np.float32(1.6)).astype(np.float32))


def _turned(scan: Any) -> Any:
    angles = 0.85 * np.asarray(scan.geometry.angles_deg)  # backwards they would fit a mirrored person
    return replace(scan, geometry=replace(scan.geometry, angles_deg=tuple(float(a) for a in angles)))


@dataclass(frozen=True)
class Subject:
    """A volume; change: what is done to its scans, none to those of people.  person: False of impostors."""

    path: str
    modality: str = "CT"
    person: bool = True
    change: Callable[[Scan], Scan] | None = None


SUBJECTS = {
    "chest": Subject("test/ct_rider-pilot-0117_lower-chest_native.nrrd"),
    "pda-00189": Subject("train/ct_cptac-pda-00189_abdomen.nrrd"),
    "limb 040": Subject("train/ct_sts-040_limb.nrrd"),
    "limb 045": Subject("train/ct_sts-045_limb.nrrd"),
    "head phantom": Subject("test/ct_philips-head-phantom_OOD.nrrd", person=False),
    "chest, 1.6 times the attenuation": Subject(
        "test/ct_rider-pilot-0117_lower-chest_native.nrrd", person=False, change=_hotter
    ),
    "chest, angles 0.85 times": Subject(
        "test/ct_rider-pilot-0117_lower-chest_native.nrrd", person=False, change=_turned
    ),
    "pda-00189, angles 0.85 times": Subject("train/ct_cptac-pda-00189_abdomen.nrrd", person=False, change=_turned),
    "head T1": Subject("test/mr_fnndsc-adi_T1.nrrd", "MR"),
    "head T2": Subject("test/mr_fnndsc-adi_T2.nrrd", "MR"),
    "limb 040 T1": Subject("train/mr_sts-040_T1.nrrd", "MR"),
    "limb 045 T1": Subject("train/mr_sts-045_T1.nrrd", "MR"),
    "fruit": Subject("test/mr_ge-fruit_OOD.nrrd", "MR", person=False),
}
OF_IMPOSTORS = ("8-views-noise-free", "24-views-noise-free", "90-degrees-noise-free", "x4-1-coils", "x4-8-coils")
COLUMNS = (
    "subject", "person", "scan", "within_90", "within_95", *(f"within_95_class_{k}" for k in range(4)),
    *(f"voxels_{k}" for k in range(4)), *(f"constant_95_{k}" for k in range(4)), "width_95", "spearman", "unlike",
    "limit", "filled_in", "evaluations",
)  # fmt: skip


def row_of(name: str, planned: Any, folder: Path) -> dict[str, Any]:
    """One run with its intervals against the truth."""
    subject = SUBJECTS[name]
    scan, truth = scan_of(folder / subject.path, planned, SLICES)
    if subject.change:
        scan = subject.change(scan)
    settings = ReconSettings.preset(task_info(planned.task).preset, uncertainty=True)
    result = reconstruct(scan, settings=settings)
    assert result.doubt
    true = truth.axial()[0].array
    value = result.volume.axial()[0].array
    error = np.abs(value - true)
    widths = {share: volume.axial()[0].array for share, volume in result.doubt.intervals.items()}
    unit = float(np.percentile(true, 99.5)) if subject.modality == "MR" else 1.0
    kinds = CLASSES[subject.modality].of(value / unit)
    row: dict[str, Any] = {"subject": name, "person": int(subject.person), "scan": planned.label}
    row |= {f"within_{share}": float((error <= width).mean()) for share, width in widths.items()}
    for k in range(4):
        mine = kinds == k
        row[f"voxels_{k}"] = int(mine.sum())
        row[f"within_95_class_{k}"] = float((error <= widths["95"])[mine].mean()) if mine.sum() >= 200 else ""
        row[f"constant_95_{k}"] = float(np.quantile(error[mine], 0.95)) if mine.sum() >= 200 else ""
    row |= {"width_95": float(widths["95"].mean()), "spearman": _spearman(widths["95"], error)}
    numbers = result.doubt.numbers
    row |= {key: numbers[key] for key in ("unlike", "limit", "filled_in")} | {"evaluations": result.nfe}
    return {key: round(row[key], 4) if isinstance(row[key], float) else row[key] for key in COLUMNS}


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(part.ravel()[::3])) for part in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def rows() -> list[dict[str, str]]:
    """What was measured so far."""
    path = FOLDER / "judged.csv"
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def area_under_curve(people: Sequence[float], impostors: Sequence[float]) -> float:
    """How often an impostor's score is above a person's."""
    pairs = [(p < i) + 0.5 * (p == i) for p in people for i in impostors]
    return float(np.mean(pairs)) if pairs else float("nan")


def table() -> str:
    """Of people, for each kind of scan: mean and worst coverage, widths against constant ones, correlation."""
    found = rows()
    lines = [
        "| scan | people | within 90 % | within 95 % (worst) | least class | width / constant | Spearman (worst) |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    people = [row for row in found if row["person"] == "1"]
    for scan in dict.fromkeys(row["scan"] for row in people):
        mine = [row for row in people if row["scan"] == scan]
        covered = [float(row["within_95"]) for row in mine]
        classes = [np.mean(c) for k in range(4) if (c := [float(v) for r in mine if (v := r[f"within_95_class_{k}"])])]
        spearman = [float(row["spearman"]) for row in mine]
        ratio = np.mean([float(row["width_95"]) / _constant(row, mine) for row in mine])
        lines.append(
            f"| {scan} | {len(mine)} | {np.mean([float(r['within_90']) for r in mine]):.1%} | {np.mean(covered):.1%} "
            f"({min(covered):.1%}) | {min(classes):.1%} | {ratio:.2f} | {np.mean(spearman):.2f} ({min(spearman):.2f}) |"
        )
    ratios = [[float(r["unlike"]) / float(r["limit"]) for r in found if r["person"] == kind] for kind in ("1", "0")]
    return "\n".join([*lines, "", f"Area under the curve of the warning: {area_under_curve(*ratios):.3f}"])


def _constant(row: dict[str, str], like: Sequence[dict[str, str]]) -> float:
    """Mean width of this person, if each class had one width for all people: the mean over people of the width that
    holds 95 % of the class, which knows their truths.
    """
    total, voxels = 0.0, 0
    for k in range(4):
        needed = [float(r[f"constant_95_{k}"]) for r in like if r[f"constant_95_{k}"]]
        if needed and int(row[f"voxels_{k}"]):
            total += float(np.mean(needed)) * int(row[f"voxels_{k}"])
            voxels += int(row[f"voxels_{k}"])
    return total / max(1, voxels)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Judge intervals and warnings on people of no calibration.")
    parser.add_argument("group", choices=("judged", "table"))
    parser.add_argument("volumes", type=Path, nargs="?", help="folder with test/ and train/")
    parser.add_argument("subjects", nargs="*", help="only these")
    parser.add_argument("--scans", nargs="*", default=(), help="labels of scans: only these")
    options = parser.parse_args(arguments)
    if options.group == "table":
        print(table())
        return
    if options.volumes is None:
        parser.error("name the folder with test/ and train/")
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, subject in SUBJECTS.items():
        if options.subjects and name not in options.subjects:
            continue
        for planned in SCANS[subject.modality]:
            if not subject.person and planned.label not in OF_IMPOSTORS:
                continue
            if options.scans and planned.label not in options.scans:
                continue
            if any(row["subject"] == name and row["scan"] == planned.label for row in rows()):
                continue
            row = row_of(name, planned, options.volumes)
            with open(FOLDER / "judged.csv", "a", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                if file.tell() == 0:
                    writer.writeheader()
                writer.writerow(row)
            print(name, planned.label, row["within_95"], row["spearman"], row["unlike"], row["limit"], flush=True)


if __name__ == "__main__":
    main()
