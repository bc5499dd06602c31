"""Makes a calibration: scans of people whose truth is known, simulated and reconstructed, and what their errors were.

Every run is kept in the folder, so that a calibration that was broken off goes on where it was.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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
from .conformal import CLASSES, Covered, held, scales
from .fit import STEPS, KnownRun, fit_network
from .network import SHARES, ErrorNet
from .signals import signals_of
from .table import Entry, Kind, Table, kind_of, write_table
from .unlike import features_of, usual_of

SCANS = {
    "CT": (
        *(sparse_view(views) for views in (4, 8, 24, 60)),
        *(sparse_view(views, dose) for views in (8, 24) for dose in ("clinical", "low")),
        limited_angle(90),
        limited_angle(120),
    ),
    "MR": (mri(2, 0.15, 1), mri(4, 0.08, 1), mri(2, 0.15, 8), mri(4, 0.08, 8)),
}
FOLDS = 4  # parts of the people; half-widths are judged on those that the network has not seen
_FINEST = 256  # pixels across a slice, beyond which four of them make one instead of two


@dataclass(frozen=True)
class _Judged:
    """A run by a network that had not seen the person: how its half-widths must be scaled, for each share."""

    person: str
    covered: dict[str, Covered]


def calibrate(
    volumes: Sequence[Path],
    folder: Path,
    *,
    prior: str,
    modality: str = "CT",
    scans: Sequence[str] = (),
    slices: int = 4,
    patient: str = "",
    steps: int = STEPS,
    device: str = "auto",
    monitor: Monitor | None = None,
) -> Path:
    """Make the calibration of a prior for its usual method; returns the file, in ``folder``.

    volumes: files of people, at best none of whom the prior was trained with; of each the middle slices.  scans: labels
    of those of the benchmark, all that are usual by default.  patient: a pattern whose first group in a file's name
    is the person; by default every file is one.  steps: of the network that is fitted.
    Raises InputError for fewer than four people, or an unknown scan.
    """
    watched = monitor or Silent()
    planned = _planned(modality, scans)
    people = {path: _person(path, patient) for path in volumes}
    if len(set(people.values())) < FOLDS:
        raise InputError(f"calibration takes at least {FOLDS} people, here are {len(set(people.values()))}; give more")
    runs_folder = folder / "runs"
    runs_folder.mkdir(parents=True, exist_ok=True)
    found: dict[Kind, list[tuple[KnownRun, np.ndarray, list[float]]]] = {}
    wanted = [(path, scan) for path in volumes for scan in planned]
    settings: ReconSettings | None = None
    for number, (path, scan) in enumerate(wanted):
        watched.tick("runs", number, len(wanted))
        settings = ReconSettings.preset(task_info(scan.task).preset, prior=prior, device=device)
        kept = runs_folder / f"{alias(path)}-{scan.label}.npz"
        if not _sound(kept):
            _run(path, scan, settings, slices, kept, watched)
        kind, run, values, features = _read(kept, people[path])
        found.setdefault(kind, []).append((run, values, features))
    watched.tick("runs", len(wanted), len(wanted))
    assert settings
    entries = _entries(found, CLASSES[modality].bounds, modality, steps, watched)
    network = fit_network([run for part in found.values() for run, *_ in part], steps=steps, monitor=watched)
    table = Table(prior, settings.method, modality, settings.steps, tuple(entries))
    return write_table(table, network, folder / f"{prior}.calibration.safetensors")


def _planned(modality: str, labels: Sequence[str]) -> list[PlannedScan]:
    from ..benchmark.plan import FULL

    known = {scan.label: scan for scan in (*FULL[modality], *SCANS[modality])}
    for label in labels:
        if label not in known:
            raise InputError(f"--scans: {label!r} is not one of {', '.join(known)}")
    return [known[label] for label in labels] if labels else list(SCANS[modality])


def _person(path: Path, pattern: str) -> str:
    match = re.search(pattern, path.name) if pattern else None
    return match.group(1) if match else path.name


def _sound(path: Path) -> bool:
    try:
        with np.load(path) as file:
            return "truth" in file
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return False


def scan_of(path: Path, scan: PlannedScan, slices: int) -> tuple[Scan, Volume]:
    """A simulated scan of the middle slices of a volume, on a grid coarser than the volume's, and its truth."""
    volume = read_volume(path)
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


def _run(path: Path, planned: PlannedScan, settings: ReconSettings, slices: int, kept: Path, monitor: Monitor) -> None:
    """Reconstruct a simulated scan and write its signals beside the truth, in the value scale."""
    scan, truth = scan_of(path, planned, slices)
    device, way = choose_device(settings.device), method(settings.method)
    with torch.inference_mode():
        network, card = way.load(settings, None, scan, device)
        if card is None:
            raise InputError(f"method {settings.method} has no prior to calibrate")
        problem = build_problem(scan, settings, card.value, volume_device(device))
        run = Run(Polled(monitor), AsReal(NoCheckpoint()), Counter(), network)
        x = way.run(problem, settings, run).volume
        signals = signals_of(problem, denoiser_of(problem, settings, run), x, seed=settings.seed)
    true = truth.array if truth.grid.direction == problem.grid.direction else truth.axial()[0].array
    true = (true - card.value.offset) / card.value.scale if scan.modality == "CT" else true / problem.unit
    temporary = kept.with_suffix(".tmp.npz")
    np.savez(
        temporary,
        maps=signals.maps.cpu().numpy(),
        truth=true.astype(np.float32),
        features=np.array(features_of(signals)),
        kind=np.array([str(v) for v in asdict(kind_of(scan)).values()]),
    )
    os.replace(temporary, kept)


def _read(kept: Path, person: str) -> tuple[Kind, KnownRun, np.ndarray, list[float]]:
    with np.load(kept) as file:
        maps, truth = file["maps"], file["truth"]
        task, geometry, amount, photons, coils = file["kind"].tolist()
        features = file["features"].tolist()
    kind = Kind(task, geometry, float(f"{float(amount):.3g}"), float(photons), int(coils))
    error = torch.from_numpy(np.abs(maps[:, 0] - truth))
    return kind, KnownRun(person, torch.from_numpy(maps), error), truth, features


def _entries(
    found: dict[Kind, list[tuple[KnownRun, np.ndarray, list[float]]]],
    bounds: Sequence[float],
    modality: str,
    steps: int,
    monitor: Monitor,
) -> list[Entry]:
    """For each kind of scan the factors, from people whom the network that judged them had not seen."""
    everything = [run for part in found.values() for run, *_ in part]
    people = sorted({run.person for run in everything})
    networks: dict[str, ErrorNet] = {}
    for fold in range(FOLDS):
        out = set(people[fold::FOLDS])
        rest = [run for run in everything if run.person not in out]
        network = fit_network(rest, steps=steps, monitor=monitor, stage=f"fit {fold + 1} of {FOLDS}")
        networks |= dict.fromkeys(out, network)
    entries = []
    for kind, part in found.items():
        judged = [_judge(run, networks[run.person], modality) for run, *_ in part]
        factors = {name: scales([j.covered[name] for j in judged], float(name)) for name in judged[0].covered}
        entries.append(
            Entry(kind, factors, len({j.person for j in judged}), _left_out(judged), usual_of([f for *_, f in part]))
        )
    return entries


def _judge(run: KnownRun, network: ErrorNet, modality: str) -> _Judged:
    classes, scale = CLASSES[modality], (2000.0, -1000.0) if modality == "CT" else (1.0, 0.0)
    kinds = classes.of(run.maps[:, 0].numpy() * scale[0] + scale[1])
    with torch.inference_mode():
        widths = network(run.maps).numpy()
    error = run.error.numpy()
    return _Judged(
        run.person,
        {f"{s:g}": Covered.of(error, widths[:, k], kinds, len(classes.names)) for k, s in enumerate(SHARES)},
    )


def _left_out(judged: Sequence[_Judged]) -> dict[str, float]:
    """The mean share that was held of each person by the factors of the others."""
    shares: dict[str, float] = {}
    for name in judged[0].covered:
        held_by = []
        for one in judged:
            others = [j.covered[name] for j in judged if j.person != one.person]
            if others:
                covered = one.covered[name]
                parts = held(covered, scales(others, float(name)))
                held_by.append(float((parts * covered.voxels).sum() / max(1, covered.voxels.sum())))
        shares[name] = round(float(np.mean(held_by)), 4) if held_by else 0.0
    return shares


def summary(table: Table) -> list[dict[str, Any]]:
    """A row for each kind of scan: what was held of people who were left out."""
    return [
        {"scan": e.kind.text, "people": e.people, **{f"held_{100 * float(s):g}": v for s, v in e.held.items()}}
        for e in table.entries
    ]
