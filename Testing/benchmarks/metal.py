"""Metal in raw scans: ours and total variation without the metal's rays against NMAR.  Run as a script.

    python Testing/benchmarks/metal.py judged VOLUMES [--pictures FOLDER]
    python Testing/benchmarks/metal.py table

A polychromatic scan at 120 kV (tungsten by Kramers' law, 6 mm of aluminium, a detector that integrates energy, 2e5
photons a ray), attenuation by xraydb, of an object on a grid twice as fine as the reconstruction's; data are linearised
for water, as scanners do.  PSNR outside the metal and two pixels around it.  Needs the extra ``bench``.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.geometry import ParallelBeam, view_angles
from DiffusionMBIRLib.io.volumes import read_volume
from DiffusionMBIRLib.operators import projector
from DiffusionMBIRLib.reconstruction import reconstruct
from DiffusionMBIRLib.scans import Measurement
from DiffusionMBIRLib.volume import MU_WATER_PER_MM, Volume

FOLDER = Path(__file__).parent / "results" / "metal"
PEAK_KEV, PHOTONS, VIEWS, SLICES = 120, 2e5, 180, 3
BONE_HU = 150.0  # tissue is water up to here, and above it water with a growing part of cortical bone
KEV_OF_HU = 70.0
METAL_HU = 2500.0
TV = (1e-4, 3e-4, 1e-3)
MATERIALS = {
    "water": ("H2O", 1.0),
    "bone": ("H3.4C1.55N0.3O4.35Mg0.01P0.33S0.01Ca0.56", 1.92),
    "steel": ("Fe0.68Cr0.19Ni0.1Mo0.02Mn0.01", 8.0),
    "titanium": ("Ti", 4.5),
}


@dataclass(frozen=True)
class Scene:
    """Discs (row, column, radius) in mm from the middle of a slice, of a metal, in a person."""

    path: str
    coarsen: int  # to the grid of the object; that of the reconstruction is twice as coarse
    metal: str
    discs: tuple[tuple[float, float, float], ...]


CHEST, ABDOMEN = "test/ct_rider-pilot-0117_lower-chest_native.nrrd", "train/ct_cptac-pda-00189_abdomen.nrrd"
SCENES = {
    "steel screws, chest RIDER-0117": Scene(CHEST, 2, "steel", ((60.0, -22.0, 3.0), (60.0, 22.0, 3.0))),
    "titanium discs, chest RIDER-0117": Scene(CHEST, 2, "titanium", ((40.0, -12.0, 7.0), (-20.0, 60.0, 7.0))),
    "steel screws, abdomen pda-00189": Scene(ABDOMEN, 1, "steel", ((55.0, -25.0, 4.0), (55.0, 25.0, 4.0))),
}
METHODS: dict[str, dict[str, Any]] = {
    "FBP, all rays": {"method": "fbp"},
    "linear interpolation": {"method": "metal-linear", "metal_hu": METAL_HU},
    "NMAR": {"method": "nmar", "metal_hu": METAL_HU},
    **{f"TV {lam:g}": {"method": "admm-tv", "metal_hu": METAL_HU, "tv_lam": lam, "tv_sweeps": 60} for lam in TV},
    "ours": {"metal_hu": METAL_HU},
}


def attenuation(name: str, kev: np.ndarray) -> np.ndarray:
    """In 1/mm."""
    import xraydb

    formula, density = MATERIALS[name]
    found: np.ndarray = xraydb.material_mu(formula, kev * 1e3, density=density) / 10
    return found


def spectrum() -> tuple[np.ndarray, np.ndarray]:
    """Energies in keV and what share each has of the signal."""
    import xraydb

    kev = np.arange(20.0, PEAK_KEV, 2.0)
    photons = (PEAK_KEV - kev) / kev * np.exp(-xraydb.material_mu("Al", kev * 1e3, density=2.7) / 10 * 6.0)
    signal = photons * kev
    return kev, signal / signal.sum()


def measured(scene: Scene, folder: Path) -> tuple[Measurement, np.ndarray, np.ndarray]:
    """The scan, the truth without metal in HU, and where PSNR counts."""
    volume = read_volume(folder / scene.path).axial()[0].middle(SLICES).coarsened(scene.coarsen)
    hu = np.maximum(volume.array.astype(np.float32), -1000.0)
    fine = replace(volume.grid, isocentre_mm=None)
    coarse = fine.coarsened(2)
    rows, columns = (
        (np.arange(n) - (n - 1) / 2) * s for n, s in zip(fine.in_plane, fine.spacing_mm[1::-1], strict=True)
    )
    metal = np.zeros(fine.in_plane, np.float32)
    for row, column, radius in scene.discs:
        metal[(rows[:, None] - row) ** 2 + (columns - column) ** 2 < radius**2] = 1
    # As much bone beside the water as attenuates so at the energy that 0.0192 / mm of water belong to.
    bone = np.maximum(hu - BONE_HU, 0) / 1000 * MU_WATER_PER_MM / float(attenuation("bone", np.array([KEV_OF_HU]))[0])
    parts = {"water": (np.minimum(hu, BONE_HU) / 1000 + 1) * (1 - metal), "bone": bone * (1 - metal)}
    parts[scene.metal] = np.broadcast_to(metal, hu.shape).copy()
    geometry = ParallelBeam.covering(coarse, view_angles(VIEWS))
    operator = projector(geometry.divided(2), fine)
    lengths = {
        name: (operator @ torch.from_numpy(part.astype(np.float32))).contiguous().numpy()
        for name, part in parts.items()
    }
    kev, share = spectrum()
    signal = np.zeros(next(iter(lengths.values())).shape)
    for energy, part in zip(kev, share, strict=True):
        at = np.array([energy])
        exponent = sum(float(attenuation(name, at)[0]) * length for name, length in lengths.items())
        signal += part * np.exp(-exponent)
    signal = signal.reshape(*signal.shape[:2], -1, 2).mean(-1)
    counts = np.random.default_rng(0).poisson(signal * PHOTONS)
    data = linearised(-np.log(np.maximum(counts, 0.5) / PHOTONS))
    scan = Measurement(data.astype(np.float32), geometry, coarse, photons=PHOTONS, name=scene.metal)
    truth = Volume(hu, fine).coarsened(2).array
    inside = Volume(np.broadcast_to(metal, hu.shape), fine).coarsened(2).array > 0
    rim = torch.nn.functional.max_pool2d(torch.from_numpy(inside.astype(np.float32))[:, None], 5, 1, 2)[:, 0].numpy()
    return scan, truth, rim == 0


def linearised(p: np.ndarray) -> np.ndarray:
    """What monochromatic rays would have measured of water of the same signal."""
    kev, share = spectrum()
    depth = np.linspace(0, 3000, 6001)
    seen = -np.log((share[:, None] * np.exp(-attenuation("water", kev)[:, None] * depth)).sum(0))
    return np.interp(p, seen, depth * MU_WATER_PER_MM)


def judged(folder: Path, pictures: Path | None) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, scene in SCENES.items():
        scan, truth, counted = measured(scene, folder)
        shown = [truth]
        for label, changes in METHODS.items():
            settings = ReconSettings.preset("metal" if "method" not in changes else "sparse-view", **changes)
            found = reconstruct(scan, settings=settings, device="cpu").volume.array
            off = (found - truth)[counted]
            psnr = 20 * np.log10((truth.max() - truth.min()) / np.sqrt(np.mean(off**2)))
            rows.append({"scene": name, "method": label, "psnr": f"{psnr:.2f}"})
            shown.append(found)
            print(name, label, f"{psnr:.2f}", flush=True)
        if pictures is not None:
            _draw(pictures / f"{name.split(',')[0].replace(' ', '-')}-{name[-5:]}.png", shown, ["truth", *METHODS])
    with (FOLDER / "judged.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _draw(path: Path, volumes: list[np.ndarray], titles: list[str]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, (len(volumes) + 1) // 2, figsize=(12, 6.5), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, volume, title in zip(axes.flat, volumes, titles, strict=False):
        axis.imshow(volume[len(volume) // 2], cmap="gray", vmin=-300, vmax=400)
        axis.set_title(title, fontsize=9)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def table() -> str:
    with (FOLDER / "judged.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    lines = ["| scene | FBP | linear | NMAR | best TV | ours |", "|---|---:|---:|---:|---:|---:|"]
    for scene in dict.fromkeys(row["scene"] for row in rows):
        by = {row["method"]: float(row["psnr"]) for row in rows if row["scene"] == scene}
        best = max(value for method, value in by.items() if method.startswith("TV"))
        values = (by["FBP, all rays"], by["linear interpolation"], by["NMAR"], best, by["ours"])
        lines.append(f"| {scene} | {' | '.join(f'{v:.1f}' for v in values)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("judged", "table"))
    parser.add_argument("volumes", nargs="?", type=Path)
    parser.add_argument("--pictures", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "judged":
        if arguments.volumes is None:
            parser.error("judged needs VOLUMES")
        judged(arguments.volumes, arguments.pictures)
    else:
        print(table())


if __name__ == "__main__":
    main()
