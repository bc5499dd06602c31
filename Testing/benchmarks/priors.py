"""What designs of the compact network cost, how soon they learn, and how well priors do on volumes never seen.

    python Testing/benchmarks/priors.py designs [--train SECONDS --data FOLDER --hold-out PATIENT ...] [--output CSV]
    python Testing/benchmarks/priors.py losses PRIOR ... --volumes FILE ... [--output CSV]
    python Testing/benchmarks/priors.py memory PRIOR ... --train FILE ... --volumes FILE ... [--drawn FOLDER]

Designs are timed on one thread in float32, by processor time, which other work on the machine changes least; all in
turns, the least of the runs counting.  With --train each also learns for so many processor seconds, from the same
images in the same order.  ``memory`` asks whether samples of a prior repeat its training slices;
--volumes are of people never seen, who say how near people are to each other.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from DiffusionMBIRLib.devices import arithmetic, choose_precision, precision_name
from DiffusionMBIRLib.models import MR_VALUE, ValueScale, find, read_card, sha256
from DiffusionMBIRLib.monitor import Silent
from DiffusionMBIRLib.priors.checkpoints import load_prior
from DiffusionMBIRLib.priors.compact import CompactConfig, CompactUNet
from DiffusionMBIRLib.training.base import Losses, mean_loss, seeded
from DiffusionMBIRLib.training.held_out import HeldOut, edm_losses
from DiffusionMBIRLib.training.memorisation import LIKE_PIXELS, check_patches
from DiffusionMBIRLib.training.samples import draw_samples, save_sample_grid
from DiffusionMBIRLib.training.settings import TrainSettings
from DiffusionMBIRLib.training.slices import NoisySteps, SliceSampler
from DiffusionMBIRLib.training.stacks import Stack, load_stacks, read_stacks, split_by_patient

SIGMA_DATA = 0.251  # of CT
DETAIL = 0.1  # sigma up to which a prior makes detail
CPU = torch.device("cpu")
DESIGNS = {
    "ct-compact-v1": CompactConfig(),
    "one block on top": CompactConfig(light_levels=1),
    "one block on the two top levels": CompactConfig(light_levels=2),
    "32 channels on top, one block": CompactConfig(widths=(32, 96, 128, 192), light_levels=1),
    "48 channels on top, one block": CompactConfig(widths=(48, 96, 128, 192), light_levels=1),
    "4 x 4 stem": CompactConfig(widths=(128, 192, 256), stem=4),
    "4 x 4 stem, narrow": CompactConfig(widths=(96, 160, 224), stem=4),
    "4 x 4 stem, one block on top": CompactConfig(widths=(128, 192, 256), stem=4, light_levels=1),
}


def spent(call: Any) -> float:
    """Processor seconds of a call."""
    started = time.process_time()
    call()
    return time.process_time() - started


def costs(runs: int, size: int = 128) -> dict[str, dict[str, Any]]:
    """Milliseconds of processor time an image, of denoising and of a training step, for each design."""
    networks = {name: seeded(lambda c=c: CompactUNet(c), 0) for name, c in DESIGNS.items()}  # type: ignore[misc]
    x, level = torch.randn(4, 1, size, size), torch.zeros(4)
    denoising: dict[str, list[float]] = {name: [] for name in networks}
    training: dict[str, list[float]] = {name: [] for name in networks}
    for run in range(runs + 1):  # the first one warms up
        for name, network in networks.items():
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

            def denoise(network: nn.Module = network) -> None:
                with torch.inference_mode():
                    network(x, level[:1])

            def learn(network: nn.Module = network) -> None:
                network(x, level).square().mean().backward()

            if run:
                denoising[name].append(spent(denoise))
                training[name].append(spent(learn))
            else:
                denoise()
                learn()
    return {
        name: {
            "parameters_million": round(sum(p.numel() for p in network.parameters()) / 1e6, 2),
            "denoise_ms": round(1e3 * min(denoising[name]) / len(x), 1),
            "train_ms": round(1e3 * min(training[name]) / len(x), 1),
        }
        for name, network in networks.items()
    }


def learnt(config: CompactConfig, steps: NoisySteps, held_out: HeldOut, seconds: float) -> dict[str, Any]:
    """What a design has learnt after so many processor seconds of training steps: images seen, held-out loss, and that
    of the levels that make detail.  The rate falls to zero in the last part of the time.
    """
    precision = choose_precision("auto", CPU)
    network = seeded(lambda: CompactUNet(config), 0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = seeded(lambda: CompactUNet(config), 0)
    optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.98), fused=True)
    settings, used, seen = steps.settings, 0.0, 0
    while used < seconds:
        started = time.process_time()
        clean, sigma, noise, _ = steps[seen // settings.batch]
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(seen) * min(1.0, (1 - used / seconds) / settings.decay_fraction)
        optimizer.zero_grad()
        with arithmetic(CPU, precision):
            loss = edm_losses(network, clean, sigma, noise, SIGMA_DATA).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        seen += settings.batch
        decay = min(0.99, seen / (seen + 9 * settings.batch))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.parameters()), list(network.parameters()), 1 - decay)
        used += time.process_time() - started
    losses = held_out.losses(ema, SIGMA_DATA, told=False, device=CPU, precision=precision)
    detail = [loss for sigma, loss in losses["per_sigma"].items() if float(sigma) <= DETAIL]
    of_detail = {"held_out_detail": round(sum(detail) / len(detail), 4), "precision": precision_name(precision)}
    return {"seconds": round(used), "images": seen, "held_out": round(mean_loss(losses), 4)} | of_detail


def designs(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each design."""
    rows = {name: {"design": name, **measured} for name, measured in costs(arguments.runs).items()}
    if arguments.train:
        pattern = arguments.patient_regex
        stacks = read_stacks([arguments.data], arguments.glob, pattern, ValueScale(), Silent())
        train, rest = split_by_patient(stacks, arguments.hold_out, 0.15)
        settings = TrainSettings(images=10**6, warmup_images=800, decay_fraction=0.3)
        steps = NoisySteps(SliceSampler(train, size=128, value=ValueScale()), settings, 32)
        held_out = HeldOut.of(rest, size=128, value=ValueScale(), count=16)
        for name in arguments.only or DESIGNS:
            config = DESIGNS[name]
            rows[name] |= learnt(config, steps, held_out, arguments.train)
            print(rows[name], file=sys.stderr, flush=True)
    return list(rows.values())


def losses(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each prior and table: held-out loss for each noise level, for each octave of pixels, and the mean."""
    rows = []
    for chosen in arguments.priors:
        path = find(chosen)
        card = read_card(path)
        value = MR_VALUE if card.modality == "MR" else ValueScale()
        stacks = [stack for file in arguments.volumes for stack in load_stacks(file, None, value)]
        held_out = HeldOut.of(stacks, size=arguments.size, value=value, count=arguments.count)
        prior = load_prior(path, precision=torch.float32)
        told = bool(card.network.get("knows_pixels"))
        found = held_out.losses(prior.network, card.sigma_data, told=told, device=CPU, precision=torch.float32)
        rows.append({"prior": f"{card.id} {sha256(path)[:12]}", "mean": round(mean_loss(found), 4), **_flat(found)})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def memory(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each prior: how far patches of its samples lie from the nearest training patch."""
    rows = []
    for chosen in arguments.priors:
        card = read_card(find(chosen))
        value = MR_VALUE if card.modality == "MR" else ValueScale()
        train, unseen = (
            [stack for file in files for stack in load_stacks(file, None, value)]
            for files in (arguments.train, arguments.volumes)
        )
        held_out = HeldOut.of(unseen, size=arguments.size, value=value, count=arguments.count)
        pixel_mm = float(held_out.pixel_mm.max())
        windows = held_out.images[(held_out.pixel_mm / pixel_mm).log().abs() < math.log(LIKE_PIXELS)]
        prior = load_prior(find(chosen), precision=torch.float32)
        told = pixel_mm if card.network.get("knows_pixels") else 0.0
        high = card.sigma_max
        samples = draw_samples(prior.network, card.sigma_data, high, arguments.size, CPU, torch.float32, pixel_mm=told)
        if arguments.drawn:
            arguments.drawn.mkdir(parents=True, exist_ok=True)
            save_sample_grid(samples, arguments.drawn / f"{card.id}.png")
        rows.append({"prior": card.id, "of": "samples", **_repeats(samples, windows, train, pixel_mm)})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def _repeats(images: torch.Tensor, unseen: torch.Tensor, train: list[Stack], pixel_mm: float) -> dict[str, Any]:
    found = check_patches(images, unseen, train, pixel_mm)
    if found is None:
        return {"pixel_mm": round(pixel_mm, 3), "images": len(images), "empty": 1.0}
    distances = {name: round(value, 4) for name, value in asdict(found).items()}
    return {"pixel_mm": round(pixel_mm, 3), "images": len(images), **distances, "ratio": round(found.ratio, 3)}


def _flat(found: Losses) -> dict[str, float]:
    names = {"per_sigma": "sigma", "per_pixel_mm": "mm"}
    return {f"{names[table]} {key}": value for table, entries in found.items() for key, value in entries.items()}


def write(rows: Iterable[Mapping[str, Any]], output: Path | None) -> None:
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with output.open("w", newline="", encoding="utf-8") if output else sys.stdout as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run in (("designs", designs), ("losses", losses), ("memory", memory)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--output", type=Path, help="CSV file; by default it is printed")
    design, loss, repeats = (commands.choices[name] for name in ("designs", "losses", "memory"))
    design.add_argument("--runs", type=int, default=5)
    design.add_argument("--train", type=float, default=0.0, help="processor seconds that each design learns for")
    design.add_argument("--only", nargs="*", choices=list(DESIGNS), help="designs that learn (default: all)")
    design.add_argument("--data", help="folder with CT volumes")
    design.add_argument("--glob", default="*")
    design.add_argument("--patient-regex")
    design.add_argument("--hold-out", nargs="*", default=())
    for command in (loss, repeats):
        command.add_argument("priors", nargs="+", help="ids or files")
        command.add_argument("--volumes", type=Path, nargs="+", required=True)
        command.add_argument("--size", type=int, default=128, help="side of the windows")
        command.add_argument("--count", type=int, default=48, help="windows")
    repeats.add_argument("--train", type=Path, nargs="+", required=True, help="what the prior was trained on")
    repeats.add_argument("--drawn", type=Path, help="folder for a picture of the samples")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    write(arguments.run(arguments), arguments.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
