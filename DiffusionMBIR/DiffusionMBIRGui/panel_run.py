"""The run, pinned below the sections: one button that says what is missing, runs and cancels; progress, pause, log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import qt

from DiffusionMBIRLib.errors import EngineError, InputError

from . import texts
from .panel_desktop import Desktop
from .panel_fields import Form
from .parameters import Parameters
from .texts import Missing, _

ASKS_AFTER_S = 60.0  # from when on Esc wants to be pressed twice
AGAIN_WITHIN_S = 3


class AnyRunner(Protocol):
    """What the panel asks of :class:`DiffusionMBIRGui.runner.Runner`."""

    listener: Any
    running: bool
    paused: bool
    paused_s: float
    resumable: bool
    python: Sequence[str]
    root: Path | None
    environment: Mapping[str, str] | None
    job_path: Path | None
    slice_logics: Sequence[Any]
    standby: Callable[[], Any]

    def start(self, parameters: Parameters) -> None: ...

    def resume(self) -> None: ...

    def cancel(self) -> None: ...

    def pause(self) -> None: ...

    def go_on(self) -> None: ...

    def set_preview(self, on: bool, interval_s: float) -> None: ...

    def poll(self) -> bool: ...

    def close(self) -> None: ...


class RunSection:
    """Drives a runner and shows what it tells.  ``changed()`` is called when a job begins or ends."""

    def __init__(
        self, form: Form, parameters: Parameters, runner: AnyRunner, desktop: Desktop, changed: Callable[[], None]
    ) -> None:
        self._form, self.parameters, self._changed = form, parameters, changed
        self._missing: Missing | None = None
        self._cancelling = False
        self._holding: bool | None = None  # what was asked for and has not happened yet: to pause, or to go on
        self._began = 0.0
        self._escaped: float | None = None  # when Esc asked to be pressed again; None once that is over
        self._line = ""  # how far the run is, which that question hides
        self.now: Callable[[], float] = time.monotonic
        self._logged: list[str] = []
        self.runner, self._desktop = runner, desktop
        runner.listener = self
        self._connect()
        self.say("")
        self._tell("")
        self._show_progress(False)

    def _connect(self) -> None:
        form = self._form
        form.runButton.clicked.connect(self.press)
        form.resumeButton.clicked.connect(self._on_resume)
        form.pauseButton.clicked.connect(self._on_pause)
        form.logCopy.clicked.connect(self._on_copy)

    # What the user does.

    def press(self, *_state: Any) -> None:
        """The one button: begins, or cancels what runs."""
        if self.runner.running:
            self.cancel()
        elif self._missing is None:
            self._begin(lambda: self.runner.start(self.parameters))

    def cancel(self, *_state: Any) -> None:
        """End the job; what there is of the volume is kept.  Nothing happens where none runs."""
        if self.runner.running and not self._cancelling:
            self._cancelling, self._escaped = True, None
            self._tell(_("Keeping what there is of the volume ..."))
            self.runner.cancel()
            self.show(self._missing)

    def escape(self) -> None:
        """The key Esc: ends a run that is young at once, a longer one when it is pressed again."""
        if not self.runner.running or self._cancelling:
            return
        now = self.now()
        if now - self._began < ASKS_AFTER_S or self._asks():
            self.cancel()
            return
        self._escaped = now
        self._form.progressText.setText(_("Press Esc again within {count} s to cancel.").format(count=AGAIN_WITHIN_S))

    def _asks(self) -> bool:
        """Whether Esc waits to be pressed again."""
        return self._escaped is not None and self.now() - self._escaped < AGAIN_WITHIN_S

    def _on_resume(self, *_state: Any) -> None:
        if not self.runner.running and self.runner.resumable:
            self._begin(self.runner.resume)

    def _begin(self, start: Callable[[], None]) -> None:
        self._rest()
        self._began = self.now()
        self.runner.slice_logics = self._desktop.slice_logics()
        self._form.progressBar.setValue(0)
        self._tell(_("Starting ..."))
        self.say("")
        try:
            start()
        except (InputError, EngineError) as error:
            self.say(str(error))
            self._tell("")
        if self.runner.running:
            self.preview_changed()
        self._changed()

    def _on_pause(self, *_state: Any) -> None:
        self._holding = bool(self._form.pauseButton.property("checked"))
        if self._holding:
            self.runner.pause()
        else:
            self.runner.go_on()
        self.show(self._missing)

    def preview_changed(self) -> None:
        """Tell a running job how often it is to show itself."""
        if self.runner.running:
            self.runner.set_preview(self.parameters.get("preview_on"), self.parameters.get("preview_interval_s"))

    def _on_copy(self, *_state: Any) -> None:
        qt.QApplication.clipboard().setText(self.log_text())

    def poll(self) -> None:
        """Follow the job; called by the panel's timer."""
        if self._escaped is not None and not self._asks():
            self._escaped = None
            self._tell(self._line)
        if self.runner.running:
            self.runner.poll()

    def close(self) -> None:
        """End the job, which goes wrong in a way that nobody knows."""
        self.runner.close()
        self.clear()
        self._changed()

    # What is shown.

    def show(self, missing: Missing | None) -> None:
        """Bring the buttons up to date.  missing: why nothing can be run, None if it can."""
        form, running = self._form, self.runner.running
        self._missing = missing
        if running:
            text = _("Cancelling ...") if self._cancelling else _("Cancel")
            tip = _("End the job and keep the volume as far as it is (Esc)")
        else:
            text = missing.button if missing else _("Run")
            tip = missing.line if missing else _("Reconstruct (Ctrl+Return)")
        form.runButton.setText(text)
        form.runButton.setToolTip(tip)
        form.runButton.setEnabled(not self._cancelling if running else missing is None)
        self._show_pause(running)
        form.resumeButton.setVisible(not running and self.runner.resumable)
        if running:
            self._show_progress(True)

    def _show_pause(self, running: bool) -> None:
        """Pausing waits for the end of a step, which may take a while: say at once that it was heard."""
        button, held = self._form.pauseButton, running and self.runner.paused
        button.setVisible(running)
        button.setEnabled(running and not self._cancelling and self._holding is None)
        button.setChecked(held if self._holding is None else self._holding)
        if self._holding is None:
            button.setText(_("Go on") if held else _("Pause"))
        else:
            button.setText(_("Pausing ...") if self._holding else _("Going on ..."))

    def _show_progress(self, visible: bool) -> None:
        self._form.progressBar.setVisible(visible)
        self._form.progressText.setVisible(visible)

    def _tell(self, line: str) -> None:
        """How far the run is; not over the question of Esc."""
        self._line = line
        if not self._asks():
            self._form.progressText.setText(line)

    def say(self, line: str) -> None:
        """One line where the user looks: what went wrong; '' takes it away."""
        self._form.runMessage.setText(line)
        self._form.runMessage.setVisible(bool(line))

    def clear(self) -> None:
        """Forget the last job, e.g. when its scene is closed; the log stays."""
        self._rest()
        self.say("")
        self._tell("")
        self._show_progress(False)

    def _rest(self) -> None:
        """Nothing runs any more, and nothing is asked or awaited."""
        self._cancelling, self._holding, self._escaped = False, None, None

    def log(self, line: str) -> None:
        self._logged.append(line)
        self._form.log.appendPlainText(line)

    def log_text(self) -> str:
        return "\n".join(self._logged)

    # What the runner tells; always from its poll().

    def on_prepared(self, event: Any) -> None:
        self._tell_progress(_("Ready on {device}").format(device=event.device))

    def on_progress(self, event: Any) -> None:
        self._form.progressBar.setValue(round(1000 * event.fraction))
        self._tell_progress(texts.progress(event.stage, event.fraction, event.seconds_left))

    def _tell_progress(self, line: str) -> None:
        if not self._cancelling:
            self._tell(line)

    def on_preview(self, event: Any) -> None:
        return None

    def on_paused(self, paused: bool) -> None:
        self._holding = None
        self.show(self._missing)
        if paused:
            self._tell_progress(_("Paused"))
        elif self.runner.running:
            self._tell_progress(_("Going on ..."))

    def on_log(self, event: Any) -> None:
        self.log(event.text)
        if event.level in ("warning", "error"):
            self.say(event.text)

    def on_finished(self, event: Any, node: Any) -> None:
        self._rest()
        took = texts.duration(event.seconds)
        if self.runner.paused_s >= 1:
            took = _("{time} of work and {pause} of pause").format(
                time=took, pause=texts.duration(self.runner.paused_s)
            )
        if event.partial and node is None:
            text = _("Cancelled before there was a volume to keep.")
        elif event.partial:
            text = _("Cancelled after {time}; what there was of the volume is kept.").format(time=took)
        else:
            text = _("Done in {time}.").format(time=took)
            self._form.progressBar.setValue(1000)
        self._tell(text)
        self._changed()

    def on_failed(self, event: Any) -> None:
        self._rest()
        self.say(event.reason)
        self.log(event.reason)
        self._tell(_("Stopped. Resume goes on from the last saved state.") if event.resumable else _("Stopped."))
        self._changed()
