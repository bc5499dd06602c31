"""Measured parallel-beam projections: Data Exchange (HDF5), and folders of TIFF images with a list of angles.

Both hold counts, with images without an object (flat) and without a beam (dark).  Neither tells the size of a pixel,
the rotation axis' place or the attenuation of water in ways that one can rely on: they are estimated, and listed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import Grid, ParallelBeam
from ..scans import Measurement
from .hdf5 import Fields
from .kspace_scan import require_memory

_TIFF = (".tif", ".tiff")
_ANGLES = "angles.txt"
_LARGEST_TEXT = 1 << 22
_WEAKEST_FLAT = 0.05  # of the median; darker pixels of the detector are blind
_LEAST_TRANSMISSION = 1e-4
_PIXEL_MM = 1.0
_AIR = 0.05  # of the largest line integral; what the edges of the detector may see at most
_SAME_ANGLE_DEG = 0.01
_OPPOSITE_DEG = 1.0
_LEAST_RANGE_DEG = 60.0  # for the path of the centre of mass


@dataclass
class _Counts:
    """counts (views, rows, columns), flat and dark (rows, columns)."""

    name: str
    source: str
    counts: np.ndarray
    flat: np.ndarray
    dark: np.ndarray
    angles_deg: np.ndarray
    remarks: list[str]


def is_data_exchange(fields: Fields) -> bool:
    """True if an open HDF5 file follows the Data Exchange layout."""
    return fields.has("exchange") and fields.has("exchange/data")


def read_data_exchange(fields: Fields) -> Measurement:
    """Read an open file.  Raises InputError for what is missing or does not fit."""
    name = str(fields.path)
    for needed in ("exchange/data_white", "exchange/data_dark", "exchange/theta"):
        if not fields.has(needed):
            raise InputError(f"{name}: lacks the dataset {needed}; projections need flat and dark images and angles")
    counts = _stack(fields, "exchange/data")
    flat, dark = (_stack(fields, f"exchange/data_{kind}").mean(axis=0) for kind in ("white", "dark"))
    angles = np.asarray(fields.numbers("exchange/theta")[()], dtype=float).reshape(-1)
    unit = fields.file["exchange/theta"].attrs.get("units", "degrees")
    if str(unit.decode() if isinstance(unit, bytes) else unit).lower().startswith("rad"):
        angles = np.degrees(angles)
    return _measurement(_Counts(name, "Data Exchange HDF5", counts, flat, dark, angles, []))


def _stack(fields: Fields, key: str) -> np.ndarray:
    node = fields.numbers(key)
    if node.ndim != 3:
        raise InputError(f"{fields.path}: {key} must be (views, rows, columns), not {node.shape}")
    require_memory(str(fields.path), node.shape)
    return np.asarray(node[()], dtype=np.float32)


def is_projection_folder(path: Path) -> bool:
    """True for a folder that holds ``angles.txt`` and TIFF images, there or in one folder below."""
    return (path / _ANGLES).is_file()


def read_projection_folder(path: Path) -> Measurement:
    """Read TIFF projections, one a view in the order of their numbers, beside images named flat... and dark...

    Raises InputError for what is missing or does not fit.
    """
    if not is_projection_folder(path):
        raise InputError(f"{path}: no folder of projections; it lacks {_ANGLES}, one angle in degrees a line")
    images = sorted((p for p in path.iterdir() if p.suffix.lower() in _TIFF), key=_number)
    flats = [p for p in images if p.name.lower().startswith("flat")]
    darks = [p for p in images if p.name.lower().startswith("dark")]
    views = [p for p in images if p not in flats and p not in darks]
    for folder in sorted(p for p in path.iterdir() if p.is_dir() and not p.is_symlink()):
        views += sorted((p for p in folder.iterdir() if p.suffix.lower() in _TIFF), key=_number)
    for what, found in (("projections", views), ("flat images (flat*.tif)", flats), ("dark images", darks)):
        if not found:
            raise InputError(f"{path}: holds no {what}; they are needed as TIFF")
    first = _tiff(views[0])
    require_memory(str(path), (len(views), *first.shape))
    counts = np.stack([_tiff(p, first.shape) for p in views])
    flat, dark = (np.mean([_tiff(p, first.shape) for p in group], axis=0) for group in (flats, darks))
    remarks: list[str] = []
    angles = _matching(_angles(path / _ANGLES), len(views), path, remarks)
    return _measurement(_Counts(str(path), "TIFF folder", counts, flat, dark, angles, remarks))


def _number(path: Path) -> tuple[int, str]:
    digits = re.findall(r"\d{1,18}", path.stem)
    return (int(digits[-1]) if digits else -1), path.name


def _tiff(path: Path, shape: tuple[int, ...] | None = None) -> np.ndarray:
    from .volumes import quiet_itk, simple_itk

    try:
        with quiet_itk():
            array: Any = simple_itk().GetArrayFromImage(simple_itk().ReadImage(str(path)))
    except RuntimeError as error:
        raise InputError(f"{path}: cannot be read as TIFF; is it truncated?") from error
    if array.ndim != 2 or (shape is not None and array.shape != shape):
        raise InputError(f"{path}: is an image of {array.shape}; one grey image of {shape or 'two axes'} is needed")
    return np.asarray(array, dtype=np.float32)


def _angles(path: Path) -> np.ndarray:
    try:
        if path.stat().st_size > _LARGEST_TEXT:
            raise ValueError
        angles = np.array([float(word) for word in path.read_text(encoding="ascii").split()])
    except (ValueError, OSError):
        raise InputError(f"{path}: must hold one angle in degrees a line, nothing else") from None
    return angles


def _matching(angles: np.ndarray, views: int, path: Path, remarks: list[str]) -> np.ndarray:
    """The angles of the views; those of flat and dark images repeat the first and the last angle."""
    if len(angles) == views or not len(angles):
        return angles
    at_first, at_last = (np.abs(angles - end) <= _SAME_ANGLE_DEG for end in (angles[0], angles[-1]))
    begin, end = int((~at_first).argmax()), len(angles) - int((~at_last[::-1]).argmax())
    moving = angles[max(begin - 1, 0) : end + 1]
    if len(moving) != views:
        raise InputError(f"{path}: {_ANGLES} lists {len(angles)} angles for {views} projections; make them equal")
    remarks.append(f"{len(angles) - views} of {len(angles)} angles repeat the first or last and are left out")
    return moving


# --- counts to line integrals


def _measurement(raw: _Counts) -> Measurement:
    views, rows, columns = raw.counts.shape
    if raw.flat.shape != (rows, columns) or raw.dark.shape != (rows, columns):
        raise InputError(
            f"{raw.name}: flat {raw.flat.shape} and dark {raw.dark.shape} must have the size of the projections "
            f"{(rows, columns)}"
        )
    if len(raw.angles_deg) != views:
        raise InputError(f"{raw.name}: lists {len(raw.angles_deg)} angles for {views} projections; make them equal")
    if not np.isfinite(raw.angles_deg).all():
        raise InputError(f"{raw.name}: an angle is NaN or infinite; repair it")
    line = np.ascontiguousarray(_line_integrals(raw).swapaxes(0, 1))  # (slices, views, columns)
    centre, how = _rotation_centre(line, raw.angles_deg, raw.name)
    offset = ((columns - 1) / 2 - centre) * _PIXEL_MM
    grid = Grid((rows, columns, columns), (_PIXEL_MM, _PIXEL_MM, _PIXEL_MM))
    water = _typical_attenuation(line)
    guessed = [
        f"pixels of {_PIXEL_MM:g} mm (the file does not tell)",
        f"rotation axis at column {centre:.2f}, {how}",
        f"mu_water_per_mm {water:.4g}, so that the object has about 0 HU",
        "sense of rotation; else the slices are mirrored",
    ]
    edges = float(np.median(line[..., [0, 1, 2, -3, -2, -1]])) if columns > 6 else 0.0
    if edges > _AIR * line.max():
        raw.remarks.append(
            f"the edges of the detector see {edges:.2f} (air: 0); the object is cut off, or the beam has weakened"
        )
    return Measurement(
        line,
        ParallelBeam(tuple(float(a) for a in raw.angles_deg), columns, _PIXEL_MM, offset),
        grid,
        mu_water_per_mm=water,
        provenance={"source": raw.source, "guessed": guessed, "remarks": raw.remarks},
        name=raw.name,
    )


def _line_integrals(raw: _Counts) -> np.ndarray:
    """-log of the transmission; blind pixels of the detector take the value of their nearest seeing neighbour."""
    beam = raw.flat - raw.dark
    blind = ~(beam > _WEAKEST_FLAT * np.median(beam))
    if blind.mean() > 0.5:
        raise InputError(f"{raw.name}: the flat image is not brighter than the dark one; are they exchanged?")
    transmission = (raw.counts - raw.dark) / np.where(blind, 1, beam)
    line: np.ndarray = -np.log(np.maximum(transmission, _LEAST_TRANSMISSION)).astype(np.float32)
    if blind.any():
        seeing = np.flatnonzero(~blind.all(axis=1))
        for row in seeing:
            good = np.flatnonzero(~blind[row])
            nearest = good[np.abs(np.arange(blind.shape[1])[:, None] - good).argmin(axis=1)]
            line[:, row] = line[:, row][:, nearest]
        for row in np.flatnonzero(blind.all(axis=1)):
            line[:, row] = line[:, seeing[np.abs(seeing - row).argmin()]]
        raw.remarks.append(f"{int(blind.sum())} blind pixels of the detector take their neighbour's value")
    return line


def _rotation_centre(line: np.ndarray, angles_deg: np.ndarray, name: str) -> tuple[float, str]:
    """Column of the rotation axis, and how it was found: opposite views, or else the path of the centre of mass."""
    profiles = line.mean(axis=0, dtype=np.float64)  # (views, columns)
    columns = profiles.shape[1]
    opposite = _opposite_views(angles_deg)
    if opposite:
        centre = float(np.median([_mirror_axis(profiles[i], profiles[j]) for i, j in opposite]))
        how = "from opposite views"
    elif len(angles_deg) >= 3 and np.ptp(angles_deg) >= _LEAST_RANGE_DEG and (profiles.sum(axis=1) > 0).all():
        angles = np.radians(angles_deg)
        basis = np.stack([np.ones_like(angles), np.cos(angles), np.sin(angles)], axis=1)
        path = profiles @ np.arange(columns) / profiles.sum(axis=1)
        centre, how = float(np.linalg.lstsq(basis, path, rcond=None)[0][0]), "from the path of the centre of mass"
    else:
        return (columns - 1) / 2, "in the middle of the detector"
    if not columns * 0.1 < centre < columns * 0.9:
        raise InputError(f"{name}: its rotation axis cannot be found; is the object cut off, or the beam not parallel?")
    return centre, how


def _opposite_views(angles_deg: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of views half a turn apart, which see the object mirrored."""
    difference = np.abs(np.abs(angles_deg[:, None] - angles_deg) - 180)
    nearest = difference.argmin(axis=1)
    return [(i, int(j)) for i, j in enumerate(nearest) if i < j and difference[i, j] <= _OPPOSITE_DEG]


def _mirror_axis(view: np.ndarray, opposite: np.ndarray) -> float:
    """Where to mirror one profile for the best fit of its edges with the other, to a fraction of a column."""
    a, b = np.gradient(view), -np.gradient(opposite)[::-1]
    length = 2 * len(view)
    fit = np.fft.irfft(np.fft.rfft(a, length) * np.conj(np.fft.rfft(b, length)), length)
    top = int(fit.argmax())
    left, middle, right = fit[top - 1], fit[top], fit[(top + 1) % length]
    bend = left - 2 * middle + right
    shift = top + (0.5 * (left - right) / bend if bend < 0 else 0.0)
    return (len(view) - 1 + (shift - length if shift > len(view) else shift)) / 2


def _typical_attenuation(line: np.ndarray) -> float:
    """Mean attenuation per mm over a disc as wide as the object."""
    profiles = line.mean(axis=0, dtype=np.float64)  # (views, columns)
    across = np.count_nonzero(profiles > 0.2 * profiles.max(axis=1, keepdims=True), axis=1)
    wide = float(np.median(across)) * _PIXEL_MM
    value = float(np.median(profiles.sum(axis=1))) * _PIXEL_MM / (np.pi / 4 * wide**2) if wide else 0.0
    return value if value > 0 else 1.0
