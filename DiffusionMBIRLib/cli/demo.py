"""``diffusionmbir demo``: a bundled volume from few data, beside the classical methods."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config import DEMOS
from ..monitor import Monitor
from .options import Outcome, add_device, say

NAME, HELP = "demo", "reconstruct a bundled CT or MRI from few data, beside the classical methods"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, default=Path("demo-output"), help="folder (default demo-output)")
    parser.add_argument("--task", choices=DEMOS, default=DEMOS[0], help="what to reconstruct (default %(default)s)")
    parser.add_argument("--prior", help="installed id or file of the prior (default: the bundled one)")
    add_device(parser)


def run(arguments: argparse.Namespace, monitor: Monitor) -> Outcome:
    """The metrics of all cases, and their table."""
    from ..demo import expected, run_demo
    from ..report import text_table

    if not arguments.quiet:
        say(expected(task=arguments.task, device=arguments.device, prior=arguments.prior), arguments)
    metrics = run_demo(
        arguments.output, task=arguments.task, device=arguments.device, prior=arguments.prior, monitor=monitor
    )
    pictures = ", ".join(sorted(path.name for path in arguments.output.glob("*.png")))
    return metrics, f"{text_table(metrics)}\nIn {arguments.output}: metrics.json, {pictures} and the volumes (.nrrd)."
