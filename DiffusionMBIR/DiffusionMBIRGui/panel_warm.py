"""Keeps an engine warm while the panel is in use, so that a run shows itself at once.  Needs no Qt."""

from __future__ import annotations

from typing import Any

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.jobs.standby import Standby

from .setup import Engine, Report

LEAST_FREE = 2_000_000_000  # bytes: where less is free, nothing is kept that is not needed yet


class WarmEngine:
    """One waiting process at most: none while a job runs, another one after it.  It ends by itself when nobody uses
    the panel for some minutes; whatever is done in the panel then starts it again.
    """

    def __init__(self) -> None:
        self.enabled = True  # False where nothing is to be started unasked
        self.standby: Standby | None = None
        self._engine: Engine | None = None

    def look(self, engine: Engine | None, report: Report | None, device: str) -> None:
        """Be ready for the engine that is set, if it works.  device: that the next run is for."""
        if (
            not self.enabled
            or engine is None
            or engine.remote
            or report is None
            or not report.ready
            or _is_short(report)
        ):
            self.close()
            return
        if self.standby is not None and self.standby.alive and self._engine == engine:
            return
        self.close()
        try:
            self.standby, self._engine = Standby(engine.command, engine.variables(), device=device), engine
        except InputError:  # the run itself will say so
            self.close()

    def take(self) -> Standby | None:
        """What is ready, for a job that begins now."""
        ready, self.standby = self.standby, None
        return ready

    def close(self) -> None:
        """End what waits."""
        if self.standby is not None:
            self.standby.close()
        self.standby = self._engine = None


def _is_short(report: Report) -> bool:
    free: Any = next((device.free for device in report.devices if device.name == "cpu"), 0)
    return bool(free and free < LEAST_FREE)
