"""On this computer: the job is computed by the process that serves its folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..jobs.control import Control
    from ..jobs.folder import JobFolder
    from ..jobs.messages import Event
    from .base import Runs


class Local:
    """Obeys :class:`DiffusionMBIRLib.engines.base.Engine`."""

    def __init__(self, name: str = "local", host: str = "", python: str = "", options: tuple[str, ...] = ()) -> None:
        self.name, self.where = name, "this computer"

    def task(self, folder: JobFolder, control: Control, send: Callable[[Event], None]) -> Runs:
        from ..jobs.task import Task

        return Task(folder, control, send)

    def describe(self) -> dict[str, Any]:
        from .machine_there import describe_devices

        return describe_devices()
