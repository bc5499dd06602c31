"""What the verbs of the command line share: options from the tables of settings, and the form of an answer."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from ..config import DEVICES
from ..engines import LOCAL, engine_of
from ..errors import InputError
from ..io.trajectory_scan import ToldTrajectory
from ..io.trajectory_units import AXES, UNITS
from ..simulation.settings import SCANS
from ..tasks import SLICES, TASKS, task_info
from .terminal import tell

TOLD_TRAJECTORY = tuple(item.name for item in fields(ToldTrajectory))
Outcome = tuple[dict[str, Any], str]  # what --json prints, and what is printed otherwise


def add_settings(parser: Any, table: type, open_to: Sequence[str] = ()) -> None:
    """One option for each field of a table of settings; an option that is not given stays out of the namespace.

    parser: an argparse parser or group.  open_to: settings that take other words than their choices.  A setting that is
    on or off has the option and its opposite, --no-NAME.
    """
    for item in fields(table):
        name, text = item.metadata.get("option") or item.name.replace("_", "-"), _help(item)
        given: dict[str, Any] = {"dest": item.name, "default": argparse.SUPPRESS}
        if isinstance(item.default, bool):
            parser.add_argument(f"--{name}", action="store_true", help=text, **given)
            parser.add_argument(f"--no-{name}", action="store_false", help=f"the opposite of --{name}", **given)
        else:
            choices = item.metadata["choices"]
            given |= {"choices": choices} if choices and item.name not in open_to else {"metavar": name.upper()}
            parser.add_argument(f"--{name}", type=type(item.default), help=text, **given)


def _help(item: Field[Any]) -> str:
    about = item.metadata
    unit = f" {about['unit']}" if about["unit"] else ""
    limits = f", {about['range'][0]:g} to {about['range'][1]:g}{unit}" if about["range"] else unit
    usual = [(task, task_info(task).usual.get(item.name, item.default)) for task in TASKS]
    others = "".join(f", of {task} {value}" for task, value in usual if value != item.default)
    return f"{about['help']} (default {item.default}{others}{limits})".replace("%", "%%")


def given_settings(arguments: argparse.Namespace, table: type) -> dict[str, Any]:
    """The settings that the user gave."""
    return {f.name: getattr(arguments, f.name) for f in fields(table) if hasattr(arguments, f.name)}


def add_scan_settings(parser: argparse.ArgumentParser, open_to: Sequence[str] = ()) -> None:
    """The options of a simulated scan, a group for each modality."""
    for modality, table in SCANS.items():
        title = "thick slices" if modality == SLICES else f"scan of a volume, {modality}"
        add_settings(parser.add_argument_group(title), table, open_to)


def given_scan_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings of a simulated scan that the user gave, of whatever modality."""
    return {name: value for table in SCANS.values() for name, value in given_settings(arguments, table).items()}


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option --device where no table of settings brings it."""
    parser.add_argument("--device", default="auto", help=DEVICES)


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Where the job is computed."""
    parser.add_argument("--engine", default=LOCAL, help="local (default), ssh:HOST, slurm or slurm:HOST")
    parser.add_argument("--sbatch", default="", help="of slurm: options of sbatch, as '--partition=gpu --gres=gpu:1'")


def engine_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Engine and options as arguments of ``JobFolder.create``.  Raises InputError."""
    try:
        options = shlex.split(arguments.sbatch)
    except ValueError as error:
        raise InputError(f"--sbatch: {error}") from None
    engine_of(arguments.engine, options)
    return {"engine": arguments.engine, "options": options}


def add_told(parser: argparse.ArgumentParser) -> None:
    """The options for what projections do not tell."""
    parser.add_argument("--pixel-mm", type=float, help="of projections: size of the detector's pixels in mm")
    parser.add_argument("--axis", type=float, help="of projections: column of the rotation axis, 0 is the first")
    parser.add_argument("--weights", type=Path, help="of a CT scan: array (.npy) of how far each ray is trusted")
    parser.add_argument("--prepare", help="of projections: steps to switch, such as 'rings=off, water=on'")


def add_told_trajectory(parser: argparse.ArgumentParser, *, file: bool) -> None:
    """The options for what k-space along a trajectory does not tell; file: also --trajectory FILE, which elsewhere is a
    setting of simulated scans.
    """
    group = parser.add_argument_group("k-space along a trajectory")
    if file:
        group.add_argument("--trajectory", help="file of the trajectory of an array (.npy, .mat, .cfl, .seq)")
    group.add_argument("--trajectory-unit", choices=UNITS, help="unit of the trajectory (default: by its largest |k|)")
    group.add_argument(
        "--trajectory-axes",
        choices=AXES,
        help="its two coordinates (default xy): yx where the image is transposed, a minus where it is mirrored",
    )
    group.add_argument("--fov-mm", type=float, help="field of view of the image")
    group.add_argument("--matrix", type=int, help="pixels of the image along rows and columns")
    group.add_argument("--delays", help="of the gradients in samples: auto (default), off or SX,SY,SXY")
    group.add_argument("--shift-mm", help="X,Y: shift the image in its plane, where the scanner did not")
    group.add_argument("--angles", help="of the spokes of Siemens raw data: golden, tiny-N, uniform or degrees a spoke")
    group.add_argument("--sequence", help="Pulseq file (.seq) of Siemens raw data")


def told(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the user gave of them, as keyword arguments of ``read``."""
    given = {name: getattr(arguments, name) for name in ("pixel_mm", "axis", "prepare", "weights")}
    if hasattr(arguments, "trajectory_unit"):
        given |= {name: getattr(arguments, name, None) for name in TOLD_TRAJECTORY}
    return {name: value for name, value in given.items() if value is not None}


def say(line: str, arguments: argparse.Namespace) -> None:
    """Tell something on stderr, unless --quiet."""
    if not arguments.quiet:
        tell(line)


def planes_text(metrics: dict[str, Any], unit: str) -> str:
    """PSNR and SSIM of the three planes, a line each."""
    from ..metrics import PLANES
    from ..report import score_text

    rows = [f"{plane:<9} {score_text(metrics[plane])}" for plane in PLANES]
    remarks = [f"remarks: {remark}" for remark in metrics.get("remarks", [])]
    return "\n".join([*rows, f"PSNR in dB / SSIM; data range {metrics['data_range']:.0f} {unit}".rstrip(), *remarks])
