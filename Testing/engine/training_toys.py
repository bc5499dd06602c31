"""Toy volumes for tests of training: discs with inserts in air."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.models import ValueScale
from DiffusionMBIRLib.training.stacks import Stack
from DiffusionMBIRLib.volume import Volume

CT = ValueScale()


def discs(seed: int, slices: int = 5, size: int = 24) -> np.ndarray:
    """A body of soft tissue in air with an insert of another value, (slices, size, size) in HU."""
    generator = np.random.default_rng(seed)
    r, c = np.mgrid[:size, :size] - (size - 1) / 2
    volume = np.full((slices, size, size), -1000.0, dtype=np.float32)
    for k in range(slices):
        volume[k][np.hypot(r, c) < generator.uniform(7, 11)] = generator.uniform(0, 80)
        volume[k][np.hypot(r - generator.uniform(-4, 4), c) < 3] = generator.uniform(-800, 900)
    return volume


def stack(patient: str, seed: int = 0, slices: int = 5, size: int = 24) -> Stack:
    full = torch.from_numpy((discs(seed, slices, size) + 1000) / 2000)
    half = torch.nn.functional.avg_pool2d(full[:, None], 2)[:, 0]
    return Stack(patient, f"{patient}.nrrd", 1.0, [full.half(), half.half()])


def stacks(count: int = 4) -> list[Stack]:
    return [stack(f"p{k}", k) for k in range(count)]


def write_volumes(folder: Path, count: int = 3, suffix: str = ".nrrd") -> Path:
    folder.mkdir(exist_ok=True)
    for k in range(count):
        array = discs(k).astype(np.int16)
        Volume(array, Grid(array.shape, (0.8, 0.8, 2.0))).save(folder / f"p{k}_scan{suffix}")
    return folder
