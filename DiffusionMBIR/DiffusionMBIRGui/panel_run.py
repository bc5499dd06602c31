"""The section Run: one button that says what is missing, runs and cancels; how far the job is; pause, preview, log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import qt

from DiffusionMBIRLib.errors import EngineError, InputError

from . import texts
from .panel_desktop import Desktop
from .panel_fields import Form
from .panel_results import rows_of
from .parameters import Parameters
from .texts import Missing, _


class AnyRunner(Protocol):
    """What the panel asks of :class:`DiffusionMBIRGui.runner.Runner`."""

    listener: Any
    running: bool
    paused: bool
    resumable: bool
    python: Sequence[str]
    root: Path | None
    environment: Mapping[str, str] | None
    job_path: Path | None
    slice_logics: Sequence[Any]

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
        self._logged: list[str] = []
        self.runner, self._desktop = runner, desktop
        runner.listener = self
        self._connect()
        self.say("")
        form.progressText.setText("")
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
            self._keep_former_result()
            self._begin(lambda: self.runner.start(self.parameters))

    def _keep_former_result(self) -> None:
        """A run that is in the table of results keeps its volume: the next one fills another."""
        node = self.parameters.output_node
        if node is not None and node.GetName() in {row["name"] for row in rows_of(node.GetScene())}:
            self.parameters.set_node("output", None)

    def cancel(self, *_state: Any) -> None:
        """End the job; what there is of the volume is kept.  Nothing happens where none runs."""
        if self.runner.running and not self._cancelling:
            self._cancelling = True
            self.runner.cancel()
            self.show(self._missing)

    def _on_resume(self, *_state: Any) -> None:
        if not self.runner.running and self.runner.resumable:
            self._begin(self.runner.resume)

    def _begin(self, start: Callable[[], None]) -> None:
        self._cancelling = False
        self.runner.slice_logics = self._desktop.slice_logics()
        self._form.progressBar.setValue(0)
        self._form.progressText.setText(_("Starting ..."))
        self.say("")
        try:
            start()
        except (InputError, EngineError) as error:
            self.say(str(error))
            self._form.progressText.setText("")
        if self.runner.running:
            self.preview_changed()
        self._changed()

    def _on_pause(self, *_state: Any) -> None:
        if bool(self._form.pauseButton.property("checked")):
            self.runner.pause()
        else:
            self.runner.go_on()

    def preview_changed(self) -> None:
        """Tell a running job how often it is to show itself."""
        if self.runner.running:
            self.runner.set_preview(self.parameters.get("preview_on"), self.parameters.get("preview_interval_s"))

    def _on_copy(self, *_state: Any) -> None:
        qt.QApplication.clipboard().setText(self.log_text())

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
        form.pauseButton.setVisible(running)
        form.pauseButton.setEnabled(running and not self._cancelling)
        form.pauseButton.setChecked(running and self.runner.paused)
        form.pauseButton.setText(_("Go on") if running and self.runner.paused else _("Pause"))
        form.resumeButton.setVisible(not running and self.runner.resumable)
        if running:
            self._show_progress(True)

    def _show_progress(self, visible: bool) -> None:
        self._form.progressBar.setVisible(visible)
        self._form.progressText.setVisible(visible)

    def say(self, line: str) -> None:
        """One line where the user looks: what went wrong; '' takes it away."""
        self._form.runMessage.setText(line)
        self._form.runMessage.setVisible(bool(line))
        if line:
            qt.QTimer.singleShot(0, self._bring_in_sight)  # once the layout has made room for it

    def _bring_in_sight(self) -> None:
        with suppress(RuntimeError, ValueError):  # PySide and PythonQt, where the panel is gone meanwhile
            area = self._form.runFrame
            while area is not None and not area.inherits("QScrollArea"):
                area = area.parent()
            if area is not None:
                area.ensureWidgetVisible(self._form.runMessage)

    def clear(self) -> None:
        """Forget the last job, e.g. when its scene is closed; the log stays."""
        self._cancelling = False
        self.say("")
        self._form.progressText.setText("")
        self._show_progress(False)

    def log(self, line: str) -> None:
        self._logged.append(line)
        self._form.log.appendPlainText(line)

    def log_text(self) -> str:
        return "\n".join(self._logged)

    # What the runner tells; always from its poll().

    def on_prepared(self, event: Any) -> None:
        self._form.progressText.setText(_("Ready on {device}").format(device=event.device))

    def on_progress(self, event: Any) -> None:
        self._form.progressBar.setValue(round(1000 * event.fraction))
        if not self._cancelling:
            self._form.progressText.setText(texts.progress(event.stage, event.fraction, event.seconds_left))

    def on_preview(self, event: Any) -> None:
        return None

    def on_paused(self, paused: bool) -> None:
        self.show(self._missing)
        if paused:
            self._form.progressText.setText(_("Paused"))

    def on_log(self, event: Any) -> None:
        self.log(event.text)
        if event.level in ("warning", "error"):
            self.say(event.text)

    def on_finished(self, event: Any, node: Any) -> None:
        self._cancelling = False
        time = texts.duration(event.seconds)
        if event.partial and node is None:
            text = _("Cancelled before there was a volume to keep.")
        elif event.partial:
            text = _("Cancelled after {time}; what there was of the volume is kept.").format(time=time)
        else:
            text = _("Done in {time}.").format(time=time)
            self._form.progressBar.setValue(1000)
        self._form.progressText.setText(text)
        self._changed()

    def on_failed(self, event: Any) -> None:
        self._cancelling = False
        self.say(event.reason)
        self.log(event.reason)
        self._form.progressText.setText(
            _("Stopped. Resume goes on from the last saved state.") if event.resumable else _("Stopped.")
        )
        self._changed()
