"""Fan-beam scans of the Helsinki Tomography Challenge 2022: MATLAB structures CtDataFull and CtDataLimited.

Each shows a disc of acrylic with holes, 70 mm wide (Meaney, Silva de Moura and Siltanen 2022).  Its material and size
are used: beam hardening is taken off, no voxel attenuates more than acrylic, none does beside the disc, and its rim is
solid.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..formats import CT, Format, register
from ..geometry import FanBeam, Grid
from ..preparation.disc import disc_centre, disc_share
from ..preparation.field_of_view import centred_grid
from ..preparation.rays import RayScan, measurement_of_rays
from ..preparation.told import Told
from ..scans import HOLED_DISC, Measurement
from . import matlab5
from .matlab import FAN_BEAM, is_fan_beam

_PIXELS = 512  # of a side of the challenge's own slices
_RADIUS_MM = 35.0
# From the edge, which the views tell better than the nominal radius: there the challenge's discs have 4.4 mm without
# holes at least.  From the edge on it cost total variation 0.006 on 01a.
_RIM_MM = (0.5, 3.0)
_SURE = 0.93  # of the attenuation of acrylic: what scans, whose tube varies, leave of it at least
_ACRYLIC_PER_MM = 0.038  # of thin layers, at the challenge's energies
# mm of acrylic by powers of a line integral, fitted to every 24th view of the full scans of 01a and 07a with the
# challenge's segmentations of them; between 0.2 and 2.2 it errs by 0.9 mm (a square of the line integral less: 1.1 mm).
_THICKNESS_MM = (26.347, -4.593, 3.206)
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
    told = Told(axis=None if axis is None else sinogram.shape[1] - 1 - axis, prepare=prepare)
    if told.wants("object"):
        _use_the_disc(scan, grid)
    return measurement_of_rays(scan, told)


def _use_the_disc(scan: RayScan, grid: Grid) -> None:
    """Line integrals as of acrylic without beam hardening, and what its voxels can attenuate at most."""
    air = float(np.median(scan.counts[..., [0, 1, 2, 3, -4, -3, -2, -1]]))
    lines = scan.counts - air
    with np.errstate(over="ignore", invalid="ignore"):
        thickness = sum(c * lines ** (k + 1) for k, c in enumerate(_THICKNESS_MM))
        lines = np.asarray(_ACRYLIC_PER_MM * thickness, np.float32)
    centre = disc_centre(lines[:, 0] / _ACRYLIC_PER_MM, scan.geometry, _RADIUS_MM)
    if centre is None:
        scan.remarks.append("no disc of 70 mm fits the edges of the views, so nothing is taken from the challenge's")
        return
    scan.counts = lines
    scan.most = _ACRYLIC_PER_MM * disc_share(grid, centre, _RADIUS_MM)
    outer, inner = (disc_share(grid, centre, _RADIUS_MM - depth) for depth in _RIM_MM)
    rim = outer - inner
    scan.least = _SURE * _ACRYLIC_PER_MM * rim
    scan.material, scan.kind_of_object = _ACRYLIC_PER_MM, HOLED_DISC
    scan.guessed.append(
        f"a disc of acrylic, 70 mm wide, with its centre at {centre[0]:.2f}, {centre[1]:.2f} mm from the axis: beam "
        f"hardening is taken off, no pixel attenuates more than {_ACRYLIC_PER_MM:g} / mm, none beside the disc does, "
        f"and there are no holes within {_RIM_MM[1]:g} mm of its edge "
        "(--prepare object=off: nothing of that)"
    )


def _structure(path: Path) -> dict[str, Any]:
    with matlab5.opened(path) as file:
        variable = next(v for v in file.variables if v.name in FAN_BEAM)
        return file.structure(variable) if variable.is_structure else {}


register(Format("Helsinki Tomography Challenge 2022", CT, (".mat",), read_htc, is_fan_beam, asks=("axis", "prepare")))
