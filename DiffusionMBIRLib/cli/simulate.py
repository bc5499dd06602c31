"""``diffusionmbir simulate``: a measurement from a volume."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError
from ..monitor import Monitor
from ..scans.storage import STORAGES
from ..tasks import SPARSE_VIEW, TASKS
from .options import Outcome, add_scan_settings, given_scan_settings

NAME, HELP = "simulate", "make a measurement from a volume or a DICOM folder"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("volume", type=Path, help="volume file (NRRD, NIfTI, MetaImage) or DICOM folder; of CT in HU")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="measurement file to write (.h5); thick slices also as a volume (.nrrd)",
    )
    parser.add_argument("--task", choices=TASKS, default=SPARSE_VIEW, help="default %(default)s")
    parser.add_argument(
        "--storage",
        choices=STORAGES,
        default=STORAGES[0],
        help="type of the measurement's numbers in the file; float16 halves it, and says how far that is off",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise, and of MRI's mask and phase")
    add_scan_settings(parser)


def run(arguments: argparse.Namespace, monitor: Monitor) -> Outcome:
    """What was written, as ``info`` describes it."""
    from ..describe import describe_scan, text_of
    from ..formats import SCAN, may_hold, write
    from ..io.volumes import read_volume
    from ..preparation.thick_slices import task_of
    from ..scans import ThickSlices, in_float16
    from ..simulation import simulate

    halves = arguments.storage == "float16"
    if halves and not may_hold(arguments.output, SCAN):
        raise InputError(f"{arguments.output}: a volume has no storage float16; name a scan file (.h5)")
    volume = read_volume(arguments.volume)
    measurement = simulate(
        volume,
        task=task_of(volume, arguments.task)[0],
        seed=arguments.seed,
        monitor=monitor,
        **given_scan_settings(arguments),
    )
    if halves:
        measurement = in_float16(measurement)
    if isinstance(measurement, ThickSlices) and not may_hold(arguments.output, SCAN):
        write(measurement.thick(), arguments.output)
    else:
        write(measurement, arguments.output)
    entries = describe_scan(measurement)
    return {"output": str(arguments.output), **entries}, f"{arguments.output}: {text_of(entries)}"
