"""Fan-beam scans of the Helsinki Tomography Challenge 2022: MATLAB structures CtDataFull and CtDataLimited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..formats import CT, Format, register
from ..geometry import FanBeam
from ..preparation.field_of_view import centred_grid
from ..preparation.rays import RayScan, measurement_of_rays
from ..preparation.told import Told
from ..scans import Measurement
from . import matlab5
from .matlab import FAN_BEAM, is_fan_beam

_PIXELS = 512  # of a side of the challenge's own slices
_NEEDED = ("distanceSourceOrigin", "distanceSourceDetector", "pixelSizePost", "angles")


def read_htc(path: Path, axis: float | None = None, prepare: str | None = None) -> Measurement:
    """The scan, on the grid of the challenge's own slices.  Raises InputError that names what is missing or damaged."""
    found = _structure(path)
    parameters = found.get("parameters")
    sinogram = found.get("sinogram")
    if not isinstance(parameters, dict) or not isinstance(sinogram, np.ndarray) or sinogram.ndim != 2:
        raise InputError(f"{path}: its structure lacks sinogram (views x columns) or parameters")
    for name in _NEEDED:
        if not isinstance(parameters.get(name), np.ndarray) or not parameters[name].size:
            raise InputError(f"{path}: its structure lacks the number parameters.{name}")
    number = {name: float(parameters[name].ravel()[0]) for name in _NEEDED}
    sod, sdd, pitch = (number[name] for name in _NEEDED[:3])
    # In the challenge's slices the object turns the other way, seen with rows that run down, and columns with it.
    angles = tuple(180.0 - float(a) for a in parameters["angles"].ravel())
    geometry = FanBeam(angles, sinogram.shape[1], pitch, sod, sdd)
    pixel = pitch * sod / sdd
    named = parameters.get("effectivePixelSizePost")
    if isinstance(named, np.ndarray) and named.size:
        pixel = float(named.ravel()[0])
    grid = centred_grid((1, _PIXELS, _PIXELS), (pixel, pixel, pixel))
    with np.errstate(over="ignore"):  # what leaves the range of float32 is told as not finite
        lines = sinogram[:, None, ::-1].astype(np.float32)
    scan = RayScan(str(path), "Helsinki Tomography Challenge", lines, geometry, kind="lines", grid=grid)
    scan.axis_known = True
    return measurement_of_rays(scan, Told(axis=None if axis is None else sinogram.shape[1] - 1 - axis, prepare=prepare))


def _structure(path: Path) -> dict[str, Any]:
    with matlab5.opened(path) as file:
        variable = next(v for v in file.variables if v.name in FAN_BEAM)
        return file.structure(variable) if variable.is_structure else {}


register(Format("Helsinki Tomography Challenge 2022", CT, (".mat",), read_htc, is_fan_beam, asks=("axis", "prepare")))
