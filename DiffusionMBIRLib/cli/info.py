"""``diffusionmbir info``: what a file holds, as it was understood, or what this machine has."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..describe import describe_file, describe_machine, text_of
from ..errors import InputError
from ..formats import SCAN, may_hold
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
    parser.add_argument("--picture", type=Path, metavar="PNG", help="of a CT scan: draw source, detector and volume")
    add_told(parser)


def run(arguments: argparse.Namespace, monitor: Monitor) -> Outcome:
    """The entries for ``--json``, and the text."""
    path: Path | None = arguments.file
    entries = describe_machine() if path is None else describe_file(path, **told(arguments))
    if arguments.picture:
        entries |= {"picture": str(_picture(path, arguments))}
    return entries, text_of(entries)


def _picture(path: Path | None, arguments: argparse.Namespace) -> Path:
    from ..io.scans import read_scan
    from ..scanner_picture import save_scanner_picture
    from ..scans import Measurement

    scan = read_scan(path, **told(arguments)) if path and may_hold(path, SCAN) else None
    if not isinstance(scan, Measurement):
        raise InputError(f"--picture: {path or 'no file'} is not a CT scan; give one")
    target: Path = arguments.picture
    save_scanner_picture(target, scan.geometry, scan.grid)
    return target
