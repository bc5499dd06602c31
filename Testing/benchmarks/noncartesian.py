"""Judge reconstructions of radial and spiral scans of known volumes.  Run as a script.

    python Testing/benchmarks/noncartesian.py judged VOLUMES [CASES]  rows of judged.csv that are not there yet
    python Testing/benchmarks/noncartesian.py tuning VOLUMES [CASES]  rows of tuning.csv, of people who are not judged
    python Testing/benchmarks/noncartesian.py table                   judged.csv as a table in Markdown
    python Testing/benchmarks/noncartesian.py speed                   A^H A against a Cartesian pair of transforms

VOLUMES holds test/ and train/.  Scans have 8 coils, a phase and noise of 0.5 %, 12 slices of 192 x 192 pixels, 6 to
tune; they are computed by the definition of the transform to 1e-9 (``exact_samples``), with other operators than the
reconstruction's.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.geometry.paths import radial, spoke_angles
from DiffusionMBIRLib.io.volumes import read_volume
from DiffusionMBIRLib.metrics import PLANES, evaluate
from DiffusionMBIRLib.operators.toeplitz import Toeplitz, point_spread
from DiffusionMBIRLib.problems import trajectory
from DiffusionMBIRLib.reconstruction import reconstruct
from DiffusionMBIRLib.scans import TrajectoryKSpace
from DiffusionMBIRLib.simulation import simulate, truth_for
from DiffusionMBIRLib.simulation.mr import coil_maps
from DiffusionMBIRLib.tasks import MR_TASK
from DiffusionMBIRLib.volume import Volume

RESULTS = Path(__file__).parent / "results" / "noncartesian"
SIDE = 192


@dataclass(frozen=True)
class Case:
    """One scan; first: its first slice in the volume, of so many ``slices``."""

    volume: str
    first: int
    options: dict[str, Any]
    true_maps: bool = True
    slices: int = 12


def _radial(spokes: int) -> dict[str, Any]:
    return {"trajectory": "radial", "spokes": spokes}


def _spiral(arms: int) -> dict[str, Any]:
    return {"trajectory": "spiral", "arms": arms}


_T1, _T2 = "test/mr_fnndsc-adi_T1.nrrd", "test/mr_fnndsc-adi_T2.nrrd"
# Others whom the prior has not seen, nor any setting was chosen on.
_BREAST, _LEG = "train/mr_ucsf-br-08_T1.nrrd", "train/mr_sts-014_T1.nrrd"
CASES = {
    "T1, 32 spokes": Case(_T1, 100, _radial(32)),
    "T1, 64 spokes": Case(_T1, 100, _radial(64)),
    "T1, 32 spokes, estimated maps": Case(_T1, 100, _radial(32), true_maps=False),
    "T1, 64 spokes, estimated maps": Case(_T1, 100, _radial(64), true_maps=False),
    "T2, 32 spokes": Case(_T2, 22, _radial(32)),
    "T2, 64 spokes": Case(_T2, 22, _radial(64)),
    "T1, 16 of 48 spiral arms": Case(_T1, 100, _spiral(16)),
    "breast, 32 spokes": Case(_BREAST, 24, _radial(32)),
    "breast, 64 spokes": Case(_BREAST, 24, _radial(64)),
    "leg, 32 spokes": Case(_LEG, 5, _radial(32)),
    "leg, 64 spokes": Case(_LEG, 5, _radial(64)),
}
# None of them is judged.  The prior has not seen the limbs; it has seen the head and the breast, so that what a setting
# gains there counts, not by how much it is better than what has no network.
_LIMB, _THIGH, _HEAD, _CHEST = (f"train/mr_{name}_T1.nrrd" for name in ("sts-009", "sts-021", "uih-a", "ucsf-br-06"))
TUNING = {
    "limb, 32 spokes": Case(_LIMB, 40, _radial(32), slices=6),
    "head, 32 spokes": Case(_HEAD, 120, _radial(32), slices=6),
    "limb, 64 spokes": Case(_LIMB, 40, _radial(64), slices=6),
    "head, 64 spokes": Case(_HEAD, 120, _radial(64), slices=6),
    "limb, 16 of 48 spiral arms": Case(_LIMB, 40, _spiral(16), slices=6),
    "head, 16 of 48 spiral arms": Case(_HEAD, 120, _spiral(16), slices=6),
    "another breast, 32 spokes": Case(_CHEST, 24, _radial(32), slices=6),
    "another breast, 64 spokes": Case(_CHEST, 24, _radial(64), slices=6),
    "thigh, 32 spokes": Case(_THIGH, 10, _radial(32), slices=6),
    "limb, 32 spokes, estimated maps": Case(_LIMB, 40, _radial(32), true_maps=False, slices=6),
    "thigh, 32 spokes, estimated maps": Case(_THIGH, 10, _radial(32), true_maps=False, slices=6),
    "limb, 64 spokes, estimated maps": Case(_LIMB, 40, _radial(64), true_maps=False, slices=6),
}
_TV = {"method": "admm-tv", "tv_sweeps": 60}
METHODS: dict[str, dict[str, Any]] = {
    "dual, 50": {"preset": "mri-best"},
    "dual, 20": {},
    "dual, 10": {"preset": "mri-quick"},
    **{f"TV, {lam}": {**_TV, "tv_lam": float(lam)} for lam in ("2e-3", "1e-3", "5e-4", "2.5e-4")},
    **{f"wavelets, {lam}": {"method": "espirit-l1", "l1_lam": float(lam)} for lam in ("2e-3", "1e-3")},
    "CG-SENSE, 20": {"method": "sense-cg", "cg_iterations": 20, "cg_lam": 0.0},
    "CG-SENSE, 6": {"method": "sense-cg", "cg_iterations": 6, "cg_lam": 0.0},
    "gridding": {"method": "zero-filled"},
}
FAMILIES = ("dual, 50", "dual, 20", "dual, 10", "TV", "wavelets", "CG-SENSE", "gridding")  # columns of the table
_TUNED: dict[str, dict[str, Any]] = {
    **{f"TV, {lam:g}": {**_TV, "tv_lam": lam} for lam in (2.5e-4, 5e-4, 1e-3, 2e-3)},
    **{f"wavelets, {lam:g}": {"method": "espirit-l1", "l1_lam": lam} for lam in (5e-4, 1e-3, 2e-3, 4e-3)},
    # Total variation across slices.
    **{f"dual, 20, lam {lam:g}": {"lam": lam} for lam in (0.0, 5e-4, 2e-3)},
    # The share of what a first volume leaves of the data that counts as noise.
    **{f"dual, 20, believed {share:g}": {"lam": 2e-3} for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)},
}
FIGURES = ("psnr", "ssim")
COLUMNS = (
    "case", "label", *(f"{plane}_{figure}" for figure in FIGURES for plane in PLANES), "head_psnr", "residual",
    "seconds",
)  # fmt: skip


def volume_of(case: Case, folder: Path) -> Volume:
    """Some slices, padded with air or cropped to the side, of values from 0 on."""
    volume = read_volume(folder / case.volume)
    array = np.maximum(volume.array[case.first : case.first + case.slices], 0)
    for axis in (1, 2):
        lacking = SIDE - array.shape[axis]
        if lacking < 0:
            start = -lacking // 2
            array = np.take(array, range(start, start + SIDE), axis)
        else:
            array = np.pad(array, [(lacking // 2, lacking - lacking // 2) if k == axis else (0, 0) for k in range(3)])
    return Volume(array, replace(volume.grid, shape=array.shape), unit="", name=case.volume)


@lru_cache(maxsize=1)
def measured(name: str, folder: Path) -> tuple[TrajectoryKSpace, Volume]:
    """The scan and the truth of a case."""
    case = (CASES | TUNING)[name]
    volume = volume_of(case, folder)
    scan = simulate(volume, task=MR_TASK, coils=8, phase=True, noise=0.005, seed=0, **case.options)
    assert isinstance(scan, TrajectoryKSpace)
    truth = truth_for(volume, task=MR_TASK)
    return (replace(scan, maps=coil_maps(volume.grid, 8)) if case.true_maps else scan), truth


def head_psnr(found: np.ndarray, truth: np.ndarray) -> float:
    """Over what is no air: the largest part above a tenth of the 99th percentile, its holes filled slice by slice."""
    bright = ndimage.binary_opening(truth > 0.1 * np.percentile(truth, 99), iterations=1)
    parts, count = ndimage.label(bright)
    largest = parts == 1 + int(np.argmax(ndimage.sum_labels(bright, parts, range(1, count + 1))))
    head = np.stack([ndimage.binary_fill_holes(part) for part in largest])
    error = float(((found - truth)[head] ** 2).mean())
    return float(20 * np.log10(np.ptp(truth)) - 10 * np.log10(error))


def row_of(name: str, label: str, folder: Path) -> dict[str, Any]:
    """Reconstruct and judge; seconds are those of one thread's processor time."""
    scan, truth = measured(name, folder)
    changes = dict((METHODS | _TUNED)[label])
    settings = replace(ReconSettings.preset(changes.pop("preset", "mri")), **changes)
    if "believed" in label:
        trajectory.BELIEVED = float(label.split()[-1])
    began = time.process_time()
    result = reconstruct(scan, settings=settings)
    seconds = time.process_time() - began
    found = evaluate(result.volume, truth)
    return {
        "case": name,
        "label": label,
        **{f"{p}_{f}": round(found[p][f], 4) for f in FIGURES for p in PLANES},
        "head_psnr": round(head_psnr(result.volume.array, truth.array), 4),
        "residual": round(result.residual, 5),
        "seconds": round(seconds, 1),
    }


def rows(group: str) -> Iterator[tuple[str, str]]:
    """Cases and labels, what matters most first."""
    cases, methods = (CASES, METHODS) if group == "judged" else (TUNING, _TUNED)
    return ((case, label) for case in cases for label in methods)


def there(group: str) -> dict[tuple[str, str], dict[str, str]]:
    """What was measured already."""
    path = RESULTS / f"{group}.csv"
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8", newline="") as file:
        return {(row["case"], row["label"]): row for row in csv.DictReader(file)}


def judge(group: str, folder: Path, only: Sequence[str], labels: Sequence[str]) -> None:
    """Add the rows that are not there yet."""
    torch.set_num_threads(1)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for case, label in rows(group):
        if (only and case not in only) or (labels and label not in labels) or (case, label) in there(group):
            continue
        row = row_of(case, label, folder)
        with open(RESULTS / f"{group}.csv", "a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
        print(row, flush=True)


def table() -> str:
    """PSNR in dB, mean of the planes / inside the body; of each family the best of what was run."""
    found = there("judged")
    lines = [f"| | {' | '.join(FAMILIES)} |", f"|---|{'---|' * len(FAMILIES)}"]
    for case in CASES:
        of_case = [row for (name, _), row in found.items() if name == case]
        cells = [_cell([row for row in of_case if row["label"].startswith(family)], family) for family in FAMILIES]
        if of_case:
            lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(rows: Sequence[dict[str, str]], family: str) -> str:
    if not rows:
        return "-"
    best = max(rows, key=_mean_psnr)
    chosen = best["label"].removeprefix(family).strip(", ")
    return f"{_mean_psnr(best):.2f} / {float(best['head_psnr']):.2f}{f' ({chosen})' if chosen else ''}"


def _mean_psnr(row: dict[str, str]) -> float:
    return sum(float(row[f"{plane}_psnr"]) for plane in PLANES) / len(PLANES)


def speed() -> None:
    """Processor time of one thread for 64 images of 256 x 256."""
    torch.set_num_threads(1)
    images = torch.randn(64, 256, 256, dtype=torch.complex64)
    pair = _least(lambda: [torch.fft.ifft2(torch.fft.fft2(some)) for some in images.split(8)])
    print(f"Cartesian pair of transforms: {pair * 1e3:.0f} ms")
    for spokes in (64, 400):
        points = radial(spoke_angles(spokes), 512)
        convolve = Toeplitz(point_spread(points, None, (256, 256)), dtype=torch.complex64)
        took = _least(lambda convolve=convolve: convolve(images))
        print(f"A^H A, {spokes} spokes: {took * 1e3:.0f} ms, {took / pair:.1f} times")
        for name, call in _others(points, images):
            other = _least(call, 2)
            print(f"    {name}: {other * 1e3:.0f} ms, {other / pair:.1f} times")


def _others(points: np.ndarray, images: torch.Tensor) -> Iterator[tuple[str, Callable[[], Any]]]:
    numpy = images.numpy()
    try:
        import finufft

        x, y = (np.ascontiguousarray(points[..., k].reshape(-1) * (2 * np.pi / 256), np.float32) for k in (1, 0))
        options = {"eps": 1e-4, "nthreads": 1, "upsampfac": 1.25}

        def by_finufft() -> None:
            finufft.nufft2d1(x, y, finufft.nufft2d2(x, y, numpy, **options), (256, 256), **options)

        yield "finufft, 1e-4", by_finufft
    except ImportError:
        pass
    try:
        import sigpy

        where = np.ascontiguousarray(points[..., ::-1], np.float32)

        def by_sigpy() -> None:
            sigpy.nufft_adjoint(sigpy.nufft(numpy, where), where, oshape=numpy.shape)

        yield "SigPy", by_sigpy
    except ImportError:
        pass
    try:
        import torchkbnufft

        omega = torch.from_numpy(np.ascontiguousarray(points[..., ::-1].reshape(-1, 2).T * (2 * np.pi / 256))).float()
        to, back = torchkbnufft.KbNufft((256, 256)), torchkbnufft.KbNufftAdjoint((256, 256))
        batch = images[None]

        yield "torchkbnufft by table", lambda: back(to(batch, omega), omega)
        kernel = torchkbnufft.calc_toeplitz_kernel(omega, (256, 256))
        convolve = torchkbnufft.ToepNufft()
        yield "torchkbnufft by its convolution", lambda: convolve(batch, kernel)
    except ImportError:
        pass


def _least(call: Callable[[], Any], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return min(times)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Judge reconstructions of radial and spiral scans.")
    parser.add_argument("group", choices=("judged", "tuning", "table", "speed"))
    parser.add_argument("volumes", type=Path, nargs="?", help="folder with test/ and train/")
    parser.add_argument("cases", nargs="*", help="only these")
    parser.add_argument("--labels", nargs="*", default=(), help="only these")
    options = parser.parse_args(arguments)
    if options.group == "table":
        print(table())
    elif options.group == "speed":
        speed()
    elif options.volumes is None:
        parser.error("name the folder with test/ and train/")
    else:
        judge(options.group, options.volumes, options.cases, options.labels)


if __name__ == "__main__":
    main()
