"""``diffusionmbir reconstruct``: a volume from a measurement, or from a scan of a volume that is simulated first."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import ReconSettings
from ..describe import lines
from ..engines import LOCAL
from ..errors import InputError
from ..formats import SCAN, may_hold
from ..monitor import Checkpoint, Monitor, Silent
from ..names import beside
from ..provenance import NOTICE
from ..tasks import SLICE_TASKS, SPARSE_VIEW, TASKS, task_info
from ..uncertainty.candidates import listing
from ..usual import instead_of_hours, usual_settings
from .options import (
    Outcome,
    add_engine,
    add_scan_settings,
    add_settings,
    add_told,
    add_told_trajectory,
    engine_options,
    given_scan_settings,
    given_settings,
    planes_text,
    say,
    told,
)
from .previewing import PreviewFile

if TYPE_CHECKING:
    import torch

    from ..many import Group
    from ..operators.slabs import Slabs
    from ..scans import Scan

NAME, HELP = "reconstruct", "reconstruct a measurement"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "measurement",
        type=Path,
        help="measurement file (.h5), projections, or a volume: to be scanned, or with thick slices",
    )
    add_told(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, help="volume to write (.nrrd, .nii.gz, .mha)")
    parser.add_argument("--reference", type=Path, help="volume to judge the result by")
    parser.add_argument("--report", action="store_true", help="also write a page of it, OUTPUT.html")
    parser.add_argument("--preset", help="name of a preset (default: the one of the measurement's task)")
    parser.add_argument(
        "--task", choices=TASKS, help=f"of a volume: what to simulate, or thin-slices (default {SPARSE_VIEW})"
    )
    add_engine(parser)
    parser.add_argument(
        "--devices",
        default="1",
        metavar="N",
        help="all, or how many: each takes a slab of slices (all CUDA devices; with --device cpu processes)",
    )
    parser.add_argument(
        "--state", type=Path, metavar="FOLDER", help="keep the run's state there, and go on from it, on any devices"
    )
    parser.add_argument(
        "--preview", type=Path, metavar="FILE", help="keep the newest estimate there meanwhile (.nrrd, .nii.gz, .mha)"
    )
    add_told_trajectory(parser, file=False)
    add_scan_settings(parser, open_to=("trajectory",))
    add_settings(parser, ReconSettings)


def run(arguments: argparse.Namespace, monitor: Monitor) -> Outcome:
    """What came out and how good it is; the volume is written to the output."""
    if arguments.engine != LOCAL:
        if arguments.devices != "1" or arguments.state or arguments.preview:
            raise InputError("--devices, --state and --preview are for this computer; leave them out with --engine")
        return _elsewhere(arguments, monitor)
    from ..many import devices_asked, joining, started_by_many

    wanted = getattr(arguments, "device", "auto")
    if not started_by_many() and (count := devices_asked(arguments.devices, wanted)) > 1:
        from ..launch import launch

        raise SystemExit(launch(arguments.argv, count))
    with joining(wanted) as group:
        if not group.first:
            arguments.quiet, monitor = True, Silent()
        return _reconstructed(arguments, monitor, group)


def _reconstructed(arguments: argparse.Namespace, monitor: Monitor, group: Group) -> Outcome:
    from ..devices import choose_device
    from ..io.volumes import read_volume, require_writable
    from ..metrics import evaluate, uncertainty, uncertainty_text
    from ..pace import estimate_of
    from ..page import gathered, require_pages, write_page
    from ..reconstruction import reconstruct

    measurement, truth = _measured(arguments, monitor)
    settings, why = _settings(arguments, measurement)
    settings = replace(settings, device=group.device or settings.device)
    device, slabs = choose_device(settings.device), group.slabs_of(measurement)
    reference = read_volume(arguments.reference) if arguments.reference else truth
    if group.first:
        require_writable(arguments.output, bytes_needed=4 * measurement.grid.voxels)
    if group.first and arguments.report:
        require_pages(arguments.output)
    if group.first and arguments.preview:
        require_writable(arguments.preview, bytes_needed=4 * measurement.grid.voxels)
        monitor = PreviewFile(monitor, arguments.preview, lambda line: say(line, arguments))
    for note in measurement.notes:
        say(note, arguments)
    if why:
        say(why, arguments)
    if not arguments.quiet:
        say(estimate_of(measurement, settings, device, devices=group.size).text, arguments)
    keeper = _keeper(arguments, measurement, settings, slabs, device) if arguments.state else None
    result = reconstruct(measurement, settings=settings, monitor=monitor, checkpoint=keeper, slabs=slabs)
    if not group.first:
        return {}, ""
    result.volume.save(arguments.output)
    entries: dict[str, Any] = {"output": str(arguments.output), "method": result.method, "nfe": result.nfe}
    entries |= {"residual": result.residual, "seconds": round(result.seconds, 3)}
    entries |= {key: result.provenance[key] for key in ("device", "precision")}
    entries |= _exchanged(slabs, result.seconds)
    text = "\n".join(
        [
            f"{arguments.output}: {lines(entries, skip=('output',))}",
            *(f"remarks: {remark}" for remark in result.provenance.get("remarks", ())),
        ]
    )
    if result.deviation is not None:
        deviation = beside(arguments.output, "-deviation")
        result.deviation.save(deviation)
        entries["deviation"] = str(deviation)
        text += f"\n{deviation}: standard deviation of {settings.samples} samples"
    if result.doubt is not None:
        text += "\n" + _save_doubt(result.doubt, arguments.output, entries)
    if reference is not None:
        entries["metrics"] = evaluate(result.volume, reference)
        text += "\n" + planes_text(entries["metrics"], result.volume.unit)
        if result.deviation is not None:
            entries["uncertainty"] = uncertainty(result.volume, result.deviation, reference, samples=settings.samples)
            text += "\n" + uncertainty_text(entries["uncertainty"])
    if arguments.report:
        page = write_page(gathered(arguments.output, measurement), arguments.output.with_suffix(".html"))
        entries["page"] = str(page)
        text += f"\n{page}: what was done, how sure it is, and how to repeat it"
    return entries, f"{text}\n{NOTICE}"


def _elsewhere(arguments: argparse.Namespace, monitor: Monitor) -> Outcome:
    """As a job that another computer works on; it is kept where it does not come to its end."""
    from ..io.volumes import read_volume, require_writable
    from ..jobs.asking import ask
    from ..jobs.folder import JobFolder, jobs_root
    from ..metrics import evaluate
    from .job import follow_job

    path: Any = arguments.measurement
    where = engine_options(arguments)
    require_writable(arguments.output)
    reference = read_volume(arguments.reference) if arguments.reference else None
    choices = given_scan_settings(arguments) | given_settings(arguments, ReconSettings)
    if may_hold(path, SCAN):
        path = _measured(arguments, monitor)[0]
    asked = ask(path, task=arguments.task, name=arguments.measurement.name, preset=arguments.preset, choices=choices)
    folder = JobFolder.create(jobs_root(), *asked, **where)
    entries, text = follow_job(folder, arguments, monitor)
    folder.remove()
    del entries["folder"]
    if reference is not None:
        entries["metrics"] = evaluate(read_volume(arguments.output), reference)
        text += "\n" + planes_text(entries["metrics"], reference.unit)
    return entries | {"engine": arguments.engine}, f"{text}\n{NOTICE}"


def _exchanged(slabs: Slabs, seconds: float) -> dict[str, Any]:
    """What several devices told each other: bytes that one handed over, and the share of its time, waiting included."""
    if slabs.size == 1:
        return {}
    told: Any = slabs
    share = round(told.seconds / max(seconds, 1e-9), 4)
    return {"devices": slabs.size, "exchanged_bytes": sum(told.sent.values()), "exchange_share": share}


def _keeper(
    arguments: argparse.Namespace, scan: Scan, settings: ReconSettings, slabs: Slabs, device: torch.device
) -> Checkpoint:
    """Keeps the state in the folder that the user named."""
    from ..jobs.slab_states import SlabStates, key_of

    def warn(line: str) -> None:
        say(line, arguments)

    key = key_of(scan, settings)
    return SlabStates(arguments.state, slabs, scan.grid.shape[0], key, device=device, warn=warn)


def _save_doubt(doubt: Any, output: Path, entries: dict[str, Any]) -> str:
    """Write the volumes beside the result; what they are, for the user."""
    written = doubt.save_beside(output)
    entries |= {mark.replace("-", "_"): str(path) for mark, path in written.items()} | {"doubt": doubt.numbers}
    said = [
        f"{written[f'interval-{share}']}: half-widths within which {share} % of the true values are expected"
        for share in doubt.intervals
    ]
    filled, unit = doubt.numbers["filled_in"], doubt.part.unit
    size = float(np.sqrt(np.mean(np.square(doubt.against_tv.array, dtype=np.float64))))
    said += [
        f"{written['filled']}: share of the detail that the prior filled in, {filled:.0%} in all; signed, in the "
        f"volume's unit, in {written['prior-part'].name}",
        f"{written['less-tv']}: the volume less that of total variation; {size:.3g} {unit}".rstrip() + " (rms)",
        f"{written['candidates']}: {len(doubt.candidates)} structures above the intervals, by the prior alone",
        *listing(doubt.candidates, unit),
    ]
    return "\n".join(said)


def _settings(arguments: argparse.Namespace, measurement: Scan) -> tuple[ReconSettings, str]:
    """The settings, and why they are so where the user left the method to us."""
    from ..devices import choose_device
    from ..pace import estimate_of

    given = given_settings(arguments, ReconSettings)
    if arguments.preset or "method" in given:
        return ReconSettings.preset(arguments.preset or task_info(measurement.task).preset, **given), ""
    usual = usual_settings(measurement, metal_hu=given.get("metal_hu", 0.0))
    settings = replace(usual.settings, **given)
    if usual.why:
        seconds = estimate_of(measurement, settings, choose_device(settings.device)).seconds
        usual = instead_of_hours(measurement, usual, seconds)
    return replace(usual.settings, **given), usual.why


def _measured(arguments: argparse.Namespace, monitor: Monitor) -> tuple[Any, Any]:
    """The scan of the file or of thick slices, and no truth; of a volume one that is simulated, and its truth."""
    given, path = given_scan_settings(arguments), arguments.measurement
    if may_hold(path, SCAN):
        from ..io.scans import read_scan

        given.pop("trajectory", None)  # the file of a trajectory
        for name in [*given, *(["task"] if arguments.task else [])]:
            raise InputError(
                f"setting {name} is for the simulated scan of a volume; {path.name} holds a scan, leave it out"
            )
        return read_scan(path, **told(arguments)), None
    from ..io.volumes import read_volume
    from ..preparation.thick_slices import slices_of
    from ..simulation import simulate, truth_for

    volume, task = read_volume(path), arguments.task or SPARSE_VIEW
    if task in SLICE_TASKS:
        return slices_of(volume, task, given), None
    seed = getattr(arguments, "seed", 0)
    measurement = simulate(volume, task=task, seed=seed, monitor=monitor, **given)
    return measurement, truth_for(volume, given.get("coarsen", 1), task=task)
