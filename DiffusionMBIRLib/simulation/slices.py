"""Thick slices of a known volume of thin ones.

They are averaged from slices of a quarter of the volume's thickness that follow its slope, so that the operator which
reconstructs does not make the data.
"""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import torch

from ..errors import InputError
from ..geometry import Grid
from ..preparation.thick_slices import around, profiles
from ..scans import ThickSlices
from ..tasks import task_info
from ..volume import Volume
from .ct import split_slices
from .record import record, scan_name
from .settings import SliceScan

_SPLITS = 2  # times that slices are halved


def scan(volume: Volume, settings: SliceScan, *, task: str, seed: int = 0) -> ThickSlices:
    """Means over thick slices along the first axis of the array, in the middle of the volume; see :func:`.simulate`."""
    if task_info(task).modality == "CT" and volume.unit != "HU":
        raise InputError(f"{volume.name}: its unit is {volume.unit!r}; a CT volume in HU is needed")
    grid = replace(volume.grid, isocentre_mm=None)
    thin, spacing = grid.shape[0], grid.spacing_mm[2]
    if not settings.thickness_mm:
        raise InputError("setting thickness_mm: a simulated scan needs the thickness of its slices; give it in mm")
    distance = settings.distance_mm or settings.thickness_mm
    count = int(thin * spacing / distance + 1e-6)
    if count < 2:
        raise InputError(
            f"{volume.name}: of its {thin * spacing:.4g} mm {count} slice {distance:.4g} mm apart can be made, two are "
            "needed; use thinner ones"
        )
    spare = int((thin * spacing - count * distance) / spacing / 2 + 1e-6)  # thin slices that are left at the lower end
    first = (spare - thin / 2) * spacing + distance / 2
    places = tuple(first + k * distance for k in range(count))
    geometry = profiles(settings, places, settings.thickness_mm, grid.in_plane)
    data = _means(volume.array, geometry.matrix(_finer(grid)))
    target = (
        around(grid, round(thin * spacing / settings.spacing_mm), settings.spacing_mm) if settings.spacing_mm else grid
    )
    described = {"task": task, **asdict(settings)}
    return ThickSlices(
        data, geometry, target, task=task, provenance=record(volume, described, seed), name=scan_name(volume)
    )


def _finer(grid: Grid) -> Grid:
    parts = 2**_SPLITS
    return around(grid, grid.shape[0] * parts, grid.spacing_mm[2] / parts)


def _means(array: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The matrix times finer slices, row by row of the volume: float32 (thick, rows, columns)."""
    out = np.empty((len(matrix), *array.shape[1:]), dtype=np.float32)
    shares = torch.from_numpy(matrix)
    for row in range(array.shape[1]):
        fine = torch.from_numpy(array[:, row].astype(np.float64))
        least = fine.min()
        fine = fine - least
        for _ in range(_SPLITS):
            fine = split_slices(fine)
        out[:, row] = (shares @ fine + least).numpy()
    return out
