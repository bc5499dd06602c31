"""Small scans in the formats of scanners: how each is made, and which of its files is damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from DiffusionMBIRLib.geometry import ConeBeam, ParallelBeam
from Testing.engine import medical_files, ray_files

_FEW = tuple(float(a) for a in np.arange(0, 360, 45))


def _toml(folder: Path) -> Path:
    cone = ConeBeam(_FEW, 4, 12, 2.0, 2.0, ray_files.SOD, ray_files.SDD)
    text = (
        f'kind = "cone-beam"\nangles_deg = {{ first = 0.0, step = 45.0 }}\nsod_mm = {ray_files.SOD}\n'
        f"sdd_mm = {ray_files.SDD}\npitch_mm = 2.0\n"
    )
    return ray_files.write_toml(folder, ray_files.expected(cone).swapaxes(0, 1), text)


def _helsinki(folder: Path) -> Path:
    from scipy import io as scipy_io

    numbers = {"distanceSourceOrigin": 400.0, "distanceSourceDetector": 550.0, "pixelSizePost": 4.0}
    content = {"sinogram": np.ones((8, 16)) / 3, "parameters": {**numbers, "angles": np.arange(8.0)}}
    scipy_io.savemat(folder / "a.mat", {"CtDataLimited": content})
    return folder / "a.mat"


def _nxtomo(folder: Path) -> Path:
    medical_files.write_nxtomo(folder / "a.nxs", ParallelBeam(_FEW[:4], 16, 1.0))
    return folder / "a.nxs"


def _zeiss(folder: Path) -> Path:
    medical_files.write_txrm(folder / "a.txrm", ConeBeam(_FEW, 4, 12, 2.0, 2.0, ray_files.SOD, ray_files.SDD))
    return folder / "a.txrm"


def _ct_pd(folder: Path) -> Path:
    return medical_files.write_ct_pd(folder / "a", 6, rows=4, columns=12, pitch=2.0)


MAKERS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "TOML": (_toml, ""),
    "TOML, image": (_toml, "v0003.tif"),
    "Nikon": (lambda folder: ray_files.write_xtekct(folder, 8), ""),
    "Bruker": (lambda folder: ray_files.write_bruker(folder, 8), ""),
    "LEAP": (lambda folder: ray_files.write_leap(folder, 8), ""),
    "RTK": (lambda folder: ray_files.write_rtk(folder, 6, tilted=True), ""),
    "RTK, image": (lambda folder: ray_files.write_rtk(folder, 6), "*.mha"),
    "CERA": (lambda folder: ray_files.write_cera(folder, 8), ""),
    "CTSimU": (lambda folder: ray_files.write_ctsimu(folder, 8), ""),
    "CTSimU, scenario": (lambda folder: ray_files.write_ctsimu(folder, 8), "s.json"),
    "NXtomo": (_nxtomo, ""),
    "Zeiss": (_zeiss, ""),
    "DICOM-CT-PD": (_ct_pd, "00003.dcm"),
    "Helsinki": (_helsinki, ""),
}
