"""Volumes as stacks of slices: found, read into the value scale, split by patient."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..geometry import Grid
from ..hounsfield import doubt_of
from ..io.volumes import has_volume_suffix, read_volume
from ..models import MR_PERCENTILE, MR_VALUE, ValueScale
from ..monitor import Monitor

AIR_HU, CLIP_HU = -1000.0, (-1024.0, 3071.0)
LEAST_SIDE_PX = 16  # of a slice: below this there is nothing to learn from
QUARTER_PX = 48  # least side of slices at quarter size, where bodies are few pixels wide
ISOTROPIC = 1.25  # largest ratio of spacings at which a volume is cut in all three planes
NEARLY_ISOTROPIC = 1.4  # the same where its slices are resampled to square pixels


@dataclass
class Stack:
    """Slices of one volume at full, half and, of large ones, quarter size, (slices, rows, columns) float16 in the value
    scale.

    spacing_mm: side of a pixel at full size, along columns and rows the geometric mean.  aspect: its side along rows
    over that along columns.  across: whether the slices lie across those that were acquired.
    """

    patient: str
    name: str
    spacing_mm: float
    levels: list[Tensor] = field(default_factory=list)
    aspect: float = 1.0
    across: bool = False


def patient_of(path: Path, pattern: str | None) -> str:
    """The patient of a file or DICOM folder: its name without extension, or what ``pattern`` finds.

    The pattern is searched in that name and, failing that, in the whole path; its first group counts if it has one.
    """
    stem = path.name if path.is_dir() else path.name.split(".")[0]
    if pattern is None:
        return stem
    try:
        match = re.search(pattern, stem) or re.search(pattern, path.as_posix())
    except re.error as error:
        raise InputError(f"--patient-regex {pattern!r} is no regular expression ({error})") from None
    if match is None:
        raise InputError(f"{path}: --patient-regex {pattern!r} does not match this name")
    return match.group(1) if match.groups() else match.group(0)


def _is_dicom(path: Path) -> bool:
    """True for a file with a DICOM suffix or, since many exports have none, with the DICM mark."""
    if path.name.upper() == "DICOMDIR":
        return False
    if path.suffix.lower() in (".dcm", ".ima", ".dicom"):
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def find_volumes(folders: Sequence[str | Path], glob: str) -> list[Path]:
    """Volume files below the folders whose names fit the glob, and folders that hold such DICOM files directly.

    Each is listed once; the order depends on names alone.
    """
    found: list[Path] = []
    for folder in map(Path, folders):
        if folder.is_file():
            found.append(folder)
            continue
        if not folder.is_dir():
            raise InputError(f"{folder}: no such file or folder")
        files = [p for p in sorted(folder.rglob(glob)) if p.is_file() and not p.name.startswith(".")]
        found += [p for p in files if has_volume_suffix(p)]
        found += sorted({p.parent for p in files if not has_volume_suffix(p) and _is_dicom(p)})
    if not found:
        raise InputError(f"no volume found that fits {glob!r} in: {', '.join(map(str, folders))}")
    return list(dict.fromkeys(found))


def background(value: ValueScale) -> float:
    """What lies outside the body, in the value scale: air for CT, no signal otherwise."""
    return ((AIR_HU if value.unit == "HU" else 0.0) - value.offset) / value.scale


def load_stacks(path: Path, pattern: str | None, value: ValueScale, *, across: bool = False) -> list[Stack]:
    """Read one volume as stacks of slices in the value scale.

    CT: one stack in axial order; what lies outside the field of view (below -1024 HU) becomes air, metal is clipped.
    MR ('p99.5'): the planes that were acquired, all three of an isotropic volume, in multiples of its percentile.
    across: also the other two planes of nearly isotropic volumes, whose pixels are not quite square.
    """
    volume, doubt = read_volume(path), ""
    if value.unit == "HU":
        doubt = doubt_of(volume)
        volume, _ = volume.axial()
        array = volume.array.astype(np.float32)
        array = np.minimum(np.where(array < CLIP_HU[0], np.float32(AIR_HU), array), np.float32(CLIP_HU[1]))
        acquired: tuple[int, ...] = (0,)
    else:
        array = volume.array.astype(np.float32)
        if value.unit == MR_VALUE.unit:
            array = _by_percentile(array, path)
        acquired = _acquired(array, volume.grid)
    rows, columns = (n for axis, n in enumerate(array.shape) if axis != acquired[0])
    if min(rows, columns) < LEAST_SIDE_PX:
        raise InputError(f"{path}: slices of {rows} x {columns} are too small to learn from; leave this volume out")
    if doubt:
        raise InputError(f"{path}: {doubt}; leave this volume out, or bring it in HU")
    patient, scaled = patient_of(path, pattern), (array - np.float32(value.offset)) / np.float32(value.scale)
    others = [axis for axis in range(3) if axis not in acquired]
    axes = [*acquired, *others] if across and _is_isotropic(array, volume.grid, NEARLY_ISOTROPIC) else acquired
    return [_stack(patient, path.name, volume.grid, scaled, axis, axis in others) for axis in axes]


def read_stacks(
    folders: Sequence[str | Path],
    glob: str,
    pattern: str | None,
    value: ValueScale,
    monitor: Monitor,
    *,
    across: bool = False,
) -> list[Stack]:
    """The stacks of all volumes below the folders, as :func:`find_volumes` and :func:`load_stacks` take them."""
    files, stacks = find_volumes(folders, glob), []
    for number, path in enumerate(files, start=1):
        stacks += load_stacks(path, pattern, value, across=across)
        monitor.tick("read volumes", number, len(files))
    return stacks


def _by_percentile(array: np.ndarray, path: Path) -> np.ndarray:
    top = float(np.percentile(np.abs(array), MR_PERCENTILE))
    if not top > 0:
        raise InputError(f"{path}: nearly all voxels are zero; leave this volume out")
    return array / np.float32(top)


def _is_isotropic(array: np.ndarray, grid: Grid, ratio: float) -> bool:
    return max(grid.spacing_mm) <= ratio * min(grid.spacing_mm) and min(array.shape) >= LEAST_SIDE_PX


def _acquired(array: np.ndarray, grid: Grid) -> tuple[int, ...]:
    """The axis of the longest spacing, which slices lie across, or all three of an isotropic volume."""
    if _is_isotropic(array, grid, ISOTROPIC):
        return (0, 1, 2)
    return (int(np.argmax(grid.spacing_mm[::-1])),)


def _stack(patient: str, name: str, grid: Grid, array: np.ndarray, axis: int, across: bool) -> Stack:
    """The slices of an array (z, y, x) across one axis."""
    levels = [torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, axis, 0)))]
    while len(levels) < 2 or (len(levels) == 2 and min(levels[1].shape[1:]) >= 2 * QUARTER_PX):
        rows, columns = (n // 2 * 2 for n in levels[-1].shape[1:])
        levels.append(F.avg_pool2d(levels[-1][:, None, :rows, :columns], 2)[:, 0])
    row_mm, column_mm = (mm for k, mm in enumerate(grid.spacing_mm[::-1]) if k != axis)
    side = math.sqrt(row_mm * column_mm)
    return Stack(patient, name, side, [level.half() for level in levels], row_mm / column_mm, across)


def split_by_patient(
    stacks: Sequence[Stack], held_out: Sequence[str], fraction: float
) -> tuple[list[Stack], list[Stack]]:
    """(train, held-out) stacks; no patient is in both.  Named patients, or the last ``fraction`` in sorted order."""
    patients = sorted({s.patient for s in stacks})
    unknown = [p for p in held_out if p not in patients]
    if unknown:
        raise InputError(f"--hold-out {unknown[0]!r} is not a patient; patients: {', '.join(patients)}")
    chosen = set(held_out) or set(patients[len(patients) - max(1, round(fraction * len(patients))) :])
    if len(chosen) >= len(patients):
        raise InputError(f"{len(patients)} patient(s) cannot be split into training and held-out data; bring more")
    return [s for s in stacks if s.patient not in chosen], [s for s in stacks if s.patient in chosen]
