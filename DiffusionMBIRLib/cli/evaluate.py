"""``diffusionmbir evaluate``: how good a reconstruction is."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..monitor import Monitor
from .options import Outcome, planes_text

NAME, HELP = "evaluate", "PSNR and SSIM of a reconstruction in three planes"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recon", type=Path, help="reconstructed volume")
    parser.add_argument("reference", type=Path, help="volume to judge it by; may be finer in-plane")
    parser.add_argument("--data-range", type=float, help="in HU (default: maximum - minimum of the reference)")


def run(arguments: argparse.Namespace, monitor: Monitor) -> Outcome:
    """PSNR and SSIM of each plane."""
    from ..io.volumes import read_volume
    from ..metrics import evaluate

    recon = read_volume(arguments.recon)
    metrics = evaluate(recon, read_volume(arguments.reference), data_range=arguments.data_range)
    return metrics, planes_text(metrics, recon.unit)
