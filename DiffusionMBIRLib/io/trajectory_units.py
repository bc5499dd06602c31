"""In which unit a file gives its trajectory: told by the user, or by the largest |k| - which no format defines.

    cycles/fov     -N/2 .. N/2        mrpro, many ISMRMRD files, BART
    cycles/pixel   -0.5 .. 0.5        MRIReco, gpuNUFFT
    normalised     -1 .. 1            divided by the largest, as of spirals of siemens_to_ismrmrd
    rad/pixel      -pi .. pi          torchkbnufft, finufft
    1/m            to N / (2 FOV)     Pulseq
    rad/m          2 pi times that    gradients times the gyromagnetic ratio

N: pixels of the image along the axis, FOV: its field of view in m.
"""

from __future__ import annotations

import math
import re

import numpy as np

from ..errors import InputError

UNITS = ("cycles/fov", "cycles/pixel", "normalised", "rad/pixel", "1/m", "rad/m")
AXES = ("xy", "yx", "-xy", "x-y", "-x-y", "-yx", "y-x", "-y-x")  # x: along the columns of an image, y: its rows
_NEAR = 0.05  # share by which the largest |k| may lie off that of a unit


def factors(matrix: int, fov_mm: float) -> dict[str, float]:
    """What each unit is multiplied by for cycles per field of view; those that cannot be converted are left out.

    matrix, fov_mm: 0 where not known.
    """
    known = {"cycles/fov": 1.0}
    if matrix:
        known |= {"cycles/pixel": float(matrix), "normalised": matrix / 2, "rad/pixel": matrix / (2 * math.pi)}
    if fov_mm:
        known |= {"1/m": fov_mm / 1000, "rad/m": fov_mm / (2000 * math.pi)}
    return known


def classified(largest: float, matrix: int, fov_mm: float, name: str) -> str:
    """The unit in which ``largest`` is the edge of k-space.  Raises InputError where none fits, or two do."""
    if not matrix:
        edges = {"cycles/pixel": 0.5, "normalised": 1.0, "rad/pixel": math.pi}
        fitting = [unit for unit, edge in edges.items() if abs(largest / edge - 1) < _NEAR]
    else:
        fitting = [u for u, factor in factors(matrix, fov_mm).items() if abs(2 * largest * factor / matrix - 1) < _NEAR]
    if len(fitting) == 1:
        return fitting[0]
    seen = f"the largest |k| of its trajectory is {largest:.5g}"
    if not fitting:
        where = f"a matrix of {matrix}" if matrix else "an unknown matrix"
        at = f" over {fov_mm:g} mm" if fov_mm else ""
        raise InputError(f"{name}: {seen}, which is the edge of {where}{at} in no unit; give --trajectory-unit")
    raise InputError(f"{name}: {seen}, which fits {' as well as '.join(fitting)}; give --trajectory-unit")


def require_unit(unit: str) -> None:
    """Raise InputError for a unit that is not known."""
    if unit not in UNITS:
        raise InputError(f"trajectory_unit {unit!r} is not known; use one of {', '.join(UNITS)}")


def in_order(points: np.ndarray, axes: str, name: str) -> np.ndarray:
    """Points (..., 2) as x and y, of coordinates that ``axes`` names.  Raises InputError for others than ``AXES``."""
    if axes not in AXES:
        raise InputError(f"{name}: trajectory_axes {axes!r} is not known; use one of {', '.join(AXES)}")
    first, second = re.findall("-?[xy]", axes)
    turned = points * np.array([-1.0 if part[0] == "-" else 1.0 for part in (first, second)])
    return turned if first[-1] == "x" else turned[..., ::-1]


def matrix_of(cycles: np.ndarray) -> int:
    """The even matrix whose band a trajectory in cycles per field of view fills."""
    return max(2, 2 * math.ceil(float(np.abs(cycles).max()) - 0.25))
