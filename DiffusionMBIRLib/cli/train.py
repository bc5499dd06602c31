"""``diffusionmbir train``: a prior, or the network of a supervised baseline."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..describe import lines
from ..errors import InputError
from ..methods import SUPERVISED_METHODS
from ..monitor import Monitor
from ..supervised.about import TASKS_OF
from ..tasks import CT_TASKS, MODALITIES, MR_TASK, task_info
from ..training.settings import TrainSettings
from .options import Outcome, add_device, add_settings, given_settings

NAME, HELP = "train", "train a prior, or a supervised baseline, on folders of volumes"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders", nargs="*", help="folders (or files) with volumes: NRRD, NIfTI, DICOM; none with --shapes 1"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the prior and its state")
    parser.add_argument(
        "--method",
        choices=("diffusion", *SUPERVISED_METHODS),
        default="diffusion",
        help="what to train for: a prior for all diffusion methods (default), or the network of one supervised method",
    )
    parser.add_argument("--id", help="id of the prior (default my-prior, of a supervised network METHOD-TASK)")
    parser.add_argument("--glob", default="*", help="file names to take (default all)")
    parser.add_argument(
        "--patient-regex", help="first group = patient, in the file's name (default: one file, one patient)"
    )
    parser.add_argument("--hold-out", nargs="*", default=(), help="patients to hold out (default: 15 %% of them)")
    parser.add_argument("--modality", default="CT", choices=MODALITIES, help="what the volumes are; MR has no units")
    parser.add_argument(
        "--channels", type=int, default=1, choices=(1, 2), help="2: MR as real and imaginary part (default magnitudes)"
    )
    parser.add_argument("--initial", help="id or file of a prior whose weights, and sizes, to start from")
    parser.add_argument(
        "--share",
        type=_share,
        nargs="+",
        default=(),
        metavar="TEXT=SHARE",
        help="share of the images for volumes with TEXT in their name, so that many of a kind do not swamp the rest",
    )
    parser.add_argument("--widths", type=int, nargs="+", help="channels of each level (default 64 96 128 192)")
    parser.add_argument("--blocks", type=int, help="residual blocks a level (default 2)")
    parser.add_argument(
        "--light-levels",
        type=int,
        help="so many levels, from the finest on, have one block (default 0; 2: a third less time)",
    )
    add_device(parser)
    add_settings(parser, TrainSettings)
    _supervised_options(parser)


def _supervised_options(parser: argparse.ArgumentParser) -> None:
    supervised = parser.add_argument_group("supervised methods, which have other default sizes")
    supervised.add_argument(
        "--task", choices=(*CT_TASKS, MR_TASK), help="what scans to simulate (default: the method's first)"
    )
    supervised.add_argument(
        "--scans", type=int, default=96, help="of CT: blocks of 64 scans of one geometry (%(default)s)"
    )
    supervised.add_argument("--scans-folder", type=Path, help="for scans that several networks of a task share")
    supervised.add_argument("--penalty", type=float, default=0.003, help="weight of lahiri's network in the data step")


def _share(text: str) -> tuple[str, float]:
    name, _, share = text.rpartition("=")
    try:
        return name, float(share if name else "")
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no TEXT=SHARE, such as limb=0.12") from None


def _network(arguments: argparse.Namespace) -> Any:
    """The sizes of the prior's network: those that are given, else of the prior to start from, else the usual ones."""
    from ..models import find, read_card
    from ..priors.compact import CompactConfig

    usual = CompactConfig()
    if arguments.initial:
        usual = CompactConfig.from_dict(read_card(find(arguments.initial)).network)
    given = {name: getattr(arguments, name) for name in ("blocks", "light_levels")}
    given |= {"widths": tuple(arguments.widths) if arguments.widths else None}
    sizes = {name: value for name, value in given.items() if value is not None}
    known = bool(arguments.folders)  # shapes of no scanner have no size
    return replace(usual, image_channels=arguments.channels, knows_pixels=known, **sizes)


def run(arguments: argparse.Namespace, monitor: Monitor) -> Outcome:
    """Where the prior or the network lies, and how well it learned."""
    if arguments.method != "diffusion":
        return _train_supervised(arguments, monitor)
    from ..devices import choose_device
    from ..models import MR_VALUE, ValueScale, read_card
    from ..training.loop import train

    path = train(
        arguments.folders,
        arguments.output,
        settings=TrainSettings(**given_settings(arguments, TrainSettings)),
        glob=arguments.glob,
        patient_regex=arguments.patient_regex,
        hold_out=arguments.hold_out,
        network=_network(arguments),
        model_id=arguments.id or "my-prior",
        value=MR_VALUE if arguments.modality == "MR" else ValueScale(),
        initial=arguments.initial,
        shares=dict(arguments.share),
        device=choose_device(arguments.device),
        monitor=monitor,
    )
    training = read_card(path).training
    entries = {"output": str(path), "images_seen": training["images_seen"], "held_out_loss": training["held_out_loss"]}
    return entries, f"{path}: {lines(entries, skip=('output',))}"


def _train_supervised(arguments: argparse.Namespace, monitor: Monitor) -> Outcome:
    from ..devices import choose_device
    from ..models import read_card
    from ..supervised.networks import SupervisedConfig
    from ..supervised.pairs import PairSettings
    from ..supervised.training import train_supervised

    task = arguments.task or TASKS_OF[arguments.method][0]
    if arguments.initial:
        raise InputError(f"--initial is for diffusion priors only, not for --method {arguments.method}; leave it out")
    if arguments.modality not in ("CT", task_info(task).modality):  # CT is what stands there where nothing is given
        raise InputError(f"--modality {arguments.modality} does not fit --method {arguments.method}; leave it out")
    settings = TrainSettings(**given_settings(arguments, TrainSettings))
    path = train_supervised(
        arguments.folders,
        arguments.output,
        network=SupervisedConfig(
            arguments.method,
            task,
            widths=tuple(arguments.widths or ()),
            blocks=arguments.blocks or 0,
            penalty=arguments.penalty,
        ),
        settings=settings,
        pairs=PairSettings(blocks=arguments.scans, size=settings.size, seed=settings.seed),
        pairs_folder=arguments.scans_folder,
        glob=arguments.glob,
        patient_regex=arguments.patient_regex,
        hold_out=arguments.hold_out,
        model_id=arguments.id or "",
        device=choose_device(arguments.device),
        monitor=monitor,
    )
    training = read_card(path).training
    told = ("images_seen", "error_left_of_fbp", "error_left_of_zero_filled")
    entries = {"output": str(path), **{k: training[k] for k in told if k in training}}
    return entries, f"{path}: {lines(entries, skip=('output',))}"
