"""The panel: its sections, and how they follow the settings in the scene.

The settings are the truth: a widget writes to them, and whatever changes them - a widget, the Python console, a scene
that is opened - brings the whole panel up to date in :meth:`Panel.refresh`.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import qt

from DiffusionMBIRLib.methods import DIFFUSION_METHODS, SUPERVISED_METHODS, methods_for, starts_for
from DiffusionMBIRLib.tasks import task_info

from . import texts
from .estimates import Outlook
from .own_presets import OWN
from .panel_batch import BatchSection
from .panel_data import DataSection, source_choices
from .panel_desktop import Desktop
from .panel_fields import ChoiceEditor, Form, SettingFields
from .panel_keys import Keys
from .panel_pace import PaceWatch
from .panel_presets import PresetMenu, offered
from .panel_results import ResultsSection
from .panel_run import AnyRunner, RunSection
from .panel_setup import SetupSection
from .panel_warm import WarmEngine
from .parameters import Parameters, default_of
from .plans import default_name
from .runner_work import failure
from .texts import Missing, _

POLL_MS = 50
WHILE_RUNNING = ("preview_on", "preview_interval_s")


class Panel:
    """Binds a loaded ``.ui`` file to the settings of a scene and to a runner.

    Raises TypeError where the file lacks the widget of a setting.
    """

    def __init__(self, root: Any, *, scene: Any, desktop: Desktop, runner: AnyRunner) -> None:
        self.form = Form(root)
        self.scene, self.desktop = scene, desktop
        self._refreshing = self._again = self._closed = False
        self._observed: tuple[Any, int] | None = None
        self._scrolled = 0  # where the sections stood as the run began
        self.parameters = Parameters.of(scene)
        self.fields = SettingFields(self.form, self.parameters, self._report)
        self.run = RunSection(self.form, self.parameters, runner, desktop, self._on_job)
        self.setup = SetupSection(self.form, desktop, self.refresh, self.run.log)
        self.data = DataSection(self.form, self.parameters, desktop, self.refresh)
        self.results = ResultsSection(self.form, self.parameters, desktop, runner, self._report, self.refresh)
        self.batch = BatchSection(self.form, self.parameters, desktop, self._report, self.refresh)
        self.pace = PaceWatch(self.refresh)
        self.warm = WarmEngine()
        runner.standby = self.warm.take
        self.presets = PresetMenu(self.form.presetMenu, self.parameters, desktop, self._report)
        self.keys = Keys(root, run=self._on_run_key, end=self.run.escape, flicker=self.results.flicker)
        self.results.on_shown = self._on_results_shown
        self.form.researchOnly.setText(texts.research_only())
        for name, child in vars(self.form).items():
            if name.endswith("Section"):
                child.contentsCollapsed.connect(self._fit_width_soon)
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self.poll)
        preset = self.fields.editors["preset"].widget
        preset.activated.connect(self._on_preset)  # choosing the same one again undoes what was changed
        self.attach(scene)

    # The scene.

    def attach(self, scene: Any) -> None:
        """Follow the settings of a scene, made if it has none."""
        self.detach()
        self.scene = scene
        self.parameters = Parameters.of(scene)
        for part in (self.fields, self.run, self.data, self.results, self.batch, self.presets):
            part.parameters = self.parameters
        node = self.parameters.node
        self._observed = (node, node.AddObserver("ModifiedEvent", self._on_settings))
        self.data.set_scene(scene)
        self.data.look_again()
        self.results.set_scene(scene)
        self.batch.set_scene(scene)
        self.refresh()

    def detach(self) -> None:
        """Let go of the scene's settings, e.g. while it closes."""
        if self._observed is not None:
            node, tag = self._observed
            node.RemoveObserver(tag)
            self._observed = None

    def on_scene_closing(self) -> None:
        """The scene is about to be emptied: end the job, give the views back, touch no node any more."""
        self.run.runner.close()
        self.results.leave()
        self.run.clear()
        self.batch.forget_nodes()
        self.detach()

    def enter(self, window: Any) -> None:
        """The user sees the panel: shortcuts live while this lasts, and data may have changed meanwhile."""
        self.keys.enter(window)
        self.data.look_again()
        if self.setup.report is None and not self.setup.busy:
            self.setup.look()
        self.refresh()
        self._fit_width()
        self._fit_width_soon()

    def _on_results_shown(self, comparable: bool) -> None:
        self.keys.results_shown(comparable)
        self._fit_width_soon()  # rows come and go with what there is

    def _fit_width_soon(self, *_state: Any) -> None:
        qt.QTimer.singleShot(0, self._fit_width)  # once the layouts know what is visible

    def _fit_width(self) -> None:
        """As wide as its rows need: a scroll area asks for what they needed when all of them were visible."""
        if self._closed:
            return
        area = self.form.scrollArea
        content, bar = self.form.scrollContent.property("minimumSizeHint"), area.verticalScrollBar()
        area.setMinimumWidth(content.width() + bar.property("sizeHint").width())

    def _bring_results(self) -> None:
        """Scroll to the results of a run, unless they are in sight or the user has scrolled since it began."""
        area, section = self.form.scrollArea, self.form.resultsSection
        bar = area.verticalScrollBar()
        if self._closed or bar.property("value") != self._scrolled:
            return
        top = section.mapTo(self.form.scrollContent, qt.QPoint(0, 0)).y()
        if top + section.property("height") > self._scrolled + area.viewport().property("height"):
            bar.setValue(top)

    def exit(self) -> None:
        self.keys.exit()

    def close(self) -> None:
        """The panel goes away: nothing of it may be called any more.  Again does no harm."""
        if self._closed:
            return
        self._closed = True
        self.exit()
        self._timer.stop()
        self._timer.timeout.disconnect(self.poll)
        self.setup.close()
        self.pace.close()
        self.warm.close()
        self.data.close()
        self.results.leave()
        self.results.close()
        self.batch.close()
        self.run.runner.close()
        self.run.runner.listener = None
        self.detach()

    def _on_run_key(self) -> None:
        if not self.run.runner.running:
            self.run.press()

    # What happens.

    def poll(self) -> None:
        """Follow the job and whatever else is under way; called by the timer, which rests when there is nothing."""
        for part in (self.setup, self.data, self.results, self.batch, self.pace, self.run):
            try:
                part.poll()
            except Exception as error:  # a timer would raise it again and again, and nobody would read it
                part.close()
                self.run.say(failure(error).reason)
                self.run.log(traceback.format_exc())
        if not self._busy():
            self._timer.stop()

    def _busy(self) -> bool:
        beside = any(part.busy for part in (self.setup, self.data, self.results, self.batch, self.pace))
        return beside or bool(self.run.runner.running)

    def _on_settings(self, *_state: Any) -> None:
        if self.scene.IsBatchProcessing():  # a scene is being read: half of its nodes are not there yet
            return
        self.run.preview_changed()
        self.refresh()

    def _on_preset(self, *_state: Any) -> None:
        name = self.fields.editors["preset"].current()
        if name:
            self.parameters.apply_preset(name)
        prior, usual = self.parameters.get("prior"), default_of(Parameters.TABLE["prior"])
        if not name.startswith(OWN) and prior not in (there := self._choice("prior").values) and usual in there:
            self.parameters.set("prior", usual)  # that of a colleague's preset, without which this one runs as well
            self._report(_("Prior {name} is not installed: {other} is taken.").format(name=prior, other=usual))

    def _on_job(self) -> None:
        folder, output = Path(self.parameters.input_file), self.parameters.output_node
        if not self.run.runner.running and output is not None and self.parameters.input_file and folder.is_dir():
            self.results.export.folders[output.GetID()] = folder
        if self.run.runner.running:  # what is shown instead of a result would hide the previews, or come back over them
            self.results.leave_overlays()
        self.results.look()
        self.refresh()
        if self.run.runner.running:
            self._scrolled = self.form.scrollArea.verticalScrollBar().property("value")
        elif output is not None:
            qt.QTimer.singleShot(0, self._bring_results)  # once the layouts know of the new row

    def _report(self, line: str) -> None:
        self.run.say(line)

    # What is shown.

    def refresh(self) -> None:
        """Bring everything up to date with the settings, the data, the engine and the job."""
        if self._observed is None:
            return
        if self._refreshing:
            self._again = True
            return
        self._refreshing = True
        try:
            for _round in range(3):  # showing may correct a setting that another one rules out
                self._again = False
                self._show()
                if not self._again:
                    break
        finally:
            self._refreshing = False
        if self._busy():
            self._timer.start()

    def _show(self) -> None:
        runner = self.run.runner
        if self.setup.engine is not None and not runner.running:
            runner.python, runner.environment = self.setup.engine.command, self.setup.engine.variables()
            runner.root, runner.place = self.setup.jobs_folder, self.setup.engine.place
        self._offer()
        self.fields.show()
        self._show_name()
        self.fields.set_enabled(not runner.running, WHILE_RUNNING)
        self.data.show(self.setup.engine if self.setup.ready else None)
        self._set_data_enabled(not runner.running)
        engine = self.setup.engine if self.setup.ready else None
        of_batch = texts.run_awaited() if runner.running else self._missing_of_engine()
        self.batch.show(engine, of_batch)
        missing = texts.batch_awaited() if self.batch.batch.running else self.missing()
        if runner.running or self.batch.batch.running:
            self.pace.close()
        elif missing is None:
            self.pace.look(self.outlook, self.setup.engine)
        at_rest = not (runner.running or self.batch.batch.running or self.pace.busy)
        if at_rest and (missing is None or self.outlook.measured):  # two at once would measure each other
            self.warm.look(self.setup.engine, self.setup.report, self.parameters.get("device"))
        self._show_estimate(missing)
        self.run.show(missing)
        self.results.show()

    def _show_name(self) -> None:
        """What the new volume will be called, where the user leaves it to us."""
        node, settings = self.parameters.input_node, self.parameters.settings()
        title = Path(self.parameters.input_file).name.partition(".")[0] or (node.GetName() if node is not None else "")
        self.form.output_name.setPlaceholderText(default_name(title, settings) if title else _("a new volume"))

    def _set_data_enabled(self, enabled: bool) -> None:
        form = self.form
        widgets = (form.inputNode, form.inputFileOpen, form.inputFolderOpen, form.inputFileClear, form.sampleRow)
        widgets = (*widgets, form.referenceNode, form.presetMenu)
        for widget in widgets:
            widget.setEnabled(enabled)

    def _offer(self) -> None:
        """What there is to choose from, which depends on the task and on the engine."""
        parameters, task = self.parameters, self.parameters.get("task")
        sources = source_choices(task)
        if parameters.get("source") not in sources:
            parameters.set("source", sources[0])
        self._choice("source").offer(sources)
        # Supervised baselines need a network that nothing brings: they are for the command line.
        methods = tuple(name for name in methods_for(task) if name not in SUPERVISED_METHODS)
        for name, values in (("method", methods), ("start", starts_for(task))):
            if parameters.get(name) not in values:
                parameters.set(name, values[0])
            self._choice(name).offer(values)
        self._choice("preset").offer(*offered(parameters, self.outlook.effort))
        self._offer_priors(task)
        found = self.setup.report.devices if self.setup.report else ()
        devices = {device.name: device.title for device in found} or {"cpu": texts.word("cpu")}
        self._choice("device").offer(("auto", *devices), (texts.word("auto"), *devices.values()))

    def _offer_priors(self, task: str) -> None:
        modality = task_info(task).modality
        fitting = {prior.id: prior.id for prior in self.setup.priors if prior.modality == modality}
        chosen = self.parameters.get("prior")
        if chosen not in fitting and "/" in chosen.replace("\\", "/"):  # a file, which the engine can read as well
            fitting[chosen] = chosen
        self._choice("prior").offer(tuple(fitting), tuple(fitting.values()))

    def _choice(self, name: str) -> ChoiceEditor:
        editor = self.fields.editors[name]
        assert isinstance(editor, ChoiceEditor)
        return editor

    def missing(self) -> Missing | None:
        """Why Run cannot be pressed, None if it can: data first, then the engine, the prior and the device."""
        if self.data.missing is not None:
            return self.data.missing
        factor, shape = self.outlook.factor, self.data.shape
        if shape is not None and (shape[1] % factor or shape[2] % factor):
            return texts.grid_missing(shape[1], shape[2], factor)
        return self._missing_of_engine()

    def _missing_of_engine(self) -> Missing | None:
        """Why nothing can be run, whatever the data."""
        setup, parameters = self.setup, self.parameters
        if setup.report is None:
            return texts.engine_awaited()
        if not setup.ready:
            return texts.engine_missing(setup.report.problem)
        prior = parameters.get("prior")
        if parameters.get("method") in DIFFUSION_METHODS and prior not in self._choice("prior").values:
            return texts.prior_missing(prior)
        if setup.report.device(parameters.get("device")) is None:
            return texts.device_missing(parameters.get("device"))
        return None

    @property
    def outlook(self) -> Outlook:
        """What is known of the next run."""
        data = self.data
        return Outlook(self.parameters, self.setup.report, data.shape, data.views, data.coils, data.geometry)

    def _show_estimate(self, missing: Missing | None) -> None:
        """What the run will need or, where nothing can be run, why."""
        line = ""
        # While a job runs its progress tells more; what is wrong with the data is said beside them.
        busy = self.run.runner.running or self.batch.batch.running
        if not busy and self.data.missing is None:
            line = missing.line if missing is not None else self.outlook.line()
        self.form.estimate.setText(line)
        self.form.estimate.setVisible(bool(line))
