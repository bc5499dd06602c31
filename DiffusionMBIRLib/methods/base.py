"""What a method of reconstruction is.  A method is one file of this package, which imports torch only when it is run.

From the table that they fill derive the choices of the setting ``method``, the panel's "which setting belongs to which
method", the command line, the estimate and the tables of the documents.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..discovery import Names
from ..errors import InputError
from ..geometry import Geometry, mixes_slices
from ..tasks import MODALITIES, SLICES, task_info

if TYPE_CHECKING:
    import torch

    from ..config import ReconSettings
    from ..models import ModelCard
    from ..problems import Problem
    from ..scans import Scan
    from .run import Estimate, Run

# Settings that several methods use.
OF_NETWORKS = ("prior", "slices_per_batch", "compile", "precision")
OF_SAMPLERS = (
    *OF_NETWORKS,
    "tile",
    "steps",
    "sigma_start",
    "sigma_end",
    "bin_pixels",
    "samples",
    "uncertainty",
    "seed",
)
OF_STARTS = ("start", "start_sweeps", "tv_lam", "cg_iterations", "cg_lam")
OF_FITS = (
    "published", "lam", "tv_axes", "weigh_spacing", "rho", "cg_steps", "sweeps", "noise_weight", "preconditioner",
    "complex_prior",
)  # fmt: skip
OF_ALL = (  # settings of the scan's operator, whatever the method
    "method", "device", "projector", "metal_hu", "edge_gradient", "virtual_coils",
)  # fmt: skip
_OF_DATA = {  # those that mean nothing elsewhere
    "CT": ("projector", "preconditioner", "metal_hu", "edge_gradient", "tv_grids", "bin_pixels"),
    "MR": ("virtual_coils", "complex_prior", "cg_iterations", "cg_lam"),
}

SPLIT = ("ct", "mr")  # kinds of scans that are divided into slabs

_METHODS: dict[str, Method] = {}


class Method(ABC):
    """One way from data to a volume.

    name: in settings and files.  label: for people.  takes: which ``TaskInfo.data`` it is fit for: scans of a modality,
    thick slices.  settings: what it reads of ``ReconSettings``, besides ``OF_ALL``.  volumes: float32 volumes held at
    once, at the peak.  network: "" for none, "prior" for a diffusion prior, "supervised" for one that was trained for
    this method.  slice_by_slice: takes only scans whose slices do not mix in the data.  slabs: runs on many devices, a
    slab of slices on each.  order: of the choices that a user is shown.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    takes: ClassVar[tuple[str, ...]] = MODALITIES
    settings: ClassVar[tuple[str, ...]] = ()
    volumes: ClassVar[int] = 9
    network: ClassVar[str] = ""
    slice_by_slice: ClassVar[bool] = False
    slabs: ClassVar[bool] = False
    order: ClassVar[int] = 100

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" in vars(cls):
            _METHODS[cls.name] = cls()

    def fits(self, task: str) -> bool:
        """Whether scans of a task can be reconstructed so."""
        return task_info(task).data in self.takes

    def evaluations(self, settings: ReconSettings, task: str, views: int) -> int:
        """Network evaluations a slice, of all samples: exactly what a run counts, but for a prior that has not learnt
        the first level.
        """
        return 0

    def work(self, settings: ReconSettings) -> dict[str, tuple[str, float]]:
        """What each stage costs beside the network: (unit of :mod:`..estimate`, how many).

        A step is one of conjugate gradient, a sweep one of total variation by ADMM.
        """
        return {self.name: ("step", 1)}

    def load(
        self, settings: ReconSettings, network: Any, scan: Scan, device: torch.device
    ) -> tuple[Any, ModelCard | None]:
        """(the network that it needs, its card); raises InputError where it does not fit scan or settings.

        network: id, file or object that takes the place of ``settings.prior``; None to take that.
        """
        return None, None

    @abstractmethod
    def run(self, problem: Problem, settings: ReconSettings, run: Run) -> Estimate:
        """The volume (slices, rows, columns) in the problem's value scale."""


def names(*networks: str) -> Names:
    """The methods with a network of one of these kinds, in order; all methods where none is named."""

    def now() -> list[str]:
        known = [m for m in _METHODS.values() if not networks or m.network in networks]
        return [m.name for m in sorted(known, key=lambda m: m.order)]

    return Names(now)


def method(name: str) -> Method:
    """The method of a name; raises InputError, listing them, for one that is not known."""
    if name not in _METHODS:
        raise InputError(f"setting method: {name!r} is not one of {', '.join(names())}")
    return _METHODS[name]


def methods_for(task: str) -> tuple[str, ...]:
    """The methods that a task can be reconstructed with, ours first and the supervised baselines last."""
    return tuple(name for name in names() if _METHODS[name].fits(task))


def forget_method(name: str) -> None:
    """Take a method out of the table."""
    _METHODS.pop(name, None)


def settings_used(name: str, task: str) -> tuple[str, ...]:
    """The settings of a reconstruction that mean something for a method and a task; the choice of the method is one."""
    data = task_info(task).data
    foreign = {entry for other, entries in _OF_DATA.items() if other != data for entry in entries}
    return tuple(entry for entry in (*OF_ALL, *method(name).settings) if entry not in foreign)


@dataclass(frozen=True)
class Start:
    """A volume that noise may be added to at the first level."""

    name: str
    of: tuple[str, ...] = MODALITIES


STARTS = (
    Start("admm-tv", (*MODALITIES, SLICES)),
    Start("fbp", ("CT",)),
    Start("sense-cg", ("MR",)),
    Start("spline", (SLICES,)),
    Start("noise", (*MODALITIES, SLICES)),
)


def starts_for(task: str) -> tuple[str, ...]:
    """What the noise of the first level may be added to."""
    return tuple(start.name for start in STARTS if task_info(task).data in start.of)


def require_fitting(task: str, settings: ReconSettings, geometry: Geometry | None = None) -> None:
    """Raise InputError for a method or start that does not fit a task, and for a method that does not fit a geometry,
    where that is known.
    """
    for name, value, known in (
        ("method", settings.method, methods_for(task)),
        ("start", settings.start, starts_for(task)),
    ):
        if value not in known:
            raise InputError(f"setting {name}: {value!r} does not fit the task {task}; use one of {', '.join(known)}")
    if geometry and method(settings.method).slice_by_slice and mixes_slices(geometry):
        known = tuple(name for name in methods_for(task) if not method(name).slice_by_slice)
        raise InputError(
            f"setting method: {settings.method!r} works slice by slice, but slices mix in the data of the geometry "
            f"{geometry.KIND!r}; use one of {', '.join(known)}"
        )
    if task_info(task).data != "CT" and settings.metal_hu:
        raise InputError("setting metal_hu: only raw projections of CT have rays that can be left out; set it to 0")
    if task_info(task).data != "CT" and settings.preconditioner:
        raise InputError("setting preconditioner: it is made for rays; set it to 0")


def require_slabs(scan: Scan, settings: ReconSettings) -> None:
    """Raise InputError for what does not run on many devices, a slab of slices on each."""
    known = ", ".join(name for name in methods_for(scan.task) if _METHODS[name].slabs)
    refused = {
        "thin slices and k-space along a trajectory run": scan.KIND not in SPLIT,
        f"method {settings.method!r} runs": not method(settings.method).slabs,
        "setting published: that code runs": settings.published,
        "setting metal_hu: metal is looked for": bool(settings.metal_hu),
        "setting uncertainty: intervals are made": settings.uncertainty,
        f"projector {settings.projector!r} runs": settings.projector not in ("auto", "own"),
    }
    for what, found in refused.items():
        if found:
            which = f"; many devices do {known}" if what.startswith("method") else ""
            raise InputError(f"{scan.name}: {what} on one device only{which}; leave out --devices")
