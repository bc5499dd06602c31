"""What is to be run and where it is to appear: from the settings of a scene, or from nodes and choices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.jobs.asking import ask
from DiffusionMBIRLib.jobs.folder import JobFolder
from DiffusionMBIRLib.jobs.request import Request, file_input, folder_input
from DiffusionMBIRLib.scans import KSpace, Measurement, Scan
from DiffusionMBIRLib.tasks import task_info
from DiffusionMBIRLib.volume import Volume

from .inputs import complex_coils, kspace_input, problem_with_file, sinogram_input, volume_input
from .parameters import Parameters
from .texts import _, how, kind_of_method, no_input
from .told import told_of_file

Asked = tuple[Request, "Scan | Volume | None"]


@dataclass(frozen=True)
class Plan:
    """One run.

    name: of the output volume, if a new one is made.  method: for the table of results.  ask: makes the request and the
    scan or volume that goes with it; called in a thread, so that it touches no node.  beside: the input's node.
    output: the node to fill, None for a new one; made: called with the node that is filled.  reference: what the
    result is judged by where no truth is known.  record: keep the previews.  folder: an existing job to go on with.
    """

    name: str
    method: str
    ask: Callable[[], Asked]
    beside: Any = None
    output: Any = None
    made: Callable[[Any], None] | None = None
    reference: Volume | None = None
    judge: Any = None
    record: bool = False
    folder: JobFolder | None = None


def plan_of(parameters: Parameters) -> Plan:
    """The plan that the settings of a scene describe.  Its ``ask`` copies the voxels first: the node may change then.

    Raises InputError in one line that says what is missing.
    """
    settings, task, source = parameters.settings(), parameters.get("task"), parameters.get("source")
    path = parameters.input_file
    node = None if path else parameters.input_node
    title, make = request_of(parameters, node, path)
    return Plan(
        parameters.get("output_name").strip() or default_name(title, settings),
        kind_of_method(settings.method),
        make,
        beside=node,
        output=_empty(parameters.output_node),
        made=lambda output: parameters.set_node("output", output),
        reference=_reference(parameters.reference_node, task) if source != "volume" else None,
        judge=_judge(parameters, node),
        record=bool(parameters.get("record_sequence")),
    )


def request_of(parameters: Parameters, node: Any, path: str) -> tuple[str, Callable[[], Asked]]:
    """(title, what makes the request) of a file, or else of a node, with the settings as they are now.

    What it returns may be called in a thread.  Raises InputError in one line that says what is wrong with the input.
    """
    settings, source = parameters.settings(), parameters.get("source")
    if path:
        told = told_of_file(parameters)
        return _of_file(path, source, parameters.get("task"), parameters.request_scan(), settings, told)
    return _of_node(node, source, parameters, settings)


def default_name(title: str, settings: ReconSettings) -> str:
    """The name of the volume that a run makes, unless the user gives one."""
    return f"{title}, {how(settings)}"


def _empty(node: Any) -> Any:
    """A node that was prepared for a result; None for one that holds voxels, which no run overwrites."""
    held = getattr(node, "GetImageData", lambda: None)()
    return node if held is None else None


def _of_file(
    path: str, source: str, task: str, scan: Mapping[str, Any], settings: ReconSettings, told: Mapping[str, Any]
) -> tuple[str, Callable[[], Asked]]:
    problem = problem_with_file(path, source)
    if problem:
        raise InputError(problem)
    file = Path(path)

    def make() -> Asked:
        entries = {**file_input(file), **told}
        return Request(file.name, entries, task, dict(scan), asdict(settings), settings.device), None

    return file.name.partition(".")[0], make


def _of_node(
    node: Any, source: str, parameters: Parameters, settings: ReconSettings
) -> tuple[str, Callable[[], Asked]]:
    if node is None:
        raise InputError(no_input(source))
    task, name, inside = parameters.get("task"), node.GetName(), _inside(node, source, parameters)
    scan = parameters.request_scan()

    def make() -> Asked:  # in the thread: the copy of a large volume takes long
        copy = inside()
        return Request(name, folder_input(copy), task, scan, asdict(settings), settings.device), copy

    return name, make


def _inside(node: Any, source: str, parameters: Parameters) -> Callable[[], Scan | Volume]:
    """What makes a scan or volume of a copy of the node's voxels.  Raises InputError for a node that cannot be one."""
    task, name = parameters.get("task"), node.GetName()
    if source == "k-space":
        array, grid = kspace_input(node)
        return lambda: KSpace.zero_filled(complex_coils(array), grid, name=name)
    if source == "sinogram":
        array, geometry, grid = sinogram_input(node, 0, parameters.get("angle_range_deg"))
        return lambda: Measurement(np.array(array), geometry, grid, task=task, name=name)
    array, grid = volume_input(node)
    return lambda: Volume(np.array(array), grid, unit=task_info(task).unit, name=name)


def _judge(parameters: Parameters, node: Any) -> Any:
    """What a result is judged by: the volume that was scanned; thick slices are no truth of thin ones."""
    if parameters.get("source") != "volume":
        return parameters.reference_node
    return None if task_info(parameters.get("task")).of_slices else node


def _reference(node: Any, task: str) -> Volume | None:
    if node is None:
        return None
    try:
        array, grid = volume_input(node)
    except InputError:
        return None
    return Volume(np.array(array), grid, unit=task_info(task).unit, name=node.GetName())


def as_source(source: Any) -> tuple[Any, Grid | None]:
    """A copy of a volume node's voxels and its grid; anything else as it is.  Raises InputError in one line."""
    if source is None or (isinstance(source, str) and not source):
        raise InputError(_("Name a volume node or a file."))
    if not hasattr(source, "GetImageData"):
        return source, None
    array, grid = volume_input(source)
    return np.array(array), grid


def plan_from(
    source: Any,
    output: Any = None,
    *,
    name: str = "",
    task: str | None = None,
    preset: str | None = None,
    reference: Any = None,
    record: bool = False,
    choices: Mapping[str, Any] | None = None,
) -> Plan:
    """The plan of a reconstruction from a volume node, a file, an array or a measurement; choices as in ``ask``."""
    node = source if hasattr(source, "GetImageData") else None
    title = name or (node.GetName() if node is not None else "")
    source, grid = as_source(source)
    request, inside = ask(source, task=task, name=title, grid=grid, preset=preset, choices=choices)
    settings = request.recon_settings()
    return Plan(
        default_name(request.name.partition(".")[0] or _("volume"), settings),
        kind_of_method(settings.method),
        lambda: (request, inside),
        beside=node,
        output=output,
        reference=_reference(reference, request.task),
        judge=reference or (node if inside is None or isinstance(inside, Volume) else None),
        record=record,
    )
