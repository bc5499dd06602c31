"""The one table of tasks: what was measured, what is missing, and what is usual for it.  Needs the standard library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import InputError

SPARSE_VIEW = "sparse-view-ct"
LIMITED_ANGLE = "limited-angle-ct"
MR_TASK = "compressed-sensing-mri"
THIN_SLICES = "thin-slices"
THIN_SLICES_MR = "thin-slices-mri"
SLICES = "slices"
MODALITIES = ("CT", "MR")


@dataclass(frozen=True)
class TaskInfo:
    """One kind of measurement.

    name: in files, options and requests.  label: for people.  modality: one of ``MODALITIES``.  preset: its usual
    settings of a reconstruction.  usual: settings of a simulated scan that other tasks of the modality do otherwise.
    of_slices: the measurement is a finished volume of thick slices, no scan of rays or k-space.
    """

    name: str
    label: str
    modality: str
    preset: str
    usual: Mapping[str, Any] = field(default_factory=dict)
    of_slices: bool = False

    @property
    def unit(self) -> str:
        """Of the values of a volume: HU, or none where only ratios mean something."""
        return "HU" if self.modality == "CT" else ""

    @property
    def data(self) -> str:
        """What its data are, which says what settings and methods mean something: those of a modality, or slices."""
        return SLICES if self.of_slices else self.modality

    @property
    def published_preset(self) -> str:
        """The preset that follows the papers."""
        return f"published-{self.preset}"

    @property
    def presets(self) -> tuple[str, ...]:
        """All presets of the task, the usual one first."""
        own = self.preset, f"{self.preset}-quick", f"{self.preset}-best"
        return own if self.of_slices else (*own, self.published_preset)


_TABLE = {
    entry.name: entry
    for entry in (
        TaskInfo(SPARSE_VIEW, "Sparse-view CT", "CT", "sparse-view", {"views": 8, "angle_range_deg": 180.0}),
        TaskInfo(LIMITED_ANGLE, "Limited-angle CT", "CT", "limited-angle", {"views": 90, "angle_range_deg": 90.0}),
        TaskInfo(MR_TASK, "Compressed-sensing MRI", "MR", "mri"),
        TaskInfo(THIN_SLICES, "Thin slices from thick CT", "CT", "thin-slices", of_slices=True),
        TaskInfo(THIN_SLICES_MR, "Thin slices from thick MRI", "MR", "thin-slices-mri", of_slices=True),
    )
}
TASKS = tuple(_TABLE)
CT_TASKS = tuple(entry.name for entry in _TABLE.values() if entry.data == "CT")
SLICE_TASKS = tuple(entry.name for entry in _TABLE.values() if entry.of_slices)


def task_info(name: str) -> TaskInfo:
    """The entry of a task; raises InputError, listing the tasks, for one that is not known."""
    if name not in _TABLE:
        raise InputError(f"task {name!r} is not known; use one of {', '.join(TASKS)}")
    return _TABLE[name]
