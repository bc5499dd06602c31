"""Makes a calibration: scans of people whose truth is known, simulated and reconstructed, and what their errors were.

Every run is kept in the folder, so that a calibration that was broken off goes on where it was.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections import Counter as Counts
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..benchmark.plan import PlannedScan, limited_angle, mri, sparse_view
from ..checkpoints import AsReal
from ..config import ReconSettings
from ..denoisers import Counter
from ..devices import choose_device, volume_device
from ..errors import InputError
from ..io.volumes import read_volume
from ..methods import method
from ..methods.diffusion import denoiser_of
from ..methods.run import Run
from ..monitor import Monitor, NoCheckpoint, Polled, Silent
from ..problems import build_problem
from ..problems.mr import with_maps
from ..provenance import alias
from ..scans import KSpace, Scan
from ..simulation import simulate, truth_for
from ..tasks import MR_TASK, task_info
from ..volume import Volume
from .conformal import CLASSES, Classes, Covered, held_of_others, level, scales
from .refine import Voxels, inputs_of, trained
from .scale import SHARES, ErrorScale, Sums, features_at
from .signals import NAMES, signals_of
from .table import Entry, Kind, Table, kind_of, whole_share, write_table
from .unlike import distances_left_out, features_of, limit_of, ordinary, usual_of

SCANS = {
    "CT": (
        *(sparse_view(views) for views in (4, 8, 24, 60)),
        *(sparse_view(views, dose) for views in (8, 24) for dose in ("clinical", "low")),
        limited_angle(90),
        limited_angle(120),
    ),
    "MR": (mri(2, 0.15, 1), mri(4, 0.08, 1), mri(2, 0.15, 8), mri(4, 0.08, 8)),
}
LEAST_PEOPLE = 4
SEEN = 0.25  # how much a person whom the prior was trained with weighs against one whom it was not
SLICES = 2  # of each person, from the middle: people differ more than their slices do
GROUPS = 8  # of people, each left out of a model of the others
VOXELS = 5000  # of each run, that networks are trained on
_FINEST = 256  # pixels across a slice, beyond which four of them make one instead of two


@dataclass(frozen=True)
class KnownRun:
    """A finished run beside its truth.  maps: of its signals; error: absolute, in the value scale; kinds: class of each
    voxel; features: what it is like.
    """

    person: str
    kind: Kind
    maps: torch.Tensor
    error: torch.Tensor
    kinds: torch.Tensor
    features: list[float]


def calibrate(
    volumes: Sequence[Path],
    folder: Path,
    *,
    prior: str,
    modality: str = "CT",
    scans: Sequence[str] = (),
    slices: int = SLICES,
    patient: str = "",
    seen: Collection[str] = (),
    device: str = "auto",
    monitor: Monitor | None = None,
) -> Path:
    """Make the calibration of a prior for its usual method; returns the file, in ``folder``.

    volumes: files of people, at best none of whom the prior was trained with; of each the middle slices.  scans: labels
    of those of the benchmark, all that are usual by default.  patient: a pattern whose first group in a file's name
    is the person; by default every file is one.  seen: people whom the prior was trained with, on whom errors are
    smaller than on others: they weigh less where half-widths are scaled.
    Raises InputError for fewer than four people, or an unknown scan.
    """
    watched = monitor or Silent()
    planned = _planned(modality, scans)
    people = {path: _person(path, patient) for path in volumes}
    if len(set(people.values())) < LEAST_PEOPLE:
        raise InputError(
            f"calibration takes at least {LEAST_PEOPLE} people, here are {len(set(people.values()))}; give more"
        )
    runs_folder = folder / "runs"
    runs_folder.mkdir(parents=True, exist_ok=True)
    wanted = [(path, scan) for path in volumes for scan in planned]
    settings: ReconSettings | None = None
    runs = []
    for number, (path, scan) in enumerate(wanted):
        watched.tick("runs", number, len(wanted))
        settings = ReconSettings.preset(task_info(scan.task).preset, prior=prior, device=device)
        kept = runs_folder / f"{alias(path)}-{scan.label}.npz"
        if not sound(kept):
            keep_run(*scan_of(read_volume(path), scan, slices), settings, kept, watched)
        runs.append(read_run(kept, people[path], modality))
    watched.tick("runs", len(wanted), len(wanted))
    assert settings
    scale, without = models_of(runs, CLASSES[modality])
    entries = _entries(runs, without, CLASSES[modality], {p: SEEN if p in seen else 1.0 for p in people.values()})
    table = Table(prior, settings.method, modality, settings.steps, tuple(entries))
    return write_table(table, scale, folder / f"{prior}.calibration.safetensors")


def _planned(modality: str, labels: Sequence[str]) -> list[PlannedScan]:
    from ..benchmark.plan import FULL, SCANNERS

    of_scanners = [scan for scans in SCANNERS.values() for scan in scans] if modality == "CT" else []
    known = {scan.label: scan for scan in (*FULL[modality], *SCANS[modality], *of_scanners)}
    for label in labels:
        if label not in known:
            raise InputError(f"--scans: {label!r} is not one of {', '.join(known)}")
    return [known[label] for label in labels] if labels else list(SCANS[modality])


def _person(path: Path, pattern: str) -> str:
    match = re.search(pattern, path.name) if pattern else None
    return match.group(1) if match else path.name


def sound(path: Path) -> bool:
    """Whether a kept run is whole, and of these signals."""
    try:
        with np.load(path) as file:
            return {"truth", "misfit"} <= set(file) and file["maps"].shape[1] == len(NAMES)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return False


def scan_of(volume: Volume, scan: PlannedScan, slices: int) -> tuple[Scan, Volume]:
    """A simulated scan of the middle slices of a volume, on a grid coarser than the volume's, and its truth."""
    volume = volume.middle(min(slices, volume.array.shape[0]))
    if scan.task == MR_TASK:
        made = simulate(replace(volume, unit=""), task=scan.task, **scan.options)
        assert isinstance(made, KSpace)
        return with_maps(made), truth_for(volume, task=MR_TASK)
    count, rows, columns = volume.array.shape
    coarsen = 4 if max(rows, columns) > _FINEST else 2
    rows, columns = rows - rows % coarsen, columns - columns % coarsen
    grid = replace(volume.grid, shape=(count, rows, columns))
    volume = replace(volume, array=volume.array[:, :rows, :columns].copy(), grid=grid)
    return simulate(volume, task=scan.task, coarsen=coarsen, **scan.options), truth_for(volume, coarsen)


def keep_run(scan: Scan, truth: Volume, settings: ReconSettings, kept: Path, monitor: Monitor) -> None:
    """Reconstruct a simulated scan and write its signals beside the truth, in the value scale, into a file."""
    device, way = choose_device(settings.device), method(settings.method)
    with torch.inference_mode():
        network, card = way.load(settings, None, scan, device)
        if card is None:
            raise InputError(f"method {settings.method} has no prior to calibrate")
        problem = build_problem(scan, settings, card.value, volume_device(device))
        run = Run(Polled(monitor), AsReal(NoCheckpoint()), Counter(), network)
        x = way.run(problem, settings, run).volume
        denoiser = denoiser_of(problem, settings, run)
        signals = signals_of(problem, denoiser, x, seed=settings.seed, tv_lam=settings.tv_lam, monitor=monitor)
    true = truth.array if truth.grid.direction == problem.grid.direction else truth.axial()[0].array
    true = (true - card.value.offset) / card.value.scale if scan.modality == "CT" else true / problem.unit
    temporary = kept.with_suffix(".tmp.npz")
    np.savez(
        temporary,
        maps=signals.maps.cpu().numpy(),
        truth=true.astype(np.float32),
        misfit=signals.misfit,
        kind=np.array([str(v) for v in asdict(kind_of(scan)).values()]),
    )
    os.replace(temporary, kept)


def read_run(kept: Path, person: str, modality: str) -> KnownRun:
    """A run that a calibration kept."""
    with np.load(kept) as file:
        maps, truth = file["maps"], file["truth"]
        task, geometry, amount, photons, coils = file["kind"].tolist()
        misfit = float(file["misfit"])
    much = whole_share(float(amount)) if modality == "MR" else float(f"{float(amount):.3g}")
    kind = Kind(task, geometry, much, float(photons), int(coils))
    scale, offset = (2000.0, -1000.0) if modality == "CT" else (1.0, 0.0)
    kinds = torch.from_numpy(CLASSES[modality].of(maps[:, 0] * scale + offset))
    error = torch.from_numpy(np.abs(maps[:, 0] - truth))
    signals = torch.from_numpy(maps)
    return KnownRun(person, kind, signals, error, kinds, features_of(signals, misfit))


def models_of(runs: Sequence[KnownRun], classes: Classes) -> tuple[ErrorScale, dict[str, ErrorScale]]:
    """The model of all people, and for each of them one that had not seen them: of all but a group of people, of which
    there are at most GROUPS.  People weigh alike, however many runs they have.
    """
    people = sorted({run.person for run in runs})
    sums = [Sums.of(run.maps, run.error, run.kinds, classes) for run in runs]
    chosen = [_Chosen.of(run, np.random.default_rng(k)) for k, run in enumerate(runs)]
    groups = [people[k::GROUPS] for k in range(min(GROUPS, len(people)))]
    whole = _model(runs, sums, chosen, classes, people)
    without = dict[str, ErrorScale]()
    for group in groups:
        others = [person for person in people if person not in group]
        without |= dict.fromkeys(group, _model(runs, sums, chosen, classes, others) if others else whole)
    return whole, without


@dataclass(frozen=True)
class _Chosen:
    """Some voxels of a run, which a network is trained on: features (voxels, FEATURES), classes and absolute errors."""

    features: torch.Tensor
    kinds: torch.Tensor
    error: torch.Tensor

    @classmethod
    def of(cls, run: KnownRun, generator: np.random.Generator) -> _Chosen:
        count = run.error.numel()
        mine = torch.from_numpy(generator.choice(count, min(VOXELS, count), replace=False))
        features = features_at(run.maps).movedim(1, -1).reshape(count, -1)[mine]
        return cls(features, run.kinds.reshape(-1)[mine], run.error.reshape(-1)[mine])


def _model(
    runs: Sequence[KnownRun],
    sums: Sequence[Sums],
    chosen: Sequence[_Chosen],
    classes: Classes,
    people: Collection[str],
) -> ErrorScale:
    """Of these people's runs."""
    mine = [k for k, run in enumerate(runs) if run.person in people]
    parts = []
    for coils in sorted({run.kind.coils for run in runs}):
        of_coils = [k for k in mine if runs[k].kind.coils == coils] or mine
        count = Counts(runs[k].person for k in of_coils)
        parts.append(reduce(Sums.__add__, (sums[k].times(1 / count[runs[k].person]) for k in of_coils)).solved())
    linear = ErrorScale(torch.cat([model.coefficients for model in parts]))
    count, voxels = Counts(runs[k].person for k in mine), []
    for k in mine:
        part, kind = chosen[k], runs[k].kind
        inputs = inputs_of(part.features, part.kinds, len(classes.names), kind.amount, kind.coils)
        told = linear.logs(part.features, part.kinds, kind.coils, kind.amount)
        voxels.append(Voxels(inputs, told, part.error, 1 / count[runs[k].person]))
    return replace(linear, refinement=trained(voxels))


def _entries(
    runs: Sequence[KnownRun], without: dict[str, ErrorScale], classes: Classes, weights: Mapping[str, float]
) -> list[Entry]:
    """For each kind of scan its factors, from models without the person that they judge; weights: of people."""
    entries = list[Entry]()
    for kind in dict.fromkeys(run.kind for run in runs):
        part = [run for run in runs if run.kind == kind]
        people, told = [run.person for run in part], [weights[run.person] for run in part]
        covered = [
            Covered.of(run.error.numpy(), sizes.numpy(), run.kinds.numpy(), len(classes.names))
            for run in part
            for sizes in [without[run.person](run.maps, run.kinds, run.kind.coils, run.kind.amount)]
        ]
        asked = {share: level(covered, people, share, told) for share in SHARES}
        factors = {f"{share:g}": scales(covered, asked[share], told) for share in SHARES}
        kept = {f"{s:g}": round(held_of_others(covered, people, asked[s], told) or 0.0, 4) for s in SHARES}
        entries.append(Entry(kind, factors, len(set(people)), kept))
    return [replace(entry, usual=usual) for entry, usual in zip(entries, usual_ones(runs), strict=True)]


def usual_ones(runs: Sequence[KnownRun]) -> list[dict[str, Any]]:
    """For each kind of scan what its runs are like, but for those of the oddest people."""
    kinds = {run.kind: [other for other in runs if other.kind == run.kind] for run in runs}
    alike = ordinary([([run.features for run in part], [run.person for run in part]) for part in kinds.values()])
    usual, distances = list[dict[str, Any]](), list[float]()
    for part in kinds.values():
        mine = [run for run in part if run.person in alike] or part
        features = [run.features for run in mine]
        distances += distances_left_out(features, [run.person for run in mine])
        usual.append(usual_of(features))
    limit = limit_of(distances)
    return [one | {"limit": limit} for one in usual]


def summary(table: Table) -> list[dict[str, Any]]:
    """A row for each kind of scan: what was held of people who were left out."""
    return [
        {"scan": e.kind.text, "people": e.people, **{f"held_{100 * float(s):g}": v for s, v in e.held.items()}}
        for e in table.entries
    ]
