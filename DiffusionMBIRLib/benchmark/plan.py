"""What a benchmark runs: scans, and the methods (rows of the table) of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..config import ReconSettings
from ..methods import SUPERVISED_METHODS
from ..supervised.about import DEPARTURES, TASKS_OF, TITLES, network_name
from ..tasks import LIMITED_ANGLE, MR_TASK, SPARSE_VIEW, task_info

# Incident photons a ray.  30 cm of water let 0.3 % of them through: some 3000 counts, and 300 at a tenth of the dose.
DOSES = {"noise-free": 0.0, "clinical": 1e6, "low": 1e5}


@dataclass(frozen=True)
class PlannedScan:
    """One simulated acquisition.  ``options`` are keyword arguments of :func:`DiffusionMBIRLib.simulate`."""

    task: str
    label: str  # unique within a plan, fit for a file name
    views: int = 0
    dose: str = "noise-free"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One method of the table: a preset (the task's own by default) with single settings changed.

    grade: of the task's own presets, '' or 'quick' or 'best'.  minutes: takes many on a CPU, and is left out of the
    quick form.  only: labels of the scans that it is run on unless it is asked for by name, all of them by default.
    note: what a reader must know to compare it with the literature; a footnote of the table.  network: file name of
    the network of a supervised method.
    """

    label: str
    changes: dict[str, Any]
    preset: str = ""
    grade: str = ""
    minutes: bool = False
    only: tuple[str, ...] = ()
    note: str = ""
    network: str = ""

    def settings(self, task: str, seed: int) -> ReconSettings:
        usual = task_info(task).preset
        graded = f"{usual}-{self.grade}" if self.grade else usual
        return ReconSettings.preset(self.preset or graded, **{"seed": seed, **self.changes})


def sparse_view(views: int, dose: str = "noise-free") -> PlannedScan:
    options = {"views": views, "angle_range_deg": 180.0, "photons": DOSES[dose]}
    return PlannedScan(SPARSE_VIEW, f"{views}-views-{dose}", views, dose, options)


def limited_angle(degrees: int, dose: str = "noise-free") -> PlannedScan:
    options = {"views": degrees, "angle_range_deg": float(degrees), "photons": DOSES[dose]}
    return PlannedScan(LIMITED_ANGLE, f"{degrees}-degrees-{dose}", degrees, dose, options)


def mri(acceleration: int, acs: float, coils: int) -> PlannedScan:
    measured = {"coils": coils, "phase": True, "noise": 0.01} if coils > 1 else {}
    options = {"acceleration": acceleration, "acs": acs, "mask": "uniform1d", **measured}
    return PlannedScan(MR_TASK, f"x{acceleration}-{coils}-coils", 0, "noisy" if coils > 1 else "noise-free", options)


def of_scanner(scanner: str, views: int) -> PlannedScan:
    """A whole turn, or turns, of beams from a point."""
    options = {"scanner": scanner, "views": views, "angle_range_deg": 360.0}
    return PlannedScan(SPARSE_VIEW, f"{scanner}-{views}-views", views, "noise-free", options)


SCANNERS = {
    "fan-beam": (of_scanner("fan-beam", 24),),
    "cone-beam": (of_scanner("cone-beam", 20), of_scanner("cone-beam", 40)),
    "helical": (of_scanner("helical", 60),),
}
QUICK = {"CT": (sparse_view(8), limited_angle(90)), "MR": (mri(2, 0.15, 1),)}
FULL = {
    "CT": (
        *(sparse_view(views) for views in (2, 4, 8, 12, 24, 36)),
        limited_angle(90),
        limited_angle(120),
        *(scan for dose in ("clinical", "low") for scan in (sparse_view(8, dose), sparse_view(24, dose))),
        limited_angle(90, "low"),
    ),
    "MR": (mri(2, 0.15, 1), mri(4, 0.08, 1), mri(2, 0.15, 8), mri(4, 0.08, 8)),
}

_CLASSICAL = {
    "CT": (Row("FBP", {"method": "fbp"}), Row("ADMM-TV", {"method": "admm-tv"})),
    "MR": (
        Row("Zero-filled", {"method": "zero-filled"}),
        Row("SENSE-CG", {"method": "sense-cg"}),
        Row("ADMM-TV", {"method": "admm-tv"}),
    ),
}
_WEAK_TV = Row(
    "ADMM-TV, weak",
    {"method": "admm-tv", "tv_lam": 1e-4},
    note="A tenth of the strength, which suits 24 views and more.",
)
_SIRT = Row("SIRT", {"method": "sirt"}, only=tuple(scan.label for scans in SCANNERS.values() for scan in scans))
_TRAINED = (
    "Trained for minutes or hours on a CPU on the volumes of our prior; published ones for hours on GPUs.  "
    "Testing/benchmarks/supervised/README.md tells the images."
)


def _supervised(task: str) -> tuple[Row, ...]:
    return tuple(
        Row(
            TITLES[method],
            {"method": method},
            note=f"{DEPARTURES[method]}  {_TRAINED}",
            network=f"{network_name(method, task)}.safetensors",
        )
        for method in SUPERVISED_METHODS
        if task in TASKS_OF[method]
    )


OURS = "Ours"
_SLICE_WISE = {  # title, method, source
    "CT": ("Slice-wise diffusion", "score-ct", "Chung et al. 2023"),
    "MR": ("Score-MRI", "score-mri", "Chung and Ye 2022"),
}
SCANNER_ROWS = ("FBP", "SIRT", "ADMM-TV", "ADMM-TV, weak", "Ours, 10", OURS, "Ours, 50")
_HOURS = ("8-views-noise-free", "90-degrees-noise-free", "x4-8-coils")  # 4000 evaluations take half an hour and more
_MINUTES = (*_HOURS, "24-views-noise-free", "8-views-low")
REFERENCE = "Algorithm 1, 4000"
_MEAN_OF_4 = Row(
    "Ours, mean of 4",
    {"samples": 4},
    minutes=True,
    only=_MINUTES,
    note="The mean of four posterior samples; noise that differs from one to the other averages out.",
)
_PUBLISHED = "2000 levels as published, from noise; our operators and prior, whose highest level is sigma 12."
_WARM = (
    "From the same kind of classical start and noise level as ours (at limited angles after 100 sweeps and with 20 "
    "plain steps of conjugate gradient, which suits it better), with 51 evaluations a slice."
)


def planned_rows(scan: PlannedScan, *, quick: bool) -> tuple[Row, ...]:
    """The methods of a scan: of one that is not of parallel beams a few."""
    rows = rows_for(scan.task, quick=quick)
    return tuple(row for row in rows if row.label in SCANNER_ROWS) if "scanner" in scan.options else rows


def rows_for(task: str, *, quick: bool) -> tuple[Row, ...]:
    """The methods of a task, classical ones first, ours last."""
    modality = task_info(task).modality
    title, slicewise, source = _SLICE_WISE[modality]
    paper = task_info(task).published_preset
    # What is best for the paper's samplers at limited angles, which gain nothing from our solver and short start.
    warm = {"start_sweeps": 100, "preconditioner": 0.0, "cg_steps": 20} if task == LIMITED_ANGLE else {}
    diffusion = (
        Row(
            title,
            {"method": slicewise, "steps": 25, **warm},
            note=f"{source}: a step onto the data after each of predictor and corrector, no coupling.  {_WARM}",
        ),
        Row(f"{title}, 4000", {"method": slicewise}, paper, minutes=True, only=_HOURS, note=_PUBLISHED),
        Row("Algorithm 1, warm", {"method": "mbir", "steps": 25, **warm}, note=_WARM),
        Row("Algorithm 2, warm", {"method": "mbir-slow", "steps": 25, **warm}, note=_WARM, minutes=True, only=_MINUTES),
        Row(
            REFERENCE,
            {"method": "mbir"},
            paper,
            minutes=True,
            only=_HOURS,
            note=_PUBLISHED,
        ),
    )
    weak = (_SIRT, _WEAK_TV) if task == SPARSE_VIEW else ()
    dds = Row("DDS, 50", {"method": "dds"})
    ours = (Row("Ours, 10", {}, grade="quick"), Row(OURS, {}), Row("Ours, 50", {}, grade="best"), _MEAN_OF_4)
    rows = (*_CLASSICAL[modality], *weak, *_supervised(task), *diffusion, dds, *ours)
    return tuple(row for row in rows if not (quick and row.minutes))
