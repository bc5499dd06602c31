"""Trajectories that ISMRMRD stores beside the readouts of a Cartesian or echo-planar scan, in any program's unit."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from .ismrmrd_header import EncodingSpace
from .ramps import is_even

_GRID_TOLERANCE = 0.05  # of a cell, how far a readout may leave its line
_EXTENT = 0.1  # by which the largest k may differ from half the matrix
_FEWEST = 8  # samples, below which a trajectory tells no unit


def cells(points: np.ndarray, samples: int, encoded: EncodingSpace, name: str) -> np.ndarray:
    """Place along the readout of each sample, in cells of the encoded matrix from the middle.

    points: (samples, dimensions) as they are stored.  The standard defines no unit; known are cycles per pixel, cycles
    per field of view, radians per pixel and 1/m, and the largest value tells.  Raises InputError for a path that leaves
    its line, or whose unit is not known.
    """
    if len(points) != samples or samples < _FEWEST or not np.isfinite(points).all():
        raise InputError(f"{name}: a trajectory does not fit its readout")
    matrix, field_mm = np.array(encoded.matrix, dtype=float), np.array(encoded.field_mm)
    largest = float(np.abs(points[:, 0]).max())
    if largest <= 0:
        raise InputError(f"{name}: a trajectory does not move along its readout")
    for factors in (matrix, np.ones(3), matrix / (2 * np.pi), field_mm / 1000):
        scaled = points * factors[: points.shape[1]]
        if abs(2 * largest * factors[0] / matrix[0] - 1) <= _EXTENT or is_even(scaled[:, 0]):
            if np.ptp(scaled[:, 1:], axis=0).max(initial=0) > _GRID_TOLERANCE:
                break
            path: np.ndarray = scaled[:, 0].astype(float)
            return path
    raise InputError(f"{name}: its trajectory does not follow the Cartesian grid; grid the data first")
