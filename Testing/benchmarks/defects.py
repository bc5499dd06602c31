"""How far what ails measured scans moves a reconstruction from that of the same scan without it.  Run as a script:

    python Testing/benchmarks/defects.py --out Testing/benchmarks/results/defects.csv

Rays through balls by formula, 1e5 photons, through all steps of the preparation; PSNR in dB against the balls, each
voxel the mean of 4 x 4 x 4 points, over what the defective scan sees from every side, both on the defective scan's
pixels.  Of a long object the clean scan has a detector that sees all of it.  A half fan and a short scan have fewer
rays than the clean scan: "at_equal_photons_db" is of a clean scan with as many photons in all as they have.  CT-PD is a
folder of DICOM files written from the published dictionary, its clean scan the same rays without a file.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the balls and the writers of the tests

import DiffusionMBIRLib as mbir  # noqa: E402
from DiffusionMBIRLib.geometry import ConeBeam, FanBeam, Grid, ParallelBeam, RayGeometry  # noqa: E402
from DiffusionMBIRLib.preparation.field_of_view import centred_grid, edge_distances  # noqa: E402
from DiffusionMBIRLib.preparation.rays import RayScan, measurement_of_rays  # noqa: E402
from DiffusionMBIRLib.preparation.told import Told  # noqa: E402
from DiffusionMBIRLib.scans import Measurement  # noqa: E402
from DiffusionMBIRLib.usual import usual_settings  # noqa: E402
from Testing.engine import medical_files, ray_files  # noqa: E402

PHOTONS = 1e5
SOD, SDD, PITCH, COLUMNS, VIEWS = 150.0, 225.0, 0.9, 112, 150
BALLS = np.array(
    [(0, 0, 0, 24, 0.02), (6, -4, 0, 6, 0.01), (-8, 6, 0, 4, -0.015), (2, 10, 0, 2.5, 0.02), (-5, -9, 0, 3, -0.02),
     (12, 8, 0, 3.5, -0.01)], dtype=float
)  # fmt: skip
BALLS[:, :2] += (2.0, -1.3)  # edges about the axis stay in their columns, as rings do
CUT = np.array(
    [
        (-1.2, 2.1, 0, 23, 0.02),
        (11, 11, 0, 5, 0.015),
        (-15, 3, 0, 4, -0.015),
        (2, -16, 0, 3, 0.02),
        (3, 4, 0, 4, -0.01),
    ],
    dtype=float,
)  # the field of view of a truncated scan ends within three of them
LONG = np.concatenate([BALLS + [0, 0, z, 0, 0] for z in (-24.0, 0.0, 24.0)])
LONG[:, 3] = np.minimum(LONG[:, 3], 12.0)
FIELDS = ("scan", "method", "clean_db", "with_defect_db", "lost_db", "at_equal_photons_db", "lost_so_db")
USUAL = "default"  # method: what the file is reconstructed with where nothing else is said


def turn(views: int, degrees: float = 360.0) -> tuple[float, ...]:
    return tuple(float(a) for a in np.arange(views) * degrees / views)


FAN = FanBeam(turn(VIEWS), COLUMNS, PITCH, SOD, SDD)
PARALLEL = ParallelBeam(turn(VIEWS, 180.0), COLUMNS, PITCH * SOD / SDD)
RINGS = (
    ("rings", FAN, BALLS),
    ("rings, parallel beams", PARALLEL, BALLS),
    ("rings, object round about the axis", FAN, BALLS - [*BALLS[0, :2], 0, 0, 0]),
)
DRAWS = range(2, 9)  # of which columns are off


def scan_of(
    geometry: RayGeometry,
    balls: np.ndarray,
    spoil: Callable[[np.ndarray], None] | None = None,
    photons: float = PHOTONS,
    prepare: str = "",
) -> Measurement:
    generator = np.random.default_rng(1)
    counts = generator.poisson(photons * np.exp(-ray_files.expected(geometry, balls).swapaxes(0, 1))).astype(np.float32)
    if spoil:
        spoil(counts)
    scan = RayScan("scan", "simulated", counts, geometry, "counts", white=photons, photons=photons)
    scan.axis_known = True
    return measurement_of_rays(scan, Told(prepare=prepare))


def rings(seed: int) -> Callable[[np.ndarray], None]:
    def spoil(counts: np.ndarray) -> None:
        generator = np.random.default_rng(seed)
        which = generator.choice(counts.shape[2], 12, replace=False)
        counts[:, :, which] *= 1 + 0.05 * generator.standard_normal(12)

    return spoil


def zingers(counts: np.ndarray) -> None:
    generator = np.random.default_rng(3)
    counts[generator.random(counts.shape) < 1e-3] = 20 * PHOTONS


def truth_of(grid: Grid, balls: np.ndarray, parts: int = 4) -> np.ndarray:
    """Means over parts^3 points a voxel; of one slice over parts^2 in its plane z = 0."""
    (slices, rows, columns), (dx, dy, dz) = grid.shape, grid.spacing_mm
    middle = grid.off_isocentre_mm
    x, y, z = (
        (np.arange(n * parts) - (n * parts - 1) / 2) * d / parts + m
        for n, d, m in zip((columns, rows, slices), (dx, dy, dz), middle, strict=True)
    )
    z = np.zeros(1) if slices == 1 else z
    fine = np.zeros((len(z), len(y), len(x)), np.float32)
    for bx, by, bz, radius, mu in balls:
        fine += mu * ((x - bx) ** 2 + (y - by)[:, None] ** 2 + (z - bz)[:, None, None] ** 2 < radius**2)
    depth = 1 if slices == 1 else parts
    return fine.reshape(slices, depth, rows, parts, columns, parts).mean(axis=(1, 3, 5))


def psnr(scan: Measurement, balls: np.ndarray, method: str, radius_mm: float, half_mm: float) -> float:
    """Inside a cylinder about the axis."""
    used = usual_settings(scan).settings
    if method != USUAL:
        used = mbir.ReconSettings.preset("all-views", method="fbp")
        if method != "fbp":
            used = mbir.ReconSettings.preset("object", method=method, tv_lam=3e-4)
    found = mbir.reconstruct(scan, settings=used).volume.array
    if scan.unit == "HU":
        found = scan.mu_water_per_mm * (1 + found / 1000)
    grid, truth = scan.grid, truth_of(scan.grid, balls)
    middle = grid.off_isocentre_mm
    x, y, z = (
        (np.arange(n) - (n - 1) / 2) * d + m for n, d, m in zip(grid.shape[::-1], grid.spacing_mm, middle, strict=True)
    )
    inside = (np.hypot(x, y[:, None]) < radius_mm)[None] & ((np.abs(z) < half_mm) | (len(z) == 1))[:, None, None]
    error = float(np.mean((found - truth)[inside] ** 2))
    return float(10 * np.log10(0.05**2 / error))


Pair = tuple[Measurement, Measurement, np.ndarray, float, float]


def pairs() -> dict[str, Callable[[], Pair]]:
    """Of each defect what makes (clean scan, scan with it, balls, radius and half height of what is judged)."""
    narrow = replace(FAN, columns=56)  # sees 70 % of the object's width
    half = replace(FAN, columns=70, offset_mm=26.0)
    short = replace(FAN, angles_deg=turn(round(VIEWS * 208 / 360), 208.0))
    tall = ConeBeam(turn(48), 112, 64, 1.4, 1.4, SOD, SDD)
    low = replace(tall, rows=28)
    seen = 0.95 * min(edge_distances(narrow))
    clean = cache(partial(scan_of, FAN, BALLS, prepare="rings=off"))
    found: dict[str, Callable[[], Pair]] = {
        "truncated, 30 % outside": lambda: (clean(), scan_of(narrow, BALLS), BALLS, seen, 1e9),
        "truncated through details": lambda: (scan_of(FAN, CUT), scan_of(narrow, CUT), CUT, seen, 1e9),
        "half fan": lambda: (clean(), scan_of(half, BALLS), BALLS, 26.0, 1e9),
        "short scan": lambda: (clean(), scan_of(short, BALLS), BALLS, 26.0, 1e9),
        "zingers": lambda: (clean(), scan_of(FAN, BALLS, zingers), BALLS, 26.0, 1e9),
        "long object": lambda: (scan_of(tall, LONG), scan_of(low, LONG), LONG, 14.0, 9.0),
    }
    for name, geometry, balls in RINGS:
        without = cache(partial(scan_of, geometry, balls, prepare="rings=off"))
        for draw, spoil in (("none", None), *((str(k), rings(k)) for k in DRAWS)):
            found[f"{name}: {draw}"] = partial(_beside, without, geometry, balls, spoil)
    for flying in (False, True):
        found["CT-PD" + (", flying focal spot" if flying else "")] = partial(ct_pd, flying)
    return found


def _beside(
    clean: Callable[[], Measurement],
    geometry: RayGeometry,
    balls: np.ndarray,
    spoil: Callable[[np.ndarray], None] | None,
) -> Pair:
    return clean(), scan_of(geometry, balls, spoil), balls, 26.0, 1e9


def over_draws(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Mean and worst of what was drawn several times, named "...: DRAW"."""
    kept, drawn = [], dict[tuple[str, str], list[dict[str, str]]]()
    for row in rows:
        name, _, draw = row["scan"].partition(": ")
        if draw.isdigit():
            drawn.setdefault((name, row["method"]), []).append(row)
        else:
            kept.append(row)
    for (name, method), group in drawn.items():
        lost = [float(row["lost_db"]) for row in group]
        mean = {
            field: f"{np.mean([float(row[field]) for row in group]):.2f}"
            for field in ("clean_db", "with_defect_db", "lost_db")
        }
        kept.append(dict.fromkeys(FIELDS, "") | mean | {"scan": f"{name}, mean of {len(group)}", "method": method})
        kept.append({**group[int(np.argmax(lost))], "scan": f"{name}, worst of {len(group)}"})
    return kept


def with_equal_photons(name: str, spoilt: Measurement) -> Measurement | None:
    """The clean scan of a half fan or a short scan, of fewer photons a ray."""
    if name not in ("half fan", "short scan"):
        return None
    rays = spoilt.geometry.views * spoilt.geometry.detector[1] / (FAN.views * FAN.columns)
    return scan_of(FAN, BALLS, photons=rays * PHOTONS)


def ct_pd(flying: bool) -> Pair:
    """The same rays without a file, and the file's, on one grid."""
    with tempfile.TemporaryDirectory() as folder:
        told = mbir.read(medical_files.write_ct_pd(Path(folder), 40, photons=np.full(32, PHOTONS), flying=flying))
    grid = centred_grid((14, 32, 32), (0.6, 0.6, 0.9))
    told = replace(told, grid=grid)
    lines = ray_files.expected(told.geometry, ray_files.BALLS).astype(np.float32)
    return replace(told, data=lines), told, ray_files.BALLS, 8.0, 4.0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--methods", default="fbp,admm-tv,default")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args(arguments)
    rows = []
    of_clean: dict[tuple[int, str, Grid], tuple[float, Measurement]] = {}  # draws share a clean scan
    for name, make in pairs().items():
        if chosen.only and not any(part in name for part in chosen.only.split(",")):
            continue
        clean, spoilt, balls, radius, half = make()
        for method in chosen.methods.split(","):
            if method == "fbp" and spoilt.geometry.KIND == "posed-beam":
                continue
            key = id(clean), method, spoilt.grid
            if key not in of_clean:
                of_clean[key] = psnr(replace(clean, grid=spoilt.grid), balls, method, radius, half), clean
            equal = with_equal_photons(name, spoilt)
            a, b = of_clean[key][0], psnr(spoilt, balls, method, radius, half)
            c = [psnr(replace(equal, grid=spoilt.grid), balls, method, radius, half)] if equal else []
            figures = [a, b, a - b, *c, *(x - b for x in c)]
            texts = [name, method, *(f"{figure:.2f}" for figure in figures), "", ""][: len(FIELDS)]
            rows.append(dict(zip(FIELDS, texts, strict=True)))
            print(rows[-1], flush=True)
    rows = over_draws(rows)
    if chosen.out:
        with chosen.out.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
