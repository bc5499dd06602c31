"""Measures how fast this machine is: the network on a few slices, operators and solvers on a small grid."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from . import rates
from .config import ReconSettings
from .devices import memory_of
from .errors import EngineError
from .estimate import Needs, estimate, stages
from .geometry import Grid, ParallelBeam, view_angles
from .methods import NETWORK_METHODS, SUPERVISED_METHODS
from .operators import CartesianFourier, LinearOperator, projector
from .priors.base import Prior, is_out_of_memory
from .priors.checkpoints import load_prior
from .rates import Pace, Place, known_pace
from .solvers.classic import admm_tv
from .streaming import kept_as
from .supervised.methods import SupervisedNetwork, load_network
from .tasks import MR_TASK, SLICE_TASKS, SPARSE_VIEW

if TYPE_CHECKING:
    from .scans import Scan

if TYPE_CHECKING:
    pass

_SIDE = 128  # pixels along rows and columns of what is timed
_SLICES = {"cuda": 64}  # that the network is timed on: on a GPU enough to fill it,
_FEW_SLICES = 4  # elsewhere, or one where that takes long
_LONG_S = 0.4
_SOLVER_SLICES = {"cuda": 64}
_FEW_SOLVER_SLICES = 16
_VIEWS = 8
_SWEEPS = 3
_ENOUGH_S = 0.4  # of timing, warming up left aside
_LEAST_TURNS, _MOST_TURNS = 3, 5
_MOST_S = 3.0  # after which a few turns more would tell too late


def machine() -> str:
    """What :mod:`.rates` calls this machine."""
    return rates.machine_key(threads=torch.get_num_threads(), torch_version=torch.__version__)


def place_of(device: torch.device) -> Place:
    """What :mod:`.rates` calls a device of this machine."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Place(machine(), name)


def pace_of(settings: ReconSettings, task: str, device: torch.device, pixels: int | None = None) -> Pace:
    """The pace of a run on this machine: what was noted before; the rest is measured, in a second or so, and noted.

    pixels: of a slice.

    A network that is to be compiled counts as it is until its first run is over: compiling takes long.  Raises
    InputError where the prior cannot be used, EngineError where there is no memory.
    """
    place = place_of(device)
    found = known_pace(place, settings, task, pixels)
    network, solver = found.network, found.solver
    try:
        if network is None and settings.method in NETWORK_METHODS:
            network = measure_network(_loaded(settings, task, device), device)
            if not settings.compile:
                rates.note(place.network_key(settings), network)
        if solver is None:
            solver = measure_solver(task, device)
            rates.note(place.solver_key(task), solver)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise EngineError(f"no memory on {device} for a few small slices; use another device") from error
    return replace(found, network=network, solver=solver)


def estimate_of(measurement: Scan, settings: ReconSettings, device: torch.device, *, devices: int = 1) -> Needs:
    """What the reconstruction of a measurement will take on this machine; measures its pace where it is not known.

    devices: like this one, a slab of slices on each.
    """
    _slices, rows, columns = measurement.grid.shape
    found = estimate(
        measurement.grid.shape,
        settings,
        measurement.task,
        views=getattr(measurement.geometry, "views_of_a_point", None),
        coils=getattr(measurement.geometry, "coils", 1),
        scanner=measurement.geometry.KIND,
        views_in_all=getattr(measurement.geometry, "views", None),
        pace=replace(pace_of(settings, measurement.task, device, rows * columns), start_s=0.0),  # it has started
        devices=devices,
        own_memory=memory_of(device),
    )
    kept = kept_as(measurement.data)
    return replace(found, text=f"{found.text}; data {kept}") if kept else found


def _loaded(settings: ReconSettings, task: str, device: torch.device) -> Prior | SupervisedNetwork:
    if settings.method in SUPERVISED_METHODS:
        return load_network(settings.prior, settings.method, task, device=device, precision=settings.precision)
    return load_prior(settings.prior, device=device, precision=settings.precision)


def measure_network(prior: Prior | SupervisedNetwork, device: torch.device) -> float:
    """Seconds a pixel and evaluation of a prior, or of a supervised network, on small slices."""
    images = torch.zeros((_SLICES.get(device.type, _FEW_SLICES), prior.card.channels, _SIDE, _SIDE), device=device)

    def evaluate(some: Tensor) -> None:
        if isinstance(prior, SupervisedNetwork):
            prior.restore(some, 1.0, 0)
        else:
            prior.denoise(some, prior.sigma_max)

    with torch.inference_mode():
        first = _once(lambda: evaluate(images[:1]), device)
        images = images[:1] if first > _LONG_S else images
        return _timed(lambda: evaluate(images), device) / (len(images) * _SIDE**2)


def measure_solver(task: str, device: torch.device) -> float:
    """Seconds a unit of the costs in :mod:`.estimate`, from sweeps of total variation on a small grid."""
    shape = (_SOLVER_SLICES.get(device.type, _FEW_SOLVER_SLICES), _SIDE, _SIDE)
    operator = _operator(shape, task, device)
    data = operator.range.ones()
    floor = None if operator.dtype.is_complex else 0.0

    def sweep() -> None:
        admm_tv(operator, data, lam=1e-3, sweeps=_SWEEPS, floor=floor)

    with torch.inference_mode():
        seconds = _timed(sweep, device)
    settings = ReconSettings(method="admm-tv", tv_sweeps=_SWEEPS)
    task = SPARSE_VIEW if task in SLICE_TASKS else task
    return seconds / stages(shape, settings, task, views=_VIEWS, coils=1, pace=Pace(solver=1.0))["ADMM-TV"]


def _operator(shape: tuple[int, int, int], task: str, device: torch.device) -> LinearOperator:
    """The kind of operator that a task has, for one coil or a few views."""
    if task == MR_TASK:
        mask = np.zeros(shape[1:], dtype=bool)
        mask[:, ::2] = True
        return CartesianFourier(mask, shape, device=device)
    grid = Grid(shape)
    operator: LinearOperator = projector(ParallelBeam.covering(grid, view_angles(_VIEWS)), grid, device=device)
    return operator


def _timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call: the least of a few, after one to warm up; what else runs here can only make it look longer."""
    _once(call, device)
    seen: list[float] = []
    while sum(seen) < (_ENOUGH_S if len(seen) >= _LEAST_TURNS else _MOST_S) and len(seen) < _MOST_TURNS:
        seen.append(_once(call, device))
    return min(seen)


def _once(call: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
