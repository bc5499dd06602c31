"""From what a user has - an array, a volume, a measurement, a file - and flat choices to a job's request."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import ReconSettings
from ..errors import InputError
from ..geometry import Grid
from ..provenance import file_name
from ..reconstruction import preset_for
from ..scans import KSpace, Measurement
from ..tasks import MR_TASK, TASKS
from ..volume import Volume
from .request import Request, file_input

CT_SCAN = ("views", "angle_range_deg", "coarsen", "photons", "electronic_noise", "mu_water_per_mm")
MR_SCAN = ("acceleration", "acs", "mask", "coils", "phase", "noise")
Source = np.ndarray | Volume | Measurement | KSpace | str | os.PathLike[str]


def ask(
    source: Source,
    *,
    task: str | None = None,
    name: str = "",
    grid: Grid | None = None,
    preset: str | None = None,
    choices: Mapping[str, Any] | None = None,
) -> tuple[Request, np.ndarray | None]:
    """The request of a reconstruction, and the array that goes into the job's folder with it.

    source: a volume (slices, rows, columns) as an array in HU (of MRI: magnitudes) with ``grid``, or as a Volume; a
    Measurement or KSpace; or a file or DICOM folder, whatever ``diffusionmbir info`` knows.  Of a volume a scan is
    simulated.
    choices: settings of the scan and of the reconstruction by name; ``seed`` serves both.
    Raises InputError that names what is unknown or does not fit.
    """
    entries, array, measured = _input(source, grid, task)
    task = task or measured or TASKS[0]
    if task not in TASKS:
        raise InputError(f"task {task!r} is not known; use one of {', '.join(TASKS)}")
    scan, settings = _split(choices or {}, task, is_measured=bool(measured))
    chosen = replace(ReconSettings.preset(preset or preset_for(task)), **settings)
    title = name or (file_name(source) if isinstance(source, str | os.PathLike) else getattr(source, "name", "volume"))
    return Request(str(title), entries, task, scan, asdict(chosen), chosen.device), array


def _input(source: Source, grid: Grid | None, task: str | None) -> tuple[dict[str, Any], np.ndarray | None, str]:
    """(entries of the request, array, task of a measurement or '')."""
    if isinstance(source, Measurement):
        known = {key: getattr(source, key) for key in ("photons", "electronic_noise", "mu_water_per_mm")}
        entries = {"kind": "sinogram", "file": "input.npy", "geometry": source.geometry.to_dict(), **known}
        return {**entries, "grid": source.grid.to_dict()}, source.data, source.task
    if isinstance(source, KSpace):
        if source.maps is not None or source.stored_grid is not None:
            raise InputError(f"{source.name}: has coil maps or a grid of its own; write it to a file and give that")
        entries = {"kind": "k-space", "file": "input.npy", "noise_std": source.noise_std}
        return {**entries, "grid": source.grid.to_dict()}, source.data, source.task
    if isinstance(source, np.ndarray):
        source = Volume(source, grid or Grid(source.shape), unit="" if task == MR_TASK else "HU")
    if isinstance(source, Volume):
        entries = {"kind": "volume", "file": "input.npy", "grid": source.grid.to_dict(), "unit": source.unit}
        return entries, source.array, ""
    return file_input(Path(source)), None, _task_of_file(Path(source))


def _task_of_file(path: Path) -> str:
    from ..io.measurements import is_measurement, read_measurement

    return read_measurement(path).task if is_measurement(path) else ""


def _split(choices: Mapping[str, Any], task: str, *, is_measured: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """(settings of the scan, settings of the reconstruction)."""
    of_scan = () if is_measured else MR_SCAN if task == MR_TASK else CT_SCAN
    of_reconstruction = {f.name for f in fields(ReconSettings)}
    for name in choices:
        if name not in of_scan and name not in of_reconstruction:
            what = "of the measurement's reconstruction" if is_measured else f"for the task {task}"
            raise InputError(f"setting {name!r} is not one {what}")
    scan = {name: value for name, value in choices.items() if name in of_scan and value is not None}
    settings = {name: value for name, value in choices.items() if name in of_reconstruction}
    if not is_measured and "seed" in settings:
        scan["seed"] = settings["seed"]
    return scan, settings
