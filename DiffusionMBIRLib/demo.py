"""The demonstrations: a real CT from 8 views and from a limited angle, a real MRI from a half and a quarter of k-space,
each beside the classical reconstructions.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .config import DEMOS, ReconSettings
from .devices import choose_device
from .errors import EngineError, InputError
from .estimate import duration, estimate
from .io.volumes import read_volume, sample_data
from .metrics import evaluate
from .models import MR_PERCENTILE
from .monitor import Monitor, Silent
from .pace import pace_of
from .provenance import file_name
from .reconstruction import Result, reconstruct
from .report import save_metrics, save_montage
from .scans import KSpace, Measurement
from .simulation import simulate, truth_for
from .tasks import CT_TASKS, MR_TASK, task_info
from .volume import Volume

COARSEN = 2  # data come from the sample's 256 x 256 grid, reconstructions are made on 128 x 128
METHODS = {"FBP": "fbp", "ADMM-TV": "admm-tv", "Ours": "dual"}
MR_CASES = ((2, 0.15), (4, 0.08))  # acceleration, share of lines in the middle
MR_COILS, MR_NOISE = 8, 0.01
MR_METHODS = {"Zero-filled": "zero-filled", "SENSE-CG": "sense-cg", "ADMM-TV": "admm-tv", "Ours": "dual"}


def settings_for(task: str, method: str = "dual") -> ReconSettings:
    """Ours with few levels, so that a demo is quick; the classical methods as the task's usual preset tunes them."""
    preset = task_info(task).preset
    return ReconSettings.preset(f"{preset}-quick" if method == "dual" else preset, method=method)


def run_demo(
    output: Path,
    *,
    task: str = "ct",
    device: str = "auto",
    prior: str | None = None,
    monitor: Monitor | None = None,
) -> dict[str, Any]:
    """Simulate, reconstruct and judge a bundled volume; writes volumes, montages and metrics.json to ``output``.

    task: one of ``DEMOS``.  Returns what metrics.json holds.
    """
    monitor = monitor or Silent()
    if task not in DEMOS:
        raise InputError(f"demo of {task!r} is not known; use one of {', '.join(DEMOS)}")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(f"{output}: the folder cannot be made ({error.strerror})") from None
    source = sample_data("ct_chest.nrrd" if task == "ct" else "mr_head.nrrd")
    make = _ct_cases if task == "ct" else _mr_cases
    cases = make(read_volume(source), output, device, prior, monitor)
    metrics = {"data": source.name, "cases": cases}
    save_metrics(output / "metrics.json", metrics)
    return metrics


def expected(*, task: str = "ct", device: str = "auto", prior: str | None = None) -> str:
    """One line before a demonstration: what all its reconstructions will take on this machine."""
    ct = task == "ct"
    shape = read_volume(sample_data("ct_chest.nrrd" if ct else "mr_head.nrrd")).grid.shape
    shape = (shape[0], shape[1] // COARSEN, shape[2] // COARSEN) if ct else shape
    chosen, found = choose_device(device), []
    for name in CT_TASKS if ct else len(MR_CASES) * (MR_TASK,):
        for method in (METHODS if ct else MR_METHODS).values():
            settings = settings_for(name, method)
            settings = replace(settings, prior=prior or settings.prior)
            pace = pace_of(settings, name, chosen)
            found.append(estimate(shape, settings, name, coils=MR_COILS, pace=pace))
    seconds, memory = sum(e.seconds or 0.0 for e in found), max(e.memory_bytes for e in found)
    size = f"{shape[2]} x {shape[1]} x {shape[0]}, {len(found)} reconstructions"
    return f"{size}, needs {memory / 1e9:.1f} GB, about {duration(seconds)} on this machine"


def _ct_cases(volume: Volume, output: Path, device: str, prior: str | None, monitor: Monitor) -> list[dict[str, Any]]:
    truth = truth_for(volume, COARSEN)
    truth.save(output / "truth.nrrd")
    cases = []
    for task in CT_TASKS:
        scan = simulate(volume, task=task, coarsen=COARSEN, monitor=monitor)
        assert isinstance(scan, Measurement)
        cases.append(_case(scan, truth, output, device=device, prior=prior, monitor=monitor))
    return cases


def _mr_cases(volume: Volume, output: Path, device: str, prior: str | None, monitor: Monitor) -> list[dict[str, Any]]:
    from .problems.mr import with_maps

    truth = truth_for(volume, task=MR_TASK)
    truth.save(output / "truth.nrrd")
    bright = float(np.percentile(truth.array, MR_PERCENTILE))
    cases = []
    for acceleration, acs in MR_CASES:
        scan = simulate(
            volume,
            task=MR_TASK,
            acceleration=acceleration,
            acs=acs,
            coils=MR_COILS,
            phase=True,
            noise=MR_NOISE,
            monitor=monitor,
        )
        assert isinstance(scan, KSpace)
        name = f"{MR_TASK}_x{acceleration}"
        volumes, scores = _compare(with_maps(scan), truth, MR_METHODS, output / name, device, prior, monitor)
        save_montage(
            output / f"{name}.png",
            volumes,
            truth.axial()[0].array,
            spacing_mm=truth.axial()[0].grid.spacing_mm,
            title=f"{task_info(MR_TASK).label}: acceleration {acceleration}, {acs:.0%} of the lines in the middle",
            subtitle=f"{MR_COILS} coils, phase and noise; {_ours(MR_TASK, prior)}",
            scores=scores,
            level_hu=0.45 * bright,
            window_hu=0.9 * bright,
            error_hu=0.1 * bright,
            unit="",
        )
        cases.append(
            {
                "task": MR_TASK,
                "acceleration": acceleration,
                "acs": acs,
                "coils": MR_COILS,
                "noise": MR_NOISE,
                "methods": scores,
            }
        )
    return cases


def _compare(
    scan: Measurement | KSpace,
    truth: Volume,
    methods: dict[str, str],
    name: Path,
    device: str,
    prior: str | None,
    monitor: Monitor,
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
    """Volumes in axial order and figures of each method; the volumes are also written, beginning with ``name``."""
    volumes, scores = {}, {}
    for label, method in methods.items():
        chosen = settings_for(scan.task, method)
        result = reconstruct(scan, prior=prior, settings=chosen, device=device, monitor=monitor)
        result.volume.save(name.with_name(f"{name.name}_{method}.nrrd"))
        volumes[label], scores[label] = result.volume.axial()[0].array, figures(result, truth)
    return volumes, scores


def _case(
    scan: Measurement, truth: Volume, output: Path, *, device: str, prior: str | None, monitor: Monitor
) -> dict[str, Any]:
    volumes, scores = _compare(scan, truth, METHODS, output / scan.task, device, prior, monitor)
    angle_range = scan.provenance.get("settings", {}).get("angle_range_deg", 180.0)
    save_montage(
        output / f"{scan.task}.png",
        volumes,
        truth.axial()[0].array,
        spacing_mm=scan.grid.spacing_mm,
        title=f"{task_info(scan.task).label}: {scan.geometry.views} views over {angle_range:g} degrees",
        subtitle=_ours(scan.task, prior),
        scores=scores,
    )
    return {
        "task": scan.task,
        "views": scan.geometry.views,
        "angles_deg": list(scan.geometry.angles_deg),
        "angle_range_deg": angle_range,
        "methods": scores,
    }


def _ours(task: str, prior: str | None) -> str:
    """What ours took, for the subtitle of a montage."""
    settings = settings_for(task)
    return f"{settings.steps} network evaluations a slice, prior {file_name(prior or settings.prior)}"


def figures(result: Result, reference: Volume) -> dict[str, Any]:
    """Quality per plane, data residual, seconds and network evaluations of a result."""
    judged = evaluate(result.volume, reference)
    return {**judged, "residual": result.residual, "seconds": result.seconds, "nfe": result.nfe}
