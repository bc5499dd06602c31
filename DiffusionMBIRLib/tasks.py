"""The one table of tasks: what was measured, what is missing, and what is usual for it.  Needs the standard library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import InputError

SPARSE_VIEW = "sparse-view-ct"
LIMITED_ANGLE = "limited-angle-ct"
MR_TASK = "compressed-sensing-mri"
MODALITIES = ("CT", "MR")


@dataclass(frozen=True)
class TaskInfo:
    """One kind of measurement.

    name: in files, options and requests.  label: for people.  modality: one of ``MODALITIES``.  preset: its usual
    settings of a reconstruction.  usual: settings of a simulated scan that other tasks of the modality do otherwise.
    """

    name: str
    label: str
    modality: str
    preset: str
    usual: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """Of the values of a volume: HU, or none where only ratios mean something."""
        return "HU" if self.modality == "CT" else ""

    @property
    def published_preset(self) -> str:
        """The preset that follows the papers."""
        return f"published-{self.preset}"

    @property
    def presets(self) -> tuple[str, ...]:
        """All presets of the task, the usual one first."""
        return self.preset, f"{self.preset}-quick", f"{self.preset}-best", self.published_preset


_TABLE = {
    entry.name: entry
    for entry in (
        TaskInfo(SPARSE_VIEW, "Sparse-view CT", "CT", "sparse-view", {"views": 8, "angle_range_deg": 180.0}),
        TaskInfo(LIMITED_ANGLE, "Limited-angle CT", "CT", "limited-angle", {"views": 90, "angle_range_deg": 90.0}),
        TaskInfo(MR_TASK, "Compressed-sensing MRI", "MR", "mri"),
    )
}
TASKS = tuple(_TABLE)
CT_TASKS = tuple(entry.name for entry in _TABLE.values() if entry.modality == "CT")


def task_info(name: str) -> TaskInfo:
    """The entry of a task; raises InputError, listing the tasks, for one that is not known."""
    if name not in _TABLE:
        raise InputError(f"task {name!r} is not known; use one of {', '.join(TASKS)}")
    return _TABLE[name]
