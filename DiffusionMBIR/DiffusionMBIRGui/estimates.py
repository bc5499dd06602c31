"""What a run will take, before it begins: of the settings as they are, and of each preset.  Needs no Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.estimate import Needs, estimate
from DiffusionMBIRLib.methods import method
from DiffusionMBIRLib.rates import known_pace
from DiffusionMBIRLib.simulation.settings import CTScan, MRScan, scan_settings
from DiffusionMBIRLib.tasks import task_info

from . import texts
from .parameters import Parameters
from .setup import Device, Report
from .texts import _

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Outlook:
    """What is known of the next run.  shape: (slices, rows, columns) of the grid; views, coils and, of k-space, the
    kind of ``geometry``: of measured data.
    """

    parameters: Parameters
    report: Report | None
    shape: Shape | None
    views: int | None = None
    coils: int | None = None
    geometry: str = ""

    @property
    def device(self) -> Device | None:
        return self.report.device(self.parameters.get("device")) if self.report is not None else None

    @property
    def factor(self) -> int:
        """By how much the grid is made coarser."""
        simulated_ct = self.parameters.get("source") == "volume" and task_info(self.parameters.get("task")).data == "CT"
        return int(self.parameters.get("coarsen")) if simulated_ct else 1

    @property
    def grid(self) -> Shape | None:
        """The grid of the result."""
        if self.shape is None:
            return None
        slices, rows, columns = self.shape
        return slices, max(rows // self.factor, 1), max(columns // self.factor, 1)

    def needs(self, settings: ReconSettings) -> Needs | None:
        """Memory and time with these settings; None where data or engine are not known."""
        device, grid, parameters = self.device, self.grid, self.parameters
        if grid is None or device is None or self.report is None:
            return None
        task = parameters.get("task")
        simulated = parameters.get("source") == "volume" and not task_info(task).of_slices
        pace = known_pace(self.report.place(device), settings, task, grid[1] * grid[2])
        of_scan: dict[str, Any] = {"views": self.views or parameters.get("views"), "coils": self.coils or 1}
        if self.geometry:
            of_scan |= {"scanner": self.geometry}
        if simulated:
            of_scan |= self._simulated(task)
        return estimate(grid, settings, task, pace=pace, simulated=simulated, **of_scan)

    def _simulated(self, task: str) -> dict[str, Any]:
        """What the cost of a simulated scan hangs on; nothing where its settings do not go together."""
        scan = {name: value for name, value in self.parameters.request_scan().items() if name != "seed"}
        try:
            found = scan_settings(task, scan)
        except InputError:  # told when the run is begun
            return {}
        if isinstance(found, CTScan):
            return {"views": found.views_of_a_point, "scanner": found.scanner}
        return {"coils": found.coils, "scanner": found.scanner} if isinstance(found, MRScan) else {}

    @property
    def measured(self) -> bool:
        """Whether the pace of this machine was seen before: nothing is measured once data are chosen."""
        device, parameters = self.device, self.parameters
        if device is None or self.report is None:
            return False
        pace = known_pace(self.report.place(device), parameters.settings(), parameters.get("task"))
        return pace.solver is not None

    def line(self) -> str:
        """What the run as it is set will take, in one line; '' where that is not known."""
        settings, device, grid = self.parameters.settings(), self.device, self.grid
        found = self.needs(settings)
        if found is None or device is None or grid is None:
            return ""
        line = texts.needs(grid, found.memory_bytes, device.total or None, texts.time_of(found.seconds, found.between))
        if device.free and found.memory_bytes > device.free:
            line += ". " + texts.too_little_memory(device.free)
        return line

    def effort(self, preset: str) -> str:
        """What a preset takes, in a word or two: its time, its steps as long as that is not known."""
        try:
            settings = self.parameters.preset_settings(preset)
        except InputError:
            return ""
        found = self.needs(settings)
        if found is not None and found.seconds is not None:
            return texts.time_of(found.seconds, found.between)
        return _("{count} steps").format(count=settings.steps) if "steps" in method(settings.method).settings else ""
