"""``diffusionmbir info``: what a file holds, as it was understood, or what this machine has."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..describe import describe_file, describe_machine, text_of
from ..errors import InputError
from ..formats import SCAN, may_hold
from ..monitor import Monitor
from .options import Outcome, add_told, add_told_trajectory, told

if TYPE_CHECKING:
    from ..scans import Measurement

NAME, HELP = "info", "describe a file, or this machine"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        help="volume, DICOM folder, measurement, k-space, projections or prior (default: this machine)",
    )
    parser.add_argument("--picture", type=Path, metavar="PNG", help="of a CT scan: draw source, detector and volume")
    parser.add_argument(
        "--slice",
        type=Path,
        metavar="PNG",
        help="of a CT scan: draw one slice, every way round that the file leaves open",
    )
    add_told(parser)
    add_told_trajectory(parser, file=True)


def run(arguments: argparse.Namespace, monitor: Monitor) -> Outcome:
    """The entries for ``--json``, and the text."""
    path: Path | None = arguments.file
    entries = describe_machine() if path is None else describe_file(path, **told(arguments))
    if arguments.picture:
        entries |= {"picture": str(_picture(path, arguments))}
    if arguments.slice:
        entries |= {"slice": str(_slice(path, arguments))}
    return entries, text_of(entries)


def _picture(path: Path | None, arguments: argparse.Namespace) -> Path:
    from ..scanner_picture import save_scanner_picture

    scan = _ct_scan(path, arguments, "--picture")
    target: Path = arguments.picture
    save_scanner_picture(target, scan.geometry, scan.grid)
    return target


def _slice(path: Path | None, arguments: argparse.Namespace) -> Path:
    from ..slice_picture import save_slice_picture

    target: Path = arguments.slice
    save_slice_picture(target, _ct_scan(path, arguments, "--slice"))
    return target


def _ct_scan(path: Path | None, arguments: argparse.Namespace, option: str) -> Measurement:
    from ..io.scans import read_scan
    from ..scans import Measurement

    scan = read_scan(path, **told(arguments)) if path and may_hold(path, SCAN) else None
    if not isinstance(scan, Measurement):
        raise InputError(f"{option}: {path or 'no file'} is not a CT scan; give one")
    return scan
