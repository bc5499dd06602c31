"""``diffusionmbir calibrate``: intervals that hold, from volumes of people whose truth is known."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..monitor import Monitor
from ..tasks import MODALITIES
from .options import Outcome

NAME, HELP = "calibrate", "make the intervals of a prior from volumes of people"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("volumes", type=Path, nargs="+", help="volumes of at least four people, or folders with them")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the calibration and its runs")
    parser.add_argument("--prior", required=True, help="id or file of the prior")
    parser.add_argument("--modality", choices=MODALITIES, default="CT", help="what the volumes are (default CT)")
    parser.add_argument("--scans", nargs="*", default=(), help="scans of the benchmark (default: the usual ones)")
    parser.add_argument("--slices", type=int, default=2, help="from the middle of each volume (default 2)")
    parser.add_argument("--patient-regex", default="", help="first group = person, in the file's name")
    parser.add_argument("--seen", nargs="*", default=(), help="people whom the prior was trained with: they weigh less")
    parser.add_argument("--device", default="auto", help="where to compute")


def run(arguments: argparse.Namespace, monitor: Monitor) -> Outcome:
    """The file of the calibration, and what it held of people who were left out."""
    from ..training.stacks import find_volumes
    from ..uncertainty.calibrate import calibrate, summary
    from ..uncertainty.table import read_table

    path = calibrate(
        find_volumes(arguments.volumes, "*"),
        arguments.output,
        prior=arguments.prior,
        modality=arguments.modality,
        scans=tuple(arguments.scans),
        slices=arguments.slices,
        patient=arguments.patient_regex,
        seen=tuple(arguments.seen),
        device=arguments.device,
        monitor=monitor,
    )
    rows = summary(read_table(path)[0])
    lines = [
        f"{row['scan']}: {row['people']} people; of one left out {row['held_90']:.1%} lie within the 90 % intervals, "
        f"{row['held_95']:.1%} within those of 95 %"
        for row in rows
    ]
    text = f"{path}: put it beside the prior, into the folder of `diffusionmbir models list`"
    return {"output": str(path), "scans": rows}, "\n".join([*lines, text])
