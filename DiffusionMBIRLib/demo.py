"""The demonstration: a real CT from 8 views and from a limited angle, beside the classical reconstructions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from .config import ReconSettings
from .data import Measurement, Volume
from .errors import EngineError
from .io.volumes import read_volume, sample_data
from .metrics import evaluate
from .monitor import Monitor, Silent
from .reconstruction import Result, preset_for, reconstruct
from .report import save_metrics, save_montage
from .simulation import simulate, truth_for

COARSEN = 2  # data come from the sample's 256 x 256 grid, reconstructions are made on 128 x 128
CASES = (("sparse-view-ct", 8, 180.0), ("limited-angle-ct", 90, 90.0))
TITLES = {"sparse-view-ct": "Sparse-view CT", "limited-angle-ct": "Limited-angle CT"}
METHODS = {"FBP": "fbp", "ADMM-TV": "admm-tv", "Ours": "dds"}


def run_demo(
    output: Path, *, device: str = "auto", prior: str | None = None, monitor: Monitor | None = None
) -> dict[str, Any]:
    """Simulate, reconstruct and judge the bundled volume; writes volumes, montages and metrics.json to ``output``.

    Returns what metrics.json holds.
    """
    monitor = monitor or Silent()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(f"{output}: the folder cannot be made ({error.strerror})") from None
    volume = read_volume(sample_data())
    truth = truth_for(volume, COARSEN)
    truth.save(output / "truth.nrrd")
    cases = []
    for task, views, angle_range in CASES:
        scan = simulate(volume, task=task, views=views, angle_range_deg=angle_range, coarsen=COARSEN, monitor=monitor)
        assert isinstance(scan, Measurement)
        cases.append(_case(scan, truth, output, device=device, prior=prior, monitor=monitor))
    metrics = {"data": sample_data().name, "cases": cases}
    save_metrics(output / "metrics.json", metrics)
    return metrics


def _case(
    scan: Measurement, truth: Volume, output: Path, *, device: str, prior: str | None, monitor: Monitor
) -> dict[str, Any]:
    settings = ReconSettings.preset(preset_for(scan.task))
    scores: dict[str, dict[str, Any]] = {}
    volumes = {}
    for name, method in METHODS.items():
        chosen = replace(settings, method=method)
        result = reconstruct(scan, prior=prior, settings=chosen, device=device, monitor=monitor)
        result.volume.save(output / f"{scan.task}_{method}.nrrd")
        volumes[name], scores[name] = result.volume.axial()[0].array, figures(result, truth)
    angle_range = scan.provenance.get("settings", {}).get("angle_range_deg", 180.0)
    save_montage(
        output / f"{scan.task}.png",
        volumes,
        truth.axial()[0].array,
        spacing_mm=scan.grid.spacing_mm,
        title=f"{TITLES[scan.task]}: {scan.geometry.views} views over {angle_range:g} degrees",
        subtitle=f"{settings.steps} network evaluations a slice, prior {prior or settings.prior}",
        scores=scores,
    )
    return {
        "task": scan.task,
        "views": scan.geometry.views,
        "angles_deg": list(scan.geometry.angles_deg),
        "angle_range_deg": angle_range,
        "methods": scores,
    }


def figures(result: Result, reference: Volume) -> dict[str, Any]:
    """Quality per plane, data residual, seconds and network evaluations of a result."""
    judged = evaluate(result.volume, reference)
    return {**judged, "residual": result.residual, "seconds": result.seconds, "nfe": result.nfe}
