"""Judge intervals and warnings on people who were in no calibration.  Run as a script.

    python Testing/benchmarks/doubt.py runs VOLUMES RUNS [SUBJECT ...] [--scans SCAN ...]
                                                                       runs that are missing in the folder RUNS
    python Testing/benchmarks/doubt.py judged RUNS                     results/doubt/judged.csv, by the calibration as
                                                                       it is now
    python Testing/benchmarks/doubt.py table                           means and worst of it in Markdown, and the area
                                                                       under the curve of the warning

VOLUMES holds test/ and train/.  Runs are made once, so that another calibration is judged in seconds.  Impostors are
objects, modalities, units and angles that the warning is to tell from people.
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

from DiffusionMBIRLib.benchmark.plan import PlannedScan
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.io.volumes import read_volume
from DiffusionMBIRLib.monitor import Silent
from DiffusionMBIRLib.scans import Scan
from DiffusionMBIRLib.tasks import task_info
from DiffusionMBIRLib.uncertainty.calibrate import SCANS, keep_run, read_run, scan_of, sound
from DiffusionMBIRLib.uncertainty.conformal import LEAST_VOXELS
from DiffusionMBIRLib.uncertainty.doubt import half_widths
from DiffusionMBIRLib.uncertainty.table import find_table, read_table
from DiffusionMBIRLib.uncertainty.unlike import distance
from DiffusionMBIRLib.volume import Volume

FOLDER = Path(__file__).parent / "results" / "doubt"
SLICES = 2
PRIORS = {"CT": "ct-compact-v1", "MR": "mr-compact-v1"}


def _hotter(scan: Any) -> Any:
    return replace(scan, data=(scan.data * np.float32(1.6)).astype(np.float32))


def _turned(scan: Any) -> Any:
    angles = 0.85 * np.asarray(scan.geometry.angles_deg)  # backwards they would fit a mirrored person
    return replace(scan, geometry=replace(scan.geometry, angles_deg=tuple(float(a) for a in angles)))


def _as_attenuation(volume: Volume) -> Volume:
    """A magnitude taken for HU: what is brightest like water."""
    share = np.clip(volume.array / np.percentile(volume.array, 99.5), 0, 3)
    return replace(volume, array=(1000 * share - 1000).astype(np.float32), unit="HU")


def _as_magnitude(volume: Volume) -> Volume:
    """HU taken for a magnitude, from air on."""
    return replace(volume, array=np.maximum(volume.array + 1000, 0).astype(np.float32), unit="")


@dataclass(frozen=True)
class Subject:
    """A volume; person: False of impostors.  read_as: what the volume is taken for, and change: what is done to its
    scans; neither of people.
    """

    path: str
    modality: str = "CT"
    person: bool = True
    change: Callable[[Scan], Scan] | None = None
    read_as: Callable[[Volume], Volume] | None = None


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
    **{
        f"limb {number} T1": Subject(f"train/mr_sts-{number}_T1.nrrd", "MR")
        for number in ("002", "004", "005", "006", "007", "008", "011", "012")
    },
    "fruit": Subject("test/mr_ge-fruit_OOD.nrrd", "MR", person=False),
    "head T1 as CT": Subject("test/mr_fnndsc-adi_T1.nrrd", person=False, read_as=_as_attenuation),
    "chest as MR": Subject(
        "test/ct_rider-pilot-0117_lower-chest_native.nrrd", "MR", person=False, read_as=_as_magnitude
    ),
}
OF_IMPOSTORS = ("8-views-noise-free", "24-views-noise-free", "90-degrees-noise-free", "x4-1-coils", "x4-8-coils")
COLUMNS = (
    "subject", "person", "scan", "within_90", "within_95", *(f"within_95_class_{k}" for k in range(4)),
    *(f"voxels_{k}" for k in range(4)), *(f"constant_95_{k}" for k in range(4)), "width_95", "spearman", "unlike",
    "limit",
)  # fmt: skip


def run_of(name: str, planned: PlannedScan, volumes: Path, kept: Path) -> None:
    """One run, kept in a file."""
    subject = SUBJECTS[name]
    volume = read_volume(volumes / subject.path)
    scan, truth = scan_of(subject.read_as(volume) if subject.read_as else volume, planned, SLICES)
    settings = ReconSettings.preset(task_info(planned.task).preset, prior=PRIORS[subject.modality])
    keep_run(subject.change(scan) if subject.change else scan, truth, settings, kept, Silent())


def row_of(name: str, planned: PlannedScan, kept: Path) -> dict[str, Any]:
    """Half-widths of a kept run, and how unlike it is, by the calibration as it is now, against the truth."""
    subject = SUBJECTS[name]
    path = find_table(PRIORS[subject.modality])
    assert path, subject.modality
    table, scale = read_table(path)
    run = read_run(kept, name, subject.modality)
    entry, _ = table.for_kind(run.kind, ReconSettings.preset(task_info(planned.task).preset))
    unit = 2000.0 if subject.modality == "CT" else 1.0  # HU; of MRI the 99.5th percentile of the volume is 1
    error, kinds = unit * run.error.numpy(), run.kinds.numpy()
    widths = {s: unit * w.numpy() for s, w in half_widths(run.maps, run.kinds, scale, entry).items()}
    row: dict[str, Any] = {"subject": name, "person": int(subject.person), "scan": planned.label}
    row |= {f"within_{share}": float((error <= width).mean()) for share, width in widths.items()}
    for k in range(4):
        mine = kinds == k
        row[f"voxels_{k}"] = int(mine.sum())
        row[f"within_95_class_{k}"] = float((error <= widths["95"])[mine].mean()) if mine.sum() >= LEAST_VOXELS else ""
        row[f"constant_95_{k}"] = float(np.quantile(error[mine], 0.95)) if mine.sum() >= LEAST_VOXELS else ""
    row |= {"width_95": float(widths["95"].mean()), "spearman": _spearman(widths["95"], error)}
    row |= {"unlike": distance(run.features, entry.usual), "limit": float(entry.usual["limit"])}
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


def _planned(options: argparse.Namespace) -> list[tuple[str, PlannedScan, Path]]:
    """Whom and what the options ask for, and where its run is kept."""
    found = []
    for name, subject in SUBJECTS.items():
        for scan in SCANS[subject.modality]:
            if (subject.person or scan.label in OF_IMPOSTORS) and scan.label in (options.scans or [scan.label]):
                found.append((name, scan, options.runs / f"{name} - {scan.label}.npz"))
    return [one for one in found if one[0] in (options.subjects or SUBJECTS)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Judge intervals and warnings on people of no calibration.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    making, judging = verbs.add_parser("runs"), verbs.add_parser("judged")
    verbs.add_parser("table")
    making.add_argument("volumes", type=Path, help="folder with test/ and train/")
    for verb in (making, judging):
        verb.add_argument("runs", type=Path, help="folder of the runs")
        verb.add_argument("subjects", nargs="*", help="only these")
        verb.add_argument("--scans", nargs="*", default=(), help="labels of scans: only these")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.verb == "table":
        print(table())
    elif options.verb == "runs":
        options.runs.mkdir(parents=True, exist_ok=True)
        for name, scan, kept in _planned(options):
            if not sound(kept):
                try:
                    run_of(name, scan, options.volumes, kept)
                except InputError as error:  # a row that is lost, such as of maps from too few lines
                    print(f"{kept}: not made, {error}", flush=True)
                else:
                    print(kept, flush=True)
    else:
        made = [row_of(name, scan, kept) for name, scan, kept in _planned(options) if sound(kept)]
        FOLDER.mkdir(parents=True, exist_ok=True)
        with open(FOLDER / "judged.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(made)


if __name__ == "__main__":
    main()
