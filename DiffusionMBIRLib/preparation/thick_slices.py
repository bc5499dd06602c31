"""From a finished volume to a measurement of thin slices: what its slices average over, and where thin ones lie.

Limits on how many thin slices are made of a thick one, and one line for each volume that cannot be used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import Grid, SliceProfiles
from ..geometry.slices import BOX, GAUSSIAN, TABLE
from ..host_memory import require_room
from ..hounsfield import remarks_on
from ..provenance import alias
from ..scans import ThickSlices
from ..scans.slices import stacked_along
from ..simulation.settings import SliceScan, scan_names, scan_settings
from ..tasks import THIN_SLICES, THIN_SLICES_MR, task_info
from ..volume import Volume

MOST_THIN = {"CT": 4.0, "MR": 3.0}  # thin slices of each thick one, by default
_UNLIKE = 4.0  # times: a thickness that differs more from the slices' distance is an error of one of them
_ROUNDING = 1e-3  # of a slice: spacings in files are rounded


def thick_slices(
    volume: Volume,
    *,
    task: str = THIN_SLICES,
    spacing_mm: float | None = None,
    thickness_mm: float | None = None,
    profile: str | None = None,
    beyond_limit: bool | None = None,
) -> ThickSlices:
    """A volume of thick slices as a measurement that thin ones are reconstructed from.

    task: 'thin-slices' is that of CT or MRI, whichever the volume is.  The other settings stand in
    :class:`~DiffusionMBIRLib.simulation.settings.SliceScan`, with what is usual where they are left out.  What was
    guessed is told in ``notes`` of the result.

    The thin slices cover the same extent as the thick ones: with an integer factor each thick slice is the mean of its
    thin ones (of a box profile that is as wide as the slices are apart).  Raises InputError, in one line that says what
    to do, for a single slice, a thickness that contradicts the distance of the slices, and a spacing that is coarser
    than the volume's or finer than the usual limit.
    """
    given = {"spacing_mm": spacing_mm, "thickness_mm": thickness_mm, "profile": profile, "beyond_limit": beyond_limit}
    task, guessed = task_of(volume, task)
    settings = scan_settings(task, given)
    assert isinstance(settings, SliceScan)
    info = task_info(task)
    if info.modality == "CT" and volume.unit != "HU":
        raise InputError(f"{volume.name}: its unit is {volume.unit!r}; a CT volume in HU is needed")
    axis = thick_axis(volume.grid)
    order = stacked_along(axis)
    stack = order.apply_to_grid(volume.grid)
    grid, told = thin_grid(volume.grid, settings, task, volume.name)
    guessed += told
    count, distance, spacing = stack.shape[0], stack.spacing_mm[2], grid.spacing_mm[2]
    thickness = _thickness(volume, settings, distance, guessed)
    require_room(f"{volume.name}: the thin slices", grid.shape, 4)
    places = tuple((k - (count - 1) / 2) * distance for k in range(count))
    remarks = remarks_on(volume) if info.modality == "CT" else []
    factor = distance / spacing
    if factor > MOST_THIN[info.modality] * (1 + _ROUNDING):
        remarks.append(
            f"{factor:.3g} thin slices of each thick one are more than {MOST_THIN[info.modality]:g}, as far as "
            f"{info.modality} was tried: detail between the slices is mostly the prior's"
        )
    used = {"task": task, **asdict(replace(settings, spacing_mm=spacing, thickness_mm=thickness))}
    record = {"kind": "thick slices", "source": alias(volume.name), "settings": used, "guessed": guessed}
    return ThickSlices(
        np.ascontiguousarray(order.apply(volume.array), np.float32),
        profiles(settings, places, thickness, stack.in_plane),
        grid,
        axis=axis,
        task=task,
        provenance={**record, **({"remarks": remarks} if remarks else {})},
        name=f"thick slices of {alias(volume.name)}",
    )


def slices_of(volume: Volume, task: str, given: Mapping[str, Any]) -> ThickSlices:
    """:func:`thick_slices` with settings by name.  Raises InputError for one that is not of thick slices."""
    for name in given:
        if name not in scan_names(task) or name == "distance_mm":
            raise InputError(f"setting {name} is for simulated scans, not for the task {task}; leave it out")
    return thick_slices(volume, task=task, **given)


def task_of(volume: Volume, task: str) -> tuple[str, list[str]]:
    """The task for a volume of CT or of MRI, and what was guessed of it."""
    if task != THIN_SLICES:
        return task, []
    told = volume.metadata.get("modality", "").upper()
    if volume.unit == "" or told == "MR":
        return THIN_SLICES_MR, []
    if told == "CT" or "units" in volume.metadata or float(volume.array.min()) < 0:
        return task, []
    return THIN_SLICES_MR, [
        f"MRI: the file names no modality and no value is below 0; for CT use HU, for MRI --task {THIN_SLICES_MR}"
    ]


def thin_grid(grid: Grid, settings: SliceScan, task: str, name: str) -> tuple[Grid, list[str]]:
    """The grid of the thin slices, stacked along its first axis, and what was guessed of it.

    Raises InputError, with ``name`` before it, for a single slice and for a spacing that cannot be.
    """
    axis, guessed = thick_axis(grid), list[str]()
    stack = stacked_along(axis).apply_to_grid(grid)
    count, distance = stack.shape[0], stack.spacing_mm[2]
    if count < 2:
        raise InputError(f"{name}: holds one slice; thin slices are made from two or more")
    if axis:
        guessed.append(f"slices are stacked along axis {axis} of the array, the one with the largest spacing")
    spacing = _spacing(name, settings, stack, task_info(task).modality, guessed)
    return around(stack, math.ceil(count * distance / spacing - _ROUNDING), spacing), guessed


def thick_axis(grid: Grid) -> int:
    """The axis of the array that slices are stacked along: the one with the largest spacing, the first among equals."""
    spacing = np.asarray(grid.spacing_mm[::-1])
    return int(np.argmax(spacing > spacing.max() * (1 - _ROUNDING)))


def around(stack: Grid, thin: int, spacing_mm: float) -> Grid:
    """So many slices of this spacing around the middle of a stack."""
    shift = ((stack.shape[0] - 1) * stack.spacing_mm[2] - (thin - 1) * spacing_mm) / 2
    origin = tuple(np.asarray(stack.origin_mm) + stack.matrix[:, 2] * shift)
    return Grid((thin, *stack.in_plane), (*stack.spacing_mm[:2], spacing_mm), origin, stack.direction)


def profiles(
    settings: SliceScan, places_mm: tuple[float, ...], thickness_mm: float, in_plane: tuple[int, int]
) -> SliceProfiles:
    """The profiles that the settings name.  Raises InputError for a file that holds no table."""
    if settings.profile in (BOX, GAUSSIAN):
        return SliceProfiles(places_mm, thickness_mm, in_plane, settings.profile)
    table = read_profile(Path(settings.profile))
    offsets, response = (tuple(float(v) for v in column) for column in table.T)
    return SliceProfiles(places_mm, thickness_mm, in_plane, TABLE, offsets, response)


def read_profile(path: Path) -> np.ndarray:
    """A text file of two columns, distance from a slice's middle in mm and sensitivity: float64 (rows, 2)."""
    if not path.is_file():
        raise InputError(f"setting profile: {str(path)[:200]!r} is neither {BOX}, {GAUSSIAN} nor a file; give one")
    try:
        table = np.loadtxt(path, delimiter="," if "," in path.read_text(encoding="utf-8") else None, ndmin=2)
    except (ValueError, OSError):
        table = np.zeros((0, 0))
    if table.shape[1:] != (2,) or len(table) < 2 or not np.isfinite(table).all():
        raise InputError(f"{path}: must hold two columns of numbers, distance in mm and sensitivity; repair the file")
    return table


def _thickness(volume: Volume, settings: SliceScan, distance: float, guessed: list[str]) -> float:
    told, where = settings.thickness_mm, "setting thickness_mm"
    if not told and "slice_thickness_mm" in volume.metadata:
        told, where = _number(volume.metadata["slice_thickness_mm"]), "its SliceThickness"
    if not told:
        if settings.profile in (BOX, GAUSSIAN):
            guessed.append(f"slices of {distance:.4g} mm, as they are apart: the file tells no SliceThickness")
        return distance
    if not distance / _UNLIKE <= told <= distance * _UNLIKE:
        raise InputError(
            f"{volume.name}: {where} of {told:.4g} mm contradicts slices that are {distance:.4g} mm apart; "
            "give the right one by thickness_mm, or repair the spacing"
        )
    if abs(told / distance - 1) > 0.02 and where.startswith("its"):
        lie = "gaps between slices" if told < distance else "overlapping slices"
        guessed.append(f"{lie}: SliceThickness is {told:.4g} mm, they are {distance:.4g} mm apart")
    return told


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0


def _spacing(name: str, settings: SliceScan, stack: Grid, modality: str, guessed: list[str]) -> float:
    distance, pixel, most = stack.spacing_mm[2], min(stack.spacing_mm[:2]), MOST_THIN[modality]
    spacing = settings.spacing_mm
    if not spacing:
        spacing = max(pixel, distance / most)
        guessed.append(f"thin slices {spacing:.4g} mm apart: pixels are {pixel:.4g} mm, slices {distance:.4g} mm apart")
    if spacing >= distance * (1 - _ROUNDING):
        raise InputError(
            f"{name}: its slices are {distance:.4g} mm apart, {spacing:.4g} mm would be no thinner; "
            "give a smaller spacing_mm"
        )
    if distance / spacing > most * (1 + _ROUNDING) and not settings.beyond_limit:
        raise InputError(
            f"setting spacing_mm: {spacing:.4g} mm makes {distance / spacing:.3g} thin slices of each thick one, "
            f"{modality} carries {most:g}; use {distance / most:.4g} mm or more, or beyond_limit for detail that is "
            "mostly made up"
        )
    return spacing
