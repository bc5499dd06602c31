"""Measures the engine's pace beside, once data are chosen: presets then say how long they take before the first run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

from .estimates import Outlook
from .setup import HERE, Engine, Process


class PaceWatch:
    """One measurement at a time, and each only once; ``changed()`` is called when one is there."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self.enabled = True  # False where nothing is to be started unasked
        self._process: Process | None = None
        self._tried: set[tuple[object, ...]] = set()

    @property
    def busy(self) -> bool:
        return self._process is not None

    def look(self, outlook: Outlook, engine: Engine | None) -> None:
        """Begin to measure, if the time of the run that is set is not known."""
        settings, task = outlook.parameters.settings(), outlook.parameters.get("task")
        found = outlook.needs(settings)
        if (
            self.busy
            or not self.enabled
            or engine is None
            or engine.remote
            or found is None
            or found.seconds is not None
        ):
            return
        asked = {name: asdict(settings)[name] for name in ("method", "prior", "precision", "compile")}
        key = (engine.command, task, settings.device, *asked.values())
        if key in self._tried:
            return
        self._tried.add(key)
        command = [*engine.command, str(HERE / "setup_pace.py"), json.dumps(asked), task, settings.device]
        try:
            self._process = Process(command, engine.variables())
        except OSError:  # which looking at the engine tells of
            self._process = None

    def poll(self) -> None:
        """Follow what is being measured; called by the panel's timer."""
        if self._process is None:
            return
        self._process.poll()
        if not self._process.running:
            self._process = None
            self._changed()

    def close(self) -> None:
        """End what is being measured: a run begins, which would be slowed down and measured wrongly."""
        if self._process is not None:
            self._process.cancel()
            self._process = None
