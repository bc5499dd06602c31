"""Who hears of a run: the base of those that want to hear some of it."""

from __future__ import annotations

from typing import Any

from DiffusionMBIRLib.jobs.messages import Failed, Finished, Log, Prepared, Preview, Progress


class Quiet:
    """A listener that hears nothing; the base of those that want to hear some."""

    def on_prepared(self, event: Prepared) -> None: ...

    def on_progress(self, event: Progress) -> None: ...

    def on_preview(self, event: Preview) -> None: ...

    def on_paused(self, paused: bool) -> None: ...

    def on_log(self, event: Log) -> None: ...

    def on_finished(self, event: Finished, node: Any) -> None: ...

    def on_failed(self, event: Failed) -> None: ...
