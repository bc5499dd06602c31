"""K-space in plain arrays (.npy, .mat, .cfl) with a file of their trajectory beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from ..scans import TrajectoryKSpace
from .cfl import read_cfl
from .companions import companion
from .matlab import read_matlab
from .npy import load_npy
from .trajectory_scan import Readouts, ToldTrajectory, finish_readouts

_CLEARER = 0.2  # by how much the correlation of energy with |k| must be better than the next
SUFFIXES = (".npy", ".mat", ".cfl")


def read_with_trajectory(path: Path, array: np.ndarray, told: ToldTrajectory, source: str) -> TrajectoryKSpace:
    """The scan of an array, complex, whose axes its trajectory settles.  Raises InputError where they do not."""
    file = Path(told.trajectory)
    if not file.is_file():
        file = companion(path, told.trajectory, "trajectory")
    scan = Readouts(str(path), source, np.zeros(0), np.zeros(0))
    points = load_trajectory(file, scan)
    scan.points = points
    scan.data = _ordered(scan, np.squeeze(array), points.shape[:2])
    scan.unit = "cycles/fov" if file.suffix.lower() == ".cfl" else ""
    return finish_readouts(scan, told)


def load_trajectory(file: Path, scan: Readouts) -> np.ndarray:
    """(readouts, samples, 2), of kx + i ky or with an axis of 2 or 3 coordinates; longer steps lie between readouts."""
    if file.suffix.lower() == ".cfl":
        array = np.squeeze(read_cfl(file))
        array = array.real if array.ndim == 3 and not np.iscomplex(array).any() else array
    elif file.suffix.lower() in (".npy", ".mat"):
        array = load_npy(file) if file.suffix.lower() == ".npy" else _of_matlab(file)
    else:
        raise InputError(f"{file}: a trajectory is read from {', '.join(SUFFIXES)}; convert it")
    array = np.squeeze(np.asarray(array))
    if array.dtype.kind == "c":
        if array.ndim != 2:
            raise InputError(f"{file}: a complex trajectory, kx + i ky, has two axes, not the shape {array.shape}")
        points = np.stack([array.real, array.imag], -1)
    else:
        coordinates = [k for k, n in enumerate(array.shape) if n in (2, 3)]
        if array.dtype.kind not in "iuf" or array.ndim != 3 or not coordinates:
            raise InputError(
                f"{file}: a trajectory is kx + i ky (samples, readouts), or has an axis of 2 or 3 coordinates besides; "
                f"this has the shape {array.shape} and the type {array.dtype}"
            )
        points = np.moveaxis(array, coordinates[-1] if coordinates[0] != 0 else 0, -1)
        if points.shape[-1] == 3 and np.abs(points[..., 2]).max() > 1e-6 * np.abs(points).max():
            raise InputError(f"{file}: its third coordinate is not zero; only stacks of 2D trajectories are read")
        points = points[..., :2]
    points = points.astype(np.float64)
    if not np.isfinite(points).all():
        raise InputError(f"{file}: holds NaN or infinite values; mend the trajectory")
    steps = [float(np.median(np.hypot(*np.moveaxis(np.diff(points, axis=k), -1, 0)))) for k in (0, 1)]
    if steps[0] < steps[1]:
        points = points.swapaxes(0, 1)
    scan.guessed.append(
        f"the trajectory has {points.shape[0]} readouts of {points.shape[1]} samples (the shorter steps are along them)"
    )
    return np.ascontiguousarray(points)


def _chosen(scan: Readouts, array: np.ndarray, pairs: list[tuple[int, int]]) -> tuple[int, int]:
    """Which axes hold samples and readouts, of those whose lengths fit: where the energy falls with |k| as it must.

    Raises InputError where that does not tell.
    """
    if len(pairs) == 1:
        return pairs[0]
    if not pairs:
        raise InputError(f"{scan.name}: has the shape {array.shape}, in which samples and readouts cannot be two axes")
    radius = np.log1p(np.hypot(scan.points[..., 0], scan.points[..., 1]) / np.abs(scan.points).max() * 64)
    likeness = []
    for samples, readouts in pairs:
        rest = tuple(k for k in range(array.ndim) if k not in (samples, readouts))
        energy = (np.abs(array).astype(np.float64) ** 2).sum(axis=rest)
        energy = np.log(np.maximum(energy.T if samples < readouts else energy, 1e-12 * energy.max()))
        likeness.append(-float(np.corrcoef(energy.ravel(), radius.ravel())[0, 1]) if energy.std() > 0 else 0.0)
    best, second = sorted(range(len(pairs)), key=lambda k: -likeness[k])[:2]
    if not likeness[best] > likeness[second] + _CLEARER:
        raise InputError(
            f"{scan.name}: which axes of {array.shape} hold the samples and the readouts cannot be told; save it with "
            "axes of unlike lengths, such as without its last readout"
        )
    scan.guessed.append(
        f"axis {pairs[best][0]} holds the samples and axis {pairs[best][1]} the readouts (energy falls with |k|)"
    )
    return pairs[best]


def _of_matlab(file: Path) -> np.ndarray:
    return np.asarray(read_matlab(file, "", "")[0])


def _ordered(scan: Readouts, array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(slices, 1, coils, readouts, samples) of an array whose axes are told by their lengths."""
    readouts, samples = shape
    if not 2 <= array.ndim <= 4:
        raise InputError(f"{scan.name}: has {array.ndim} axes; samples, readouts, coils and slices are read")
    fitting = []
    for what, size in (("samples", samples), ("readouts", readouts)):
        fitting.append([k for k, n in enumerate(array.shape) if n == size])
        if not fitting[-1]:
            raise InputError(
                f"{scan.name}: has the shape {array.shape}, its trajectory {readouts} readouts of {samples} samples; "
                f"no axis holds the {what}: do they belong together?"
            )
    found = _chosen(scan, array, [(s, r) for s in fitting[0] for r in fitting[1] if s != r])
    others = [k for k in range(array.ndim) if k not in found]
    names = {0: (), 1: ("coils",), 2: ("slices", "coils")}[len(others)]
    if others:
        told = ", ".join(f"axis {k} ({array.shape[k]}) holds {name}" for k, name in zip(others, names, strict=True))
        scan.guessed.append(told)
    ordered = array.transpose(*others, found[1], found[0]).astype(np.complex64)
    return ordered.reshape((1,) * (4 - ordered.ndim) + ordered.shape)[:, None]
