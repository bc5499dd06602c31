"""The command line ``diffusionmbir``: options from the tables of settings, results on stdout, progress on stderr.

Exit codes: 0 done, 1 failure (memory, disk, cancelled), 2 input that cannot be used.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from . import cli_benchmark, cli_info, cli_jobs, cli_models
from .cli_info import describe_scan, lines
from .config import DEMOS, DEVICES, MASKS, ReconSettings
from .errors import Cancelled, EngineError, InputError
from .methods import SUPERVISED_METHODS
from .monitor import Console, Monitor, Silent
from .provenance import NOTICE
from .tasks import CT_TASKS
from .version import __version__

Handler = Callable[[argparse.Namespace, Monitor], "tuple[dict[str, Any], str]"]  # what --json prints, what else


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    monitor = Silent() if arguments.quiet else Console()
    try:
        entries, text = arguments.handler(arguments, monitor)
    except InputError as error:
        return _fail(error, arguments, code=2)
    except (EngineError, OSError) as error:
        return _fail(error, arguments, code=1)
    except (Cancelled, KeyboardInterrupt):
        return _fail("cancelled", arguments, code=1)
    except (MemoryError, RuntimeError) as error:
        from .priors.base import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        return _fail("memory ran out; use a smaller volume, fewer views or another device", arguments, code=1)
    sys.stdout.write((json.dumps(entries) if arguments.json else text) + "\n")
    return 0


def _fail(reason: object, arguments: argparse.Namespace, *, code: int) -> int:
    line = " ".join(str(reason).split())
    if arguments.json:
        sys.stdout.write(json.dumps({"error": line, "exit_code": code}) + "\n")
    sys.stderr.write(f"diffusionmbir: {line}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="diffusionmbir", description=f"3D CT reconstruction with diffusion priors. {NOTICE}"
    )
    parser.add_argument("--version", action="version", version=f"diffusionmbir {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, help_text, handler, add in (
        ("demo", "reconstruct a bundled CT or MRI from few data, beside the classical methods", _demo, _demo_options),
        ("simulate", "make a measurement from a volume or a DICOM folder", _simulate, _simulate_options),
        ("reconstruct", "reconstruct a measurement", _reconstruct, _reconstruct_options),
        ("evaluate", "PSNR and SSIM of a reconstruction in three planes", _evaluate, _evaluate_options),
        ("job", "reconstruct in a job that can be resumed; list and clean up jobs", cli_jobs.run, cli_jobs.add_options),
        ("benchmark", "the paper's tables: tasks x methods x planes", cli_benchmark.run, cli_benchmark.add_options),
        ("train", "train a prior, or a supervised baseline, on folders of volumes", _train, _train_options),
        ("models", "list, show, import, remove or verify priors", cli_models.run, cli_models.add_options),
        ("info", "describe a file, or this machine", cli_info.run, cli_info.add_options),
    ):
        command = commands.add_parser(name, help=help_text, description=f"{help_text[:1].upper()}{help_text[1:]}.")
        add(command)
        command.add_argument("--json", action="store_true", help="print one JSON object on stdout")
        command.add_argument("--quiet", action="store_true", help="no progress bar")
        command.set_defaults(handler=handler)
    return parser


def add_settings(parser: argparse.ArgumentParser, table: type, *, skip: Sequence[str] = ()) -> None:
    """One option for each field of a table of settings; an option that is not given stays out of the namespace."""
    for item in fields(table):
        if item.name in skip:
            continue
        about = item.metadata
        unit = f" {about['unit']}" if about["unit"] else ""
        limits = f", {about['range'][0]:g} to {about['range'][1]:g}{unit}" if about["range"] else unit
        text = f"{about['help']} (default {item.default}{limits})".replace("%", "%%")
        option = f"--{item.name.replace('_', '-')}"
        if isinstance(item.default, bool):
            parser.add_argument(option, action="store_true", default=argparse.SUPPRESS, help=text)
        else:
            kind = type(item.default)
            choices = about["choices"] or None
            parser.add_argument(option, type=kind, choices=choices, default=argparse.SUPPRESS, help=text)


def given_settings(arguments: argparse.Namespace, table: type) -> dict[str, Any]:
    """The settings that the user gave."""
    return {f.name: getattr(arguments, f.name) for f in fields(table) if hasattr(arguments, f.name)}


# --- demo


def _demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, default=Path("demo-output"), help="folder (default demo-output)")
    parser.add_argument("--task", choices=DEMOS, default=DEMOS[0], help="what to reconstruct (default %(default)s)")
    parser.add_argument("--prior", help="installed id or file of the prior (default: the bundled one)")
    parser.add_argument("--device", default="auto", help=DEVICES)


def _demo(arguments: argparse.Namespace, monitor: Monitor) -> tuple[dict[str, Any], str]:
    from .demo import run_demo
    from .report import text_table

    metrics = run_demo(
        arguments.output, task=arguments.task, device=arguments.device, prior=arguments.prior, monitor=monitor
    )
    pictures = ", ".join(sorted(path.name for path in arguments.output.glob("*.png")))
    return metrics, f"{text_table(metrics)}\nIn {arguments.output}: metrics.json, {pictures} and the volumes (.nrrd)."


# --- simulate


def _simulate_options(parser: argparse.ArgumentParser) -> None:
    from .tasks import TASKS
    from .volume import MU_WATER_PER_MM

    parser.add_argument("volume", type=Path, help="volume file (NRRD, NIfTI, MetaImage) or DICOM folder; of CT in HU")
    parser.add_argument("-o", "--output", type=Path, required=True, help="measurement file to write (.h5)")
    parser.add_argument("--task", choices=TASKS, default=TASKS[0], help=f"default {TASKS[0]}")
    parser.add_argument("--views", type=int, help="number of views (default 8, limited angle 90)")
    parser.add_argument("--angle-range", type=float, help="degrees (default 180, limited angle 90)")
    parser.add_argument("--coarsen", type=int, default=1, help="reconstruct on in-plane means of N x N voxels")
    parser.add_argument("--photons", type=float, default=0.0, help="incident photons a ray; 0: no noise (default)")
    parser.add_argument("--electronic-noise", type=float, default=0.0, help="standard deviation in photons")
    parser.add_argument("--mu-water", type=float, default=MU_WATER_PER_MM, help="1/mm (default %(default)s)")
    parser.add_argument("--acceleration", type=float, help="MRI: positions of k-space over sampled ones (default 2)")
    parser.add_argument("--acs", type=float, help="MRI: share of lines in the middle, all sampled (default 0.15)")
    parser.add_argument("--mask", choices=MASKS, help=f"MRI: which of the others are sampled (default {MASKS[0]})")
    parser.add_argument("--coils", type=int, help="MRI: simulated receivers (default 1)")
    parser.add_argument("--phase", action="store_true", default=None, help="MRI: give the volume a smooth random phase")
    parser.add_argument(
        "--noise", type=float, help="MRI: standard deviation in multiples of the volume's 99.5th percentile (default 0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise, and of MRI's mask and phase")


def _simulate(arguments: argparse.Namespace, monitor: Monitor) -> tuple[dict[str, Any], str]:
    from .io.measurements import write_measurement
    from .io.volumes import read_volume
    from .simulation import simulate

    measurement = simulate(
        read_volume(arguments.volume),
        task=arguments.task,
        views=arguments.views,
        angle_range_deg=arguments.angle_range,
        coarsen=arguments.coarsen,
        photons=arguments.photons,
        electronic_noise=arguments.electronic_noise,
        mu_water_per_mm=arguments.mu_water,
        acceleration=arguments.acceleration,
        acs=arguments.acs,
        mask=arguments.mask,
        coils=arguments.coils,
        phase=arguments.phase,
        noise=arguments.noise,
        seed=arguments.seed,
        monitor=monitor,
    )
    write_measurement(measurement, arguments.output)
    entries = describe_scan(measurement)
    return {"output": str(arguments.output), **entries}, f"{arguments.output}: {lines(entries)}"


# --- reconstruct


def _reconstruct_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("measurement", type=Path, help="measurement file (.h5)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="volume to write (.nrrd, .nii.gz, .mha)")
    parser.add_argument("--reference", type=Path, help="volume to judge the result by")
    parser.add_argument("--preset", help="name of a preset (default: the one of the measurement's task)")
    add_settings(parser, ReconSettings)


def _reconstruct(arguments: argparse.Namespace, monitor: Monitor) -> tuple[dict[str, Any], str]:
    from .io.measurements import read_measurement
    from .io.volumes import read_volume, require_writable
    from .metrics import evaluate, uncertainty, uncertainty_text
    from .reconstruction import preset_for, reconstruct

    measurement = read_measurement(arguments.measurement)
    preset = ReconSettings.preset(arguments.preset or preset_for(measurement.task))
    settings = replace(preset, **given_settings(arguments, ReconSettings))
    reference = read_volume(arguments.reference) if arguments.reference else None
    require_writable(arguments.output, bytes_needed=4 * measurement.grid.voxels)
    result = reconstruct(measurement, settings=settings, monitor=monitor)
    result.volume.save(arguments.output)
    entries: dict[str, Any] = {"output": str(arguments.output), "method": result.method, "nfe": result.nfe}
    entries |= {"residual": result.residual, "seconds": round(result.seconds, 3)}
    entries |= {key: result.provenance[key] for key in ("device", "precision")}
    text = f"{arguments.output}: {lines(entries, skip=('output',))}"
    if result.deviation is not None:
        beside = _beside(arguments.output, "-deviation")
        result.deviation.save(beside)
        entries["deviation"] = str(beside)
        text += f"\n{beside}: standard deviation of {settings.samples} samples"
    if reference is not None:
        entries["metrics"] = evaluate(result.volume, reference)
        text += "\n" + _planes(entries["metrics"], result.volume.unit)
        if result.deviation is not None:
            entries["uncertainty"] = uncertainty(result.volume, result.deviation, reference, samples=settings.samples)
            text += "\n" + uncertainty_text(entries["uncertainty"])
    return entries, f"{text}\n{NOTICE}"


def _beside(path: Path, mark: str) -> Path:
    """The file's name with a mark before its suffixes."""
    stem = path.name.split(".")[0]
    return path.with_name(stem + mark + path.name[len(stem) :])


# --- evaluate


def _evaluate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recon", type=Path, help="reconstructed volume")
    parser.add_argument("reference", type=Path, help="volume to judge it by; may be finer in-plane")
    parser.add_argument("--data-range", type=float, help="in HU (default: maximum - minimum of the reference)")


def _evaluate(arguments: argparse.Namespace, monitor: Monitor) -> tuple[dict[str, Any], str]:
    from .io.volumes import read_volume
    from .metrics import evaluate

    recon = read_volume(arguments.recon)
    metrics = evaluate(recon, read_volume(arguments.reference), data_range=arguments.data_range)
    return metrics, _planes(metrics, recon.unit)


def _planes(metrics: dict[str, Any], unit: str) -> str:
    from .metrics import PLANES
    from .report import score_text

    rows = [f"{plane:<9} {score_text(metrics[plane])}" for plane in PLANES]
    return "\n".join([*rows, f"PSNR in dB / SSIM; data range {metrics['data_range']:.0f} {unit}".rstrip()])


# --- train


def _train_options(parser: argparse.ArgumentParser) -> None:
    from .training.settings import TrainSettings

    parser.add_argument("folders", nargs="+", help="folders (or files) with volumes: NRRD, NIfTI, DICOM")
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
    parser.add_argument("--modality", default="CT", choices=("CT", "MR"), help="what the volumes are; MR has no units")
    parser.add_argument(
        "--channels", type=int, default=1, choices=(1, 2), help="2: MR as real and imaginary part (default magnitudes)"
    )
    parser.add_argument("--initial", help="id or file of a prior whose weights to start from")
    parser.add_argument("--widths", type=int, nargs="+", help="channels of each level (default 64 96 128 192)")
    parser.add_argument("--blocks", type=int, help="residual blocks a level (default 2)")
    parser.add_argument("--device", default="auto", help=DEVICES)
    add_settings(parser, TrainSettings)
    supervised = parser.add_argument_group("supervised methods, which have other default sizes")
    supervised.add_argument("--task", choices=CT_TASKS, help="what scans to simulate (default: the method's first)")
    supervised.add_argument("--scans", type=int, default=96, help="blocks of 64 scans of one geometry (%(default)s)")
    supervised.add_argument("--scans-folder", type=Path, help="for scans that several networks of a task share")
    supervised.add_argument("--penalty", type=float, default=0.003, help="weight of lahiri's network in the data step")


def _train(arguments: argparse.Namespace, monitor: Monitor) -> tuple[dict[str, Any], str]:
    if arguments.method != "diffusion":
        return _train_supervised(arguments, monitor)
    from .devices import choose_device
    from .models import MR_VALUE, ValueScale, read_card
    from .priors.compact import CompactConfig
    from .training.loop import train
    from .training.settings import TrainSettings

    path = train(
        arguments.folders,
        arguments.output,
        settings=TrainSettings(**given_settings(arguments, TrainSettings)),
        glob=arguments.glob,
        patient_regex=arguments.patient_regex,
        hold_out=arguments.hold_out,
        network=CompactConfig(
            arguments.channels,
            tuple(arguments.widths or CompactConfig.widths),
            CompactConfig.blocks if arguments.blocks is None else arguments.blocks,
        ),
        model_id=arguments.id or "my-prior",
        value=MR_VALUE if arguments.modality == "MR" else ValueScale(),
        initial=arguments.initial,
        device=choose_device(arguments.device),
        monitor=monitor,
    )
    training = read_card(path).training
    entries = {"output": str(path), "images_seen": training["images_seen"], "held_out_loss": training["held_out_loss"]}
    return entries, f"{path}: {lines(entries, skip=('output',))}"


def _train_supervised(arguments: argparse.Namespace, monitor: Monitor) -> tuple[dict[str, Any], str]:
    from .devices import choose_device
    from .models import read_card
    from .supervised.about import TASKS_OF
    from .supervised.networks import SupervisedConfig
    from .supervised.pairs import PairSettings
    from .supervised.training import train_supervised
    from .training.settings import TrainSettings

    if arguments.modality != "CT" or arguments.initial:
        wrong = "--initial" if arguments.initial else "--modality MR"
        raise InputError(f"{wrong} is for diffusion priors only, not for --method {arguments.method}; leave it out")
    settings = TrainSettings(**given_settings(arguments, TrainSettings))
    path = train_supervised(
        arguments.folders,
        arguments.output,
        network=SupervisedConfig(
            arguments.method,
            arguments.task or TASKS_OF[arguments.method][0],
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
    entries = {"output": str(path), **{k: training[k] for k in ("images_seen", "error_left_of_fbp")}}
    return entries, f"{path}: {lines(entries, skip=('output',))}"
