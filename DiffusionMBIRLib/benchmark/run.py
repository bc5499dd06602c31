"""The loop of a benchmark: simulate, reconstruct, judge, record; what is recorded already is skipped."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..config import ReconSettings
from ..errors import InputError
from ..io.volumes import read_volume
from ..methods import NETWORK_METHODS
from ..metrics import PLANES, evaluate, uncertainty
from ..models import find, sha256
from ..monitor import Monitor, Silent
from ..provenance import software_version
from ..reconstruction import Result, reconstruct
from ..report import save_metrics
from ..scans import KSpace
from ..simulation import simulate, truth_for
from ..supervised.about import networks_folder
from ..tasks import MR_TASK
from ..volume import Volume
from .ablations import ablations_for
from .plan import PlannedScan, Row, planned_rows
from .results import Results, digest, machine_record


@dataclass(frozen=True)
class Subject:
    """A volume that is scanned.

    coarsen: reconstruct CT on block means of this size (1: the volume's own grid).  slices: only so many in the middle
    of the stored volume, 0 for all.
    """

    name: str
    path: Path
    coarsen: int = 2
    slices: int = 0

    def volume(self) -> Volume:
        volume = read_volume(self.path)
        return volume.middle(self.slices) if self.slices else volume


class _Nested:
    """Progress of one run within the whole benchmark, as one bar."""

    def __init__(self, monitor: Monitor, done: int, total: int, label: str) -> None:
        self._monitor, self._done, self._total, self._label = monitor, done, total, label

    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        self._monitor.tick(f"{self._label}: {stage}", done, total, run=self._done + 1, of=self._total)

    def preview(self, estimate: Any, step: int) -> None:
        return None

    def poll(self) -> None:
        self._monitor.poll()


def run_benchmark(
    cases: Sequence[Subject],
    scans: Sequence[PlannedScan],
    output: Path,
    *,
    quick: bool = False,
    ablations: bool = False,
    methods: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    prior: str | None = None,
    seed: int = 0,
    compile: bool = False,
    supervised: Path | None = None,
    monitor: Monitor | None = None,
) -> list[dict[str, Any]]:
    """Run what is missing of cases x scans x methods; returns all records, in order, and writes results.csv.

    ablations: rows of :mod:`.ablations` instead of the methods.  methods: labels of the rows to run; all by default.
    precision: of the networks.  prior: id or file for the diffusion methods, else each preset's own.  compile: the
    network, in rows that take many minutes.  supervised: folder with the networks of supervised methods, by default the
    checkout's; rows without a file there are left out.  Raises InputError for a label that no scan has.
    """
    monitor, results = monitor or Silent(), Results(output)
    networks = supervised or networks_folder()
    runs = [(case, scan, row) for case in cases for scan in scans for row in _rows(scan, quick, ablations, methods)]
    runs = [run for run in runs if not _lacks(run[2], networks)]
    known = {
        row.label
        for scan in scans
        for row in (ablations_for(scan.task) if ablations else planned_rows(scan, quick=quick))
    }
    unknown = [label for label in methods if label not in known]
    if unknown or not runs:
        raise InputError(f"--methods {', '.join(unknown or methods)}: none of the scans has such a row, or its network")
    records: list[dict[str, Any]] = []
    current: tuple[Subject, PlannedScan] | None = None
    for number, (case, scan, row) in enumerate(runs):
        key = f"{case.name}_{scan.label}_{re.sub('[^A-Za-z0-9.]+', '-', row.label).strip('-')}".lower()
        settings = replace(row.settings(scan.task, seed), compile=compile and row.minutes, precision=precision)
        network = str(networks / row.network) if row.network else prior
        wanted = _fingerprint(case, scan, settings, network)
        record = results.record(key, wanted, settings)
        if record is None:
            if current != (case, scan):
                measured, truth = _scan(case, scan, seed, monitor)
                current = (case, scan)
            watch = _Nested(monitor, number, len(runs), f"{scan.label} {row.label}")
            keeper, began = results.keeper(key, wanted, settings), time.process_time()
            reconstructed = partial(
                reconstruct,
                measured,
                prior=network,
                settings=settings,
                device=device,
                monitor=watch,
                checkpoint=keeper,
            )
            result = keeper.going_on(reconstructed)
            record = _record(case, scan, row, result, truth) | {"key": key, "fingerprint": wanted}
            record["seconds"] = round(result.seconds + keeper.seconds_before, 2)
            record["cpu_seconds"] = None if keeper.seconds_before else round(time.process_time() - began, 2)
            results.add(key, record, _middle(result.volume))
            results.keep_slices(truth_key(record), _middle(truth))
            results.forget_state(key)
        records.append(record | {"note": row.note})
        results.write_csv(records)
    save_metrics(
        output / "machine.json", {"machine": machine_record(), "date": _today(), "version": software_version()}
    )
    return records


def left_out(scans: Sequence[PlannedScan], supervised: Path | None = None) -> list[str]:
    """Files of networks that rows of these scans need and that are not there."""
    networks = supervised or networks_folder()
    rows = [row for scan in scans for row in planned_rows(scan, quick=False)]
    return list(dict.fromkeys(str(networks / row.network) for row in rows if _lacks(row, networks)))


def _lacks(row: Row, networks: Path) -> bool:
    return bool(row.network) and not (networks / row.network).is_file()


def _rows(scan: PlannedScan, quick: bool, ablations: bool, methods: Sequence[str]) -> list[Row]:
    rows = ablations_for(scan.task) if ablations else planned_rows(scan, quick=quick)
    if methods:
        return [row for row in rows if row.label in methods]
    return [row for row in rows if not row.only or scan.label in row.only]


def truth_key(record: Mapping[str, Any]) -> str:
    """Where the middle slices of a run's truth are kept."""
    return f"{record['case']}_{record['scan']}_truth".lower()


def _scan(case: Subject, scan: PlannedScan, seed: int, monitor: Monitor) -> tuple[Any, Volume]:
    volume = case.volume()
    if scan.task == MR_TASK:
        from ..problems.mr import with_maps

        made = simulate(volume, task=scan.task, **scan.options, seed=seed, monitor=monitor)
        assert isinstance(made, KSpace)
        return with_maps(made), truth_for(volume)  # estimated once for all methods
    options = scan.options | {"coarsen": case.coarsen}
    return simulate(volume, task=scan.task, **options, seed=seed, monitor=monitor), truth_for(volume, case.coarsen)


def _fingerprint(case: Subject, scan: PlannedScan, settings: ReconSettings, prior: str | None) -> str:
    """Of what determines a run besides its settings."""
    weights = sha256(find(prior or settings.prior)) if settings.method in NETWORK_METHODS else ""
    return digest(
        {
            "data": sha256(case.path),
            "coarsen": case.coarsen,
            "slices": case.slices,
            "scan": asdict(scan),
            "prior": weights,
            "version": software_version(),
        }
    )


def _record(case: Subject, scan: PlannedScan, row: Row, result: Result, truth: Volume) -> dict[str, Any]:
    judged = evaluate(result.volume, truth)
    used = result.provenance.get("prior", {})
    return {
        "case": case.name,
        "task": scan.task,
        "scan": scan.label,
        "views": scan.views,
        "dose": scan.dose,
        "method": row.label,
        "nfe": result.nfe,
        **{plane: judged[plane] for plane in PLANES},
        "residual": result.residual,
        "network_seconds": round(result.network_seconds, 2),
        "uncertainty": _uncertainty(result, truth),
        "prior": f"{used['id']} {used['sha256'][:12]}" if used else "",
        "precision": result.provenance["precision"],
        "provenance": result.provenance,
    }


def _uncertainty(result: Result, truth: Volume) -> dict[str, float] | None:
    if result.deviation is None:
        return None
    samples = int(result.provenance["settings"]["samples"])
    return uncertainty(result.volume, result.deviation, truth, samples=samples)


def _middle(volume: Volume) -> dict[str, np.ndarray]:
    """The middle slice of each plane, in axial order."""
    array = volume.axial()[0].array
    return {plane: np.take(array, array.shape[axis] // 2, axis) for axis, plane in enumerate(PLANES)}


def _today() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d")
