"""Scans for RTK: an XML file of its circular geometry beside a stack of projections in MetaImage or NRRD.

World of RTK (IEC 61217): the axis is y, at angle 0 the source stands on z.  In the frame that turns with the gantry the
source is at (SourceOffsetX, SourceOffsetY, SID), and a pixel whose place in the image is (u, v) at
(u + ProjectionOffsetX, v + ProjectionOffsetY, SID - SDD); the world is turned into that frame by -GantryAngle about y,
-OutOfPlaneAngle about x and -InPlaneAngle about z.  Parameters that are the same in all projections stand once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from ..errors import InputError, one_line
from ..formats import CT, Format, register
from ..geometry import ConeBeam, ParallelBeam, PosedBeam, Poses, RayGeometry
from ..preparation.rays import RayScan, measurement_of_rays
from ..preparation.told import Told
from ..scans import Measurement
from .companions import glance, text_of_file
from .volumes import read_with_itk

_IMAGES = (".mha", ".mhd", ".nrrd", ".nhdr")
_NAMES = (
    "SourceToIsocenterDistance", "SourceToDetectorDistance", "GantryAngle", "OutOfPlaneAngle", "InPlaneAngle",
    "SourceOffsetX", "SourceOffsetY", "ProjectionOffsetX", "ProjectionOffsetY", "RadiusCylindricalDetector",
)  # fmt: skip
_ROOT, _VIEW = "RTKThreeDCircularGeometry", "Projection"
_DEEPEST, _MOST_VIEWS = 8, 1 << 17
_TO_OURS = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # our (x, y, z) of theirs
_SAME = 1e-9
Parameters = dict[str, np.ndarray]


def read_rtk(path: Path, axis: float | None = None, prepare: str | None = None) -> Measurement:
    """The scan.  Raises InputError that names what is missing or does not fit."""
    told = _parameters(path)
    image = _image(path)
    volume = read_with_itk(image)
    grid, views = volume.grid, len(told["GantryAngle"])
    if grid.shape[0] != views:
        raise InputError(f"{path}: tells of {views} projections, {image.name} holds {grid.shape[0]}; make them equal")
    geometry = _geometry(path, told, grid)
    with np.errstate(over="ignore"):
        scan = RayScan(str(path), "RTK", volume.array.astype(np.float32), geometry)
    scan.axis_known, scan.slice_mm = True, grid.spacing_mm[1]
    return measurement_of_rays(scan, Told(axis=axis, prepare=prepare))


def _image(path: Path) -> Path:
    there = [p for p in sorted(path.parent.iterdir()) if p.name.lower().endswith(_IMAGES) and p.is_file()]
    same = [p for p in there if p.stem == path.stem]
    found = same or there
    if len(found) != 1:
        names = ", ".join(p.name for p in there[:6]) or "none"
        raise InputError(
            f"{path}: its projections must lie beside it as one MetaImage, or as {path.stem}.mha; there are {names}"
        )
    return found[0]


def _parameters(path: Path) -> Parameters:
    """Every parameter of every view; those that stand before the views hold for all that tell nothing else."""
    values: dict[str, float] = {}
    listed: list[dict[str, float]] = []
    inside: list[str] = []
    text: list[str] = []

    def start(tag: str, _: dict[str, str]) -> None:
        inside.append(tag)
        text.clear()
        if len(inside) > _DEEPEST or len(listed) > _MOST_VIEWS:
            raise InputError(f"{path}: is too deep or long for a geometry of RTK")
        if tag == _VIEW:
            listed.append({})

    def end(tag: str) -> None:
        inside.pop()
        if tag in _NAMES:
            try:
                (listed[-1] if _VIEW in inside else values)[tag] = float("".join(text))
            except ValueError:
                raise InputError(f"{path}: {tag} must be a number, not {one_line(''.join(text), 60)!r}") from None

    def refuse(*_: Any) -> None:
        raise InputError(f"{path}: declares entities, which are not read")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text.append
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(text_of_file(path).encode(), True)
    except expat.ExpatError as error:
        raise InputError(f"{path}: is no XML ({one_line(error, 80)}); is it truncated?") from None
    if not listed:
        raise InputError(f"{path}: holds no <{_VIEW}>")
    needed = ("GantryAngle", "SourceToIsocenterDistance", "SourceToDetectorDistance")
    for name in needed:
        if any(name not in {**values, **view} for view in listed):
            raise InputError(f"{path}: lacks {name} of a projection")
    found = {name: np.array([{**values, **view}.get(name, 0.0) for view in listed]) for name in _NAMES}
    if not all(np.isfinite(v).all() for v in found.values()):
        raise InputError(f"{path}: a parameter is NaN or infinite")
    return found


def _geometry(path: Path, told: Parameters, image: Any) -> RayGeometry:
    """image: the grid of the projections, (views, rows, columns)."""
    _, rows, columns = image.shape
    pitch, row_pitch, _ = image.spacing_mm
    middle = [
        o + (n - 1) / 2 * s for o, n, s in zip(image.origin_mm, (columns, rows), (pitch, row_pitch), strict=False)
    ]
    u, v = middle[0] + told["ProjectionOffsetX"], middle[1] + told["ProjectionOffsetY"]
    sid, sdd = told["SourceToIsocenterDistance"], told["SourceToDetectorDistance"]
    angles = tuple(float(a) for a in told["GantryAngle"])
    plain = not any(told[n].any() for n in ("OutOfPlaneAngle", "InPlaneAngle", "SourceOffsetX", "SourceOffsetY"))
    radius = told["RadiusCylindricalDetector"]
    arc = bool(radius.any())
    if arc and np.abs(radius - sdd).max() > 1e-3 * sdd.max():
        raise InputError(
            f"{path}: a cylindrical detector must be centred on the source (its radius the distance to it)"
        )
    if not sdd.any():
        if not plain or np.ptp(u) > 0:
            raise InputError(f"{path}: parallel beams are read without tilts and changing offsets only")
        return ParallelBeam(angles, columns, pitch, float(u[0]))
    if min(sid.min(), sdd.min()) <= 0:
        raise InputError(f"{path}: distances from the source must be positive")
    if plain and max(np.ptp(sid), np.ptp(sdd)) < _SAME * sdd[0]:
        shifts = () if np.ptp(u) == 0 else tuple(float(a) for a in u - u[0])
        row_shifts = () if np.ptp(v) == 0 else tuple(float(a) for a in v - v[0])
        return ConeBeam(
            angles, rows, columns, pitch, row_pitch, float(sid[0]), float(sdd[0]), float(u[0]), float(v[0]), 0.0, arc,
            shifts, row_shifts,
        )  # fmt: skip
    back = _turns(told)
    none = np.zeros_like(sid)
    source = np.stack([told["SourceOffsetX"], told["SourceOffsetY"], sid], axis=1)
    centre = np.stack([u, v, sid - sdd], axis=1)
    along, up = (np.stack(step, axis=1) for step in ((none + pitch, none, none), (none, none + row_pitch, none)))
    world = [np.einsum("ij,vjk,vk->vi", _TO_OURS, back, vector) for vector in (centre, along, up, source)]
    return PosedBeam.of(Poses(world[0], world[1], world[2], source=world[3], arc=arc), rows, columns)


def _turns(told: Parameters) -> np.ndarray:
    """(views, 3, 3): from the gantry's frame to the world, the inverse of Rz(-in) Rx(-out) Ry(-gantry)."""
    names = (("GantryAngle", 1), ("OutOfPlaneAngle", 0), ("InPlaneAngle", 2))
    made = np.eye(3)[None]
    for name, axis in names:
        angle = np.radians(told[name])
        turn = np.zeros((len(angle), 3, 3))
        a, b = [(1, 2), (2, 0), (0, 1)][axis]
        turn[:, axis, axis] = 1
        turn[:, a, a] = turn[:, b, b] = np.cos(angle)
        turn[:, b, a], turn[:, a, b] = np.sin(angle), -np.sin(angle)
        made = made @ turn
    return np.asarray(made)


register(Format("RTK", CT, (".xml",), read_rtk, lambda path: _ROOT in glance(path), asks=("axis", "prepare")))
