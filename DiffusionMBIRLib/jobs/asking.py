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
from ..formats import SCAN, may_hold
from ..geometry import Grid
from ..io.trajectory_scan import ToldTrajectory
from ..provenance import file_name
from ..scans import Scan
from ..simulation.settings import scan_names
from ..tasks import SPARSE_VIEW, THIN_SLICES, task_info
from ..usual import usual_settings
from ..volume import Volume
from .request import Request, file_input, folder_input, require_unchanged

_FILES = ("weights", "trajectory", "sequence")
TOLD = (  # of files that do not tell them: of projections, and of k-space along a trajectory
    "pixel_mm", "axis", "prepare", "weights", *(item.name for item in fields(ToldTrajectory)),
)  # fmt: skip
Source = np.ndarray | Volume | Scan | str | os.PathLike[str]


def ask(
    source: Source,
    *,
    task: str | None = None,
    name: str = "",
    grid: Grid | None = None,
    preset: str | None = None,
    choices: Mapping[str, Any] | None = None,
) -> tuple[Request, Scan | Volume | None]:
    """The request of a reconstruction, and the scan or volume that goes into the job's folder with it.

    source: a volume (slices, rows, columns) as an array in HU (of MRI: magnitudes) with ``grid``, or as a Volume; a
    scan (Measurement or KSpace); or a file or DICOM folder, whatever ``diffusionmbir info`` knows.  Of a volume a
    scan is simulated.
    choices: settings of the scan and of the reconstruction by name; ``seed`` serves both.  Of files also what ``read``
    takes: of projections pixel_mm, axis and prepare, of k-space along a trajectory its file, unit and others; of a
    volume, ``trajectory`` is the way of its simulated scan.
    Raises InputError that names what is unknown or does not fit.
    """
    choices = dict(choices or {})
    told = {name: choices.pop(name) for name in TOLD if name in choices and not _of_a_simulation(name, source)}
    told |= {name: _place(told[name]) for name in _FILES if name in told}
    entries, inside, measured = _input(source, grid, task, told)
    task = _of_volume(source, task or (measured.task if measured else SPARSE_VIEW))
    scan, settings = _split(choices, task, is_measured=measured is not None)
    if measured is None or preset or "method" in settings:
        chosen = ReconSettings.preset(preset or task_info(task).preset, **settings)
    else:
        chosen = replace(usual_settings(measured, metal_hu=settings.get("metal_hu", 0.0)).settings, **settings)
    title = name or (file_name(source) if isinstance(source, str | os.PathLike) else getattr(source, "name", "volume"))
    return Request(str(title), entries, task, scan, asdict(chosen), chosen.device), inside


def _input(
    source: Source, grid: Grid | None, task: str | None, told: dict[str, Any]
) -> tuple[dict[str, Any], Scan | Volume | None, Scan | None]:
    """(entries of the request, what goes into the job's folder, the scan where it is one)."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return {**file_input(path), **told}, None, _scan_of_file(path, told)
    for name in told:
        raise InputError(f"setting {name!r} is for files of measurements only; leave it out")
    if isinstance(source, np.ndarray):
        source = Volume(source, grid or Grid(source.shape), unit=task_info(task or SPARSE_VIEW).unit)
    return folder_input(source), source, source if isinstance(source, Scan) else None


def read_input(entries: Mapping[str, Any]) -> Any:
    """The scan or volume of a request's input that lies in a file.  Raises InputError, also where it has changed."""
    from ..io.volumes import read_volume

    require_unchanged(dict(entries))
    path = Path(entries["path"])
    told = {name: entries[name] for name in TOLD if name in entries}
    return _scan_of_file(path, told) if may_hold(path, SCAN) else read_volume(path)


def _scan_of_file(path: Path, told: dict[str, Any]) -> Scan | None:
    if may_hold(path, SCAN):
        from ..io.scans import read_scan

        return read_scan(path, **told)
    for name in told:
        raise InputError(f"{path}: {name} is for measurements that do not tell it; leave it out")
    return None


def _of_a_simulation(name: str, source: Source) -> bool:
    """Whether ``trajectory`` is the setting of a simulated scan, not a file."""
    return name == "trajectory" and not (isinstance(source, str | os.PathLike) and may_hold(source, SCAN))


def _place(name: str) -> str:
    """The file of a name wherever the job runs; a bare name that is not here lies beside the measurement."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() or path.name != str(path) else name


def _of_volume(source: Source, task: str) -> str:
    """The task for the modality of a volume that is read, or lies in a file."""
    if task != THIN_SLICES or isinstance(source, np.ndarray | Scan):
        return task
    if not isinstance(source, Volume):
        if may_hold(source, SCAN):
            return task
        from ..io.volumes import read_volume

        source = read_volume(source)
    from ..preparation.thick_slices import task_of

    return task_of(source, task)[0]


def _split(choices: Mapping[str, Any], task: str, *, is_measured: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """(settings of the scan, settings of the reconstruction)."""
    of_scan = () if is_measured else scan_names(task)
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
