"""``diffusionmbir info``: what a file holds, as it was understood, or what this machine has."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..describe import describe_file, describe_machine, text_of
from ..monitor import Monitor
from .options import Outcome, add_told, told

NAME, HELP = "info", "describe a file, or this machine"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        help="volume, DICOM folder, measurement, k-space, projections or prior (default: this machine)",
    )
    add_told(parser)


def run(arguments: argparse.Namespace, monitor: Monitor) -> Outcome:
    """The entries for ``--json``, and the text."""
    path: Path | None = arguments.file
    entries = describe_machine() if path is None else describe_file(path, **told(arguments))
    return entries, text_of(entries)
