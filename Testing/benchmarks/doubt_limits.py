"""How narrow intervals are, and how narrow they could be, on the runs that a calibration kept.  Run as a script.

    python Testing/benchmarks/doubt_limits.py FOLDER [MODALITY] [--scans SCAN ...]      a table in Markdown

FOLDER: where ``diffusionmbir calibrate`` wrote, every volume taken for another person.  For each kind of scan, of
people left out of the model: mean half-width of 95 % intervals over that of one constant for each kind of tissue that
knows the true errors, and the correlation by ranks of half-width and error, mean and worst.  Beside the model stand one
constant for each kind of tissue, found as the model's factors are, and who knows the true errors of the 24 voxels
around.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from DiffusionMBIRLib.uncertainty.calibrate import KnownRun, models_of, read_run
from DiffusionMBIRLib.uncertainty.conformal import CLASSES, LEAST_VOXELS, Classes, Covered, scales

SHARE, WINDOW = 0.95, 5


def neighbours(run: KnownRun) -> torch.Tensor:
    """Root mean square of the errors around each voxel, without its own."""
    kernel = torch.ones(1, 1, WINDOW, WINDOW) / (WINDOW**2 - 1)
    kernel[..., WINDOW // 2, WINDOW // 2] = 0
    padded = F.pad(run.error[:, None].square(), [WINDOW // 2] * 4, mode="replicate")
    return F.conv2d(padded, kernel)[:, 0].sqrt() + 1e-4


def judged(runs: Sequence[KnownRun], sizes_of: Callable[[KnownRun], torch.Tensor], classes: Classes) -> str:
    """Width over constant; mean and worst correlation."""
    count = len(classes.names)
    errors, kinds = [run.error.numpy() for run in runs], [run.kinds.numpy() for run in runs]
    sizes = [sizes_of(run).numpy() for run in runs]
    covered = [Covered.of(e, s, k, count) for e, s, k in zip(errors, sizes, kinds, strict=True)]
    factors = np.array(scales(covered, SHARE))
    constants = np.zeros(count)
    for c in range(count):
        mine = [e[k == c] for e, k in zip(errors, kinds, strict=True) if (k == c).sum() >= LEAST_VOXELS]
        needed = [np.quantile(e, SHARE) for e in mine]
        constants[c] = np.mean(needed) if needed else 0.0
    widths = [s * factors[k] for s, k in zip(sizes, kinds, strict=True)]
    ratios = [w.mean() / max(constants[k].mean(), 1e-9) for w, k in zip(widths, kinds, strict=True)]
    ranks = [_spearman(w, e) for w, e in zip(widths, errors, strict=True)]
    return f"{np.mean(ratios):.2f}, {np.mean(ranks):.2f} ({min(ranks):.2f})"


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(part.ravel()[::3])) for part in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="How narrow intervals are and could be.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("modality", nargs="?", default="CT", choices=tuple(CLASSES))
    parser.add_argument("--scans", nargs="*", default=("",), help="labels of scans: only these")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    classes = CLASSES[options.modality]
    kept = sorted(p for scan in options.scans for p in (options.folder / "runs").glob(f"file-*{scan}.npz"))
    runs = [read_run(path, path.name[: len("file-000000")], options.modality) for path in kept]
    _, without = models_of(runs, classes)
    ways: dict[str, Callable[[KnownRun], torch.Tensor]] = {
        "one constant": lambda run: torch.ones_like(run.error),
        "the model": lambda run: without[run.person](run.maps, run.kinds, run.kind.coils, run.kind.amount),
        "true errors around": neighbours,
    }
    print("| scan | people |", " | ".join(ways), "|", flush=True)
    print("|---|---:|" + "---:|" * len(ways))
    for kind in dict.fromkeys(run.kind for run in runs):
        mine = [run for run in runs if run.kind == kind]
        cells = [judged(mine, sizes_of, classes) for sizes_of in ways.values()]
        print(f"| {kind.text} | {len(mine)} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
