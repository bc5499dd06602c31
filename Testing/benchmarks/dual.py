"""Judge the dual-coupled method against the accelerated one, and repeat what it was tuned by.  Run as a script.

    python Testing/benchmarks/dual.py judged VOLUMES     rows of results/dual/judged.csv that are not there yet
    python Testing/benchmarks/dual.py tuning VOLUMES     the rows of tuning.csv again, as repeated.csv
    python Testing/benchmarks/dual.py helices VOLUMES    rows of results/helical/held-out.csv that are not there yet
    python Testing/benchmarks/dual.py table              judged.csv as a table in Markdown

VOLUMES holds test/ and train/.  Names after it choose subjects (SUBJECTS).  A row is written as soon as it is measured,
so that a run that was ended goes on where it was, and several may run beside each other on different subjects.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from DiffusionMBIRLib.benchmark.plan import PlannedScan, limited_angle, mri, of_scanner, sparse_view
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.io.volumes import read_volume
from DiffusionMBIRLib.metrics import PLANES, evaluate
from DiffusionMBIRLib.problems.mr import with_maps
from DiffusionMBIRLib.reconstruction import reconstruct
from DiffusionMBIRLib.scans import KSpace, Scan
from DiffusionMBIRLib.simulation import simulate, truth_for
from DiffusionMBIRLib.tasks import MR_TASK, task_info
from DiffusionMBIRLib.volume import Volume

FOLDER = Path(__file__).parent / "results" / "dual"


@dataclass(frozen=True)
class Subject:
    """Slices from the middle of a volume; coarsen: of CT, pixels along each axis that one of the grid covers."""

    path: str
    slices: int
    coarsen: int = 1

    def volume(self, folder: Path) -> Volume:
        volume = read_volume(folder / self.path).middle(self.slices)
        slices, rows, columns = volume.array.shape
        rows, columns = rows - rows % self.coarsen, columns - columns % self.coarsen
        grid = replace(volume.grid, shape=(slices, rows, columns))
        return replace(volume, array=volume.array[:, :rows, :columns].copy(), grid=grid)


SUBJECTS = {
    "chest": Subject("test/ct_rider-pilot-0117_lower-chest_native.nrrd", 4, 4),
    "head phantom": Subject("test/ct_philips-head-phantom_OOD.nrrd", 4, 2),
    "T1": Subject("test/mr_fnndsc-adi_T1.nrrd", 3),
    "T2": Subject("test/mr_fnndsc-adi_T2.nrrd", 3),
    "A0002": Subject("train/ct_lung-pet-ct-dx-A0002_chest.nrrd", 4, 2),
    "limb 014": Subject("train/ct_sts-014_limb.nrrd", 4, 2),
    "limb 033": Subject("train/ct_sts-033_limb.nrrd", 4, 2),
    "limb 045": Subject("train/ct_sts-045_limb.nrrd", 4, 2),
    "pda-00189": Subject("train/ct_cptac-pda-00189_abdomen.nrrd", 4, 2),
    "sts-009": Subject("train/mr_sts-009_T1.nrrd", 3),
    "lidc-0314, 64 x 64 x 16": Subject("train/ct_lidc-idri-0314_chest.nrrd", 16, 4),
    "pda-00189, 64 x 64 x 16": Subject("train/ct_cptac-pda-00189_abdomen.nrrd", 16, 4),
}
SCANS: dict[str, PlannedScan] = {
    "2 views": sparse_view(2),
    "4 views": sparse_view(4),
    "8 views": sparse_view(8),
    "8 views, low dose": sparse_view(8, "low"),
    "8 views, clinical dose": sparse_view(8, "clinical"),
    "24 views": sparse_view(24),
    "60 views": sparse_view(60),
    "90 degrees": limited_angle(90),
    "helix": of_scanner("helical", 60),
    "x2, 1 coil": mri(2, 0.15, 1),
    "x4, 1 coil": mri(4, 0.08, 1),
    "x2, 8 coils": mri(2, 0.15, 8),
    "x4, 8 coils": mri(4, 0.08, 8),
}


@dataclass(frozen=True)
class Trial:
    """One row: a preset of the scan's task, with single settings changed.  grade: "", "-quick" or "-best"."""

    subject: str
    scan: str
    label: str
    changes: dict[str, Any] = field(default_factory=dict)
    grade: str = ""

    @property
    def task(self) -> str:
        return SCANS[self.scan].task

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.subject, self.scan, self.label, json.dumps(self.changes, sort_keys=True)

    def settings(self) -> ReconSettings:
        return ReconSettings.preset(task_info(self.task).preset + self.grade, **self.changes)


JUDGED_SCANS = {
    "chest": ("8 views", "90 degrees", "4 views", "24 views", "60 views"),
    "head phantom": ("8 views", "90 degrees"),
    "T1": ("x4, 8 coils", "x2, 1 coil", "x2, 8 coils"),
    "T2": ("x4, 8 coils",),
    "A0002": ("8 views", "90 degrees", "8 views, low dose", "8 views, clinical dose"),
    "limb 014": ("8 views", "90 degrees"),
}


def judged() -> Iterator[Trial]:
    """dds with 20 and 50 evaluations as its presets have it, dual with 10, 20 and 50."""
    for subject, scans in JUDGED_SCANS.items():
        for scan in scans:
            yield Trial(subject, scan, "dds, 20", {"method": "dds"}, "-quick")
            yield Trial(subject, scan, "dds, 50", {"method": "dds"})
            yield Trial(subject, scan, "dual, 10", {"method": "dual"}, "-quick")
            yield Trial(subject, scan, "dual, 20", {"method": "dual"})
            yield Trial(subject, scan, "dual, 50", {"method": "dual"}, "-best")


def tuning() -> Iterator[Trial]:
    """Those rows of tuning.csv that settings alone make; the rest were variants of the code that are not kept."""
    with open(FOLDER / "tuning.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["variant"]]
    for row in rows:
        yield Trial(row["subject"], row["scan"], row["label"], json.loads(row["changes"]))


def helices() -> Iterator[Trial]:
    """Of held-out people: what the ends of a helix ask for."""
    for subject in ("lidc-0314, 64 x 64 x 16", "pda-00189, 64 x 64 x 16"):
        yield Trial(
            subject, "helix", "ADMM-TV, weak, 40 sweeps", {"method": "admm-tv", "tv_lam": 1e-4, "tv_sweeps": 40}
        )
        yield Trial(subject, "helix", "dual, 20")
        yield Trial(subject, "helix", "dual, 20", {"preconditioner": 0.03})


GROUPS = {"judged": judged, "tuning": tuning, "helices": helices}
FILES = {"judged": "judged.csv", "tuning": "repeated.csv", "helices": "../helical/held-out.csv"}


COLUMNS = (
    "subject", "scan", "label", "changes", *(f"{plane}_{figure}" for figure in ("psnr", "ssim") for plane in PLANES),
    "residual", "evaluations", "seconds", "network_seconds", "processor",
)  # fmt: skip


@lru_cache(maxsize=1)
def _measured(subject: str, scan: str, folder: Path) -> tuple[Scan, Volume]:
    plan, of = SCANS[scan], SUBJECTS[subject]
    volume = of.volume(folder)
    if plan.task == MR_TASK:
        made = simulate(replace(volume, unit=""), task=plan.task, **plan.options, seed=0)
        assert isinstance(made, KSpace)
        return with_maps(made), truth_for(volume, task=MR_TASK)
    return simulate(volume, task=plan.task, coarsen=of.coarsen, **plan.options, seed=0), truth_for(volume, of.coarsen)


def row_of(trial: Trial, folder: Path) -> dict[str, Any]:
    """Reconstruct and judge; seconds are those of one thread's processor time."""
    scan, truth = _measured(trial.subject, trial.scan, folder)
    began = time.process_time()
    result = reconstruct(scan, settings=trial.settings())
    seconds = time.process_time() - began
    found = evaluate(result.volume, truth)
    figures = {f"{p}_{f}": round(found[p][f], 4) for f in ("psnr", "ssim") for p in PLANES}
    return {
        **dict(zip(COLUMNS, trial.key, strict=False)),
        **figures,
        "residual": round(result.residual, 5),
        "evaluations": result.nfe,
        "seconds": round(seconds, 1),
        "network_seconds": round(result.network_seconds, 1),
        "processor": processor(),
    }


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"{name}, {torch.get_num_threads()} thread"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Judge the dual-coupled method against the accelerated one.")
    parser.add_argument("group", choices=(*GROUPS, "table"))
    parser.add_argument("volumes", type=Path, nargs="?", help="folder with test/ and train/")
    parser.add_argument("subjects", nargs="*", help="only these")
    parser.add_argument("--labels", default="", help="only rows whose label begins so")
    options = parser.parse_args(arguments)
    if options.group == "table":
        print(table())
        return
    if options.volumes is None:
        parser.error("name the folder with test/ and train/")
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / FILES[options.group]
    for trial in GROUPS[options.group]():
        if (options.subjects and trial.subject not in options.subjects) or not trial.label.startswith(options.labels):
            continue
        if trial.key in _there(path):
            continue
        row = row_of(trial, options.volumes)
        with open(path, "a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
        means = [sum(row[f"{p}_{f}"] for p in PLANES) / 3 for f in ("psnr", "ssim")]
        print(f"{trial.subject}, {trial.scan}, {trial.label}: {means[0]:.2f} dB, {means[1]:.4f}", flush=True)


def table() -> str:
    """Mean of the three planes, PSNR in dB / SSIM / residual, the best PSNR bold."""
    with open(FOLDER / "judged.csv", encoding="utf-8", newline="") as file:
        rows = {(r["subject"], r["scan"], r["label"]): r for r in csv.DictReader(file)}
    labels = ("dds, 20", "dds, 50", "dual, 10", "dual, 20", "dual, 50")
    lines = [f"| subject | scan | {' | '.join(labels)} |", f"|---|---|{'---:|' * len(labels)}"]
    for subject, scan in dict.fromkeys((t.subject, t.scan) for t in judged()):
        found = [rows.get((subject, scan, label)) for label in labels]
        levels = [sum(float(r[f"{p}_psnr"]) for p in PLANES) / 3 if r else 0.0 for r in found]
        similar = [sum(float(r[f"{p}_ssim"]) for p in PLANES) / 3 if r else 0.0 for r in found]
        best = f"{max(levels):.2f}"
        cells = [
            f"{'**' * (f'{a:.2f}' == best)}{a:.2f}{'**' * (f'{a:.2f}' == best)} / {b:.3f} / {float(r['residual']):.4f}"
            if r
            else "-"
            for a, b, r in zip(levels, similar, found, strict=True)
        ]
        lines.append(f"| {subject} | {scan} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _there(path: Path) -> set[tuple[str, ...]]:
    if not path.is_file():
        return set()
    with open(path, encoding="utf-8", newline="") as file:
        return {tuple(row[c] for c in COLUMNS[:4]) for row in csv.DictReader(file)}


if __name__ == "__main__":
    main()
