"""The section Set-up: which Python computes, what it lacks, the priors.  Folds away once all is ready."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from DiffusionMBIRLib.engines import engine_of
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.jobs.folder import jobs_root

from . import setup, texts
from .panel_desktop import Desktop
from .panel_fields import Form
from .remote import KINDS, install_remote, looking_command, read_remote_report, remote_engine, text_install_remote
from .setup import Engine, Probe, Process, Report
from .texts import _

WHEELS = "wheels"
CHECKPOINTS = "*.pth *.pt *.ckpt *.safetensors"


class SetupSection:
    """Looks at the engine when it is shown first and when it changes; ``changed()`` is called with every news."""

    def __init__(self, form: Form, desktop: Desktop, changed: Callable[[], None], log: Callable[[str], None]) -> None:
        self._form, self._desktop = form, desktop
        self._changed, self._log = changed, log
        self._probe: Probe | None = None
        self._process: Process | None = None
        self._importing = ""
        self._said: list[str] = []
        self.engine: Engine | None = None
        self.report: Report | None = None
        self.priors: list[setup.KnownPrior] = []
        self._fill()
        self._connect()

    def _fill(self) -> None:
        form = self._form
        form.engineKind.addItem(_("This Slicer's Python"))
        form.engineKind.addItem(_("Another Python"))
        form.engineKind.addItem(_("Another computer, by ssh"))
        form.engineKind.addItem(_("A cluster with SLURM"))
        path, (kind, where) = self._desktop.setting("engine_python"), self._remote_setting()
        form.enginePath.setText(where if kind else path)
        form.engineKind.setCurrentIndex(2 + KINDS.index(kind) if kind else 1 if path else 0)
        for build in (*setup.BUILDS, WHEELS):
            form.engineBuild.addItem(_text_build(build), build)
        form.engineBuild.setCurrentIndex(0)
        form.jobsFolder.setText(self._desktop.setting("jobs_folder"))
        form.jobsFolder.setPlaceholderText(str(jobs_root()))

    def _connect(self) -> None:
        form = self._form
        form.engineKind.currentIndexChanged.connect(self._on_kind)
        form.enginePath.editingFinished.connect(self._on_path)
        form.engineBrowse.clicked.connect(self._on_browse)
        form.engineCheck.clicked.connect(self._on_check)
        form.engineInstall.clicked.connect(self._on_install)
        form.engineCancel.clicked.connect(self.cancel)
        form.priorImport.clicked.connect(self._on_import)
        form.jobsFolder.editingFinished.connect(self._on_jobs_folder)
        form.jobsFolderBrowse.clicked.connect(self._on_jobs_browse)

    # What others ask.

    @property
    def busy(self) -> bool:
        """Whether something is under way that :meth:`poll` must follow."""
        return self._probe is not None or self._process is not None

    @property
    def ready(self) -> bool:
        return self.report is not None and self.report.ready

    @property
    def jobs_folder(self) -> Path | None:
        """Where jobs are to lie, None for the usual place."""
        path = self._desktop.setting("jobs_folder")
        return Path(path).expanduser() if path else None

    def look(self) -> None:
        """Look at the engine that is chosen, and at the priors.  Does not wait."""
        self.cancel_probe()
        self.report = None
        self.priors = setup.priors()
        try:
            self.engine = self._chosen()
        except InputError as error:
            self.engine, self.report = None, Report(problem=str(error))
            self._place(lacking=True)
        else:
            self._probe = self._probe_of(self.engine)
        self._show()
        self._changed()

    def _probe_of(self, engine: Engine) -> Probe:
        if not engine.remote:
            return Probe(engine)
        where = engine_of(engine.remote, engine.options).where
        return Probe(engine, looking_command(engine), lambda lines: read_remote_report(lines, where))

    def poll(self) -> None:
        """Follow what is under way; called by the panel's timer."""
        if self._probe is not None:
            report = self._probe.poll()
            if report is not None:
                self._probe, self.report = None, report
                self._show()
                self._place(lacking=not (report.ready and self.priors))
                self._changed()
        if self._process is not None:
            self._follow(self._process)

    def _place(self, lacking: bool) -> None:
        """Open above all else while something is lacking, folded below the rest once all is there."""
        section, layout = self._form.setupSection, self._form.contentLayout
        layout.removeWidget(section)
        layout.insertWidget(0 if lacking else layout.count() - 1, section)  # the last entry is the room that is left
        section.setProperty("collapsed", not lacking)

    def cancel(self, *_state: Any) -> None:
        """End what is being installed or imported."""
        if self._process is not None:
            self._process.cancel()

    def cancel_probe(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None

    def close(self) -> None:
        self.cancel_probe()
        self.cancel()

    # What the user does.

    def _on_kind(self, *_state: Any) -> None:
        kind, before = self._remote_kind(), self._desktop.setting("engine_kind")
        if kind != before:
            self._desktop.set_setting("engine_kind", kind)
            self._form.enginePath.setText(self._desktop.setting("engine_host" if kind else "engine_python"))
        if kind:
            self.look()
            return
        if self._other():
            self._show()
            if str(self._form.enginePath.property("text")).strip():
                self._on_path()
            return
        self._desktop.set_setting("engine_python", "")
        self.look()

    def _on_path(self) -> None:
        path = str(self._form.enginePath.property("text")).strip()
        if self._remote_kind() and (path != self._desktop.setting("engine_host") or self.report is None):
            self._desktop.set_setting("engine_host", path)
            self.look()
        if self._other() and (path != self._desktop.setting("engine_python") or self.report is None):
            self._desktop.set_setting("engine_python", path)
            self.look()

    def _on_browse(self, *_state: Any) -> None:
        path = self._desktop.open_file(_text_choose_python(), "")
        if path:
            self._form.enginePath.setText(path)
            self._on_path()

    def _on_jobs_folder(self) -> None:
        path = str(self._form.jobsFolder.property("text")).strip()
        if path != self._desktop.setting("jobs_folder"):
            self._desktop.set_setting("jobs_folder", path)
            self._changed()

    def _on_jobs_browse(self, *_state: Any) -> None:
        path = self._desktop.open_folder(_("Choose a folder for jobs"))
        if path:
            self._form.jobsFolder.setText(path)
            self._on_jobs_folder()

    def _on_check(self, *_state: Any) -> None:
        self.look()

    def _on_install(self, *_state: Any) -> None:
        lacking = self.report.lacking if self.report else ()
        if self.engine is None or not lacking or self.busy:
            return
        build = (*setup.BUILDS, WHEELS)[int(self._form.engineBuild.property("currentIndex"))]
        wheels = self._desktop.open_folder(_("Choose a folder of wheels")) if build == WHEELS else ""
        if build == WHEELS and not wheels:
            return
        build = "" if build == WHEELS else build
        if self.engine.remote:
            engine = self.engine
            if self._desktop.confirm(text_install_remote(engine_of(engine.remote, engine.options).where)):
                self._begin(lambda: install_remote(engine, build=build), "")
            return
        if not self._desktop.confirm(_text_install(", ".join(lacking), self.engine, wheels)):
            return
        self._begin(lambda: setup.install(self.engine, lacking, build=build, wheels=wheels), "")

    def _on_import(self, *_state: Any) -> None:
        if self.engine is None or self.busy:
            return
        file = self._desktop.open_file(_("Choose a checkpoint"), _("Checkpoints") + f" ({CHECKPOINTS})")
        if not file:
            return
        name = self._desktop.ask_text(_("Name of the new prior:"), _suggestion(file))
        if name:
            self._begin(lambda: setup.begin_import(self.engine, file, name), name)

    # How it goes on.

    def _begin(self, start: Callable[[], Process], importing: str) -> None:
        try:
            self._process = start()
        except InputError as error:
            self._form.setupLine.setText(str(error))
            self._form.setupLine.setVisible(True)
            return
        self._importing, self._said = importing, []
        self._show()
        self._changed()

    def _follow(self, process: Process) -> None:
        lines = process.poll()
        for line in filter(None, map(str.strip, lines)):
            self._said.append(line)
            self._log(line)
        if self._said and lines:
            self._form.setupLine.setText(_shortened(self._said[-1]))
        if process.running:
            return
        self._process = None
        message = self._outcome(process)
        self.look()
        self._form.setupLine.setText(message)
        self._form.setupLine.setVisible(bool(message))

    def _outcome(self, process: Process) -> str:
        if process.cancelled:
            return _("Cancelled.")
        if process.returncode != 0:
            reason = next((line for line in reversed(self._said) if "error" in line.lower()), "")
            return _("It did not work: {reason}").format(reason=_shortened(reason or (self._said or ["?"])[-1]))
        if self._importing:
            return _("Prior {name} is ready.").format(name=self._importing)
        return _("Installed.")

    def _show(self) -> None:
        form, report = self._form, self.report
        other, busy = self._other(), self._process is not None
        kind = self._remote_kind()
        form.enginePathLabel.setText(_text_place(kind))
        form.enginePath.setPlaceholderText(_text_hint(kind))
        form.enginePathLabel.setVisible(other or bool(kind))
        form.enginePath.setVisible(other or bool(kind))
        form.engineBrowse.setVisible(other)
        form.engineStatus.setText(report.line() if report else texts.engine_unchecked())
        lacks = bool(report and report.lacking) and not busy
        form.engineInstall.setVisible(lacks)
        form.engineBuild.setVisible(lacks)
        form.engineCheck.setEnabled(not busy)
        form.engineKind.setEnabled(not busy)
        form.enginePath.setEnabled(not busy)
        form.engineCancel.setVisible(busy)
        form.setupProgress.setVisible(busy)
        form.setupLine.setVisible(busy)
        form.priorImport.setEnabled(self.ready and not busy)
        form.priorList.clear()
        for number, prior in enumerate(self.priors):
            form.priorList.addItem(prior.line())
            form.priorList.item(number).setToolTip(prior.details())

    def _other(self) -> bool:
        return int(self._form.engineKind.property("currentIndex")) == 1

    def _remote_kind(self) -> str:
        """'ssh' or 'slurm', '' for this computer."""
        index = int(self._form.engineKind.property("currentIndex")) - 2
        return KINDS[index] if index >= 0 else ""

    def _remote_setting(self) -> tuple[str, str]:
        kind = self._desktop.setting("engine_kind")
        return (kind, self._desktop.setting("engine_host")) if kind in KINDS else ("", "")

    def _chosen(self) -> Engine:
        if self._remote_kind():
            text = str(self._form.enginePath.property("text"))
            return remote_engine(self._remote_kind(), text, self._own_python())
        if self._other():
            command = setup.other_python(str(self._form.enginePath.property("text")))
            return Engine(command, self._desktop.clean_environment())
        return Engine(self._own_python(), in_slicer=True)

    def _own_python(self) -> tuple[str, ...]:
        command = self._desktop.own_python()
        if not command:
            raise InputError(_("This Slicer's own Python is not found; choose another Python."))
        return command


def _text_place(kind: str) -> str:
    return _("Host:") if kind else _("Python:")


def _text_hint(kind: str) -> str:
    if kind == "ssh":
        return _("host, as ssh knows it; host:/path/to/python")
    return _("host --partition=gpu; no host: sbatch here") if kind else _("python, or the folder of an environment")


def _text_choose_python() -> str:
    return _("Choose a Python")


def _text_build(build: str) -> str:
    if build == WHEELS:
        return _("Without network: a folder of wheels ...")
    if build.startswith("cu"):
        return _("torch for NVIDIA GPUs, CUDA {version}").format(version=f"{build[2:-1]}.{build[-1]}")
    return _("torch without GPU (small)") if build else _("torch as the package index has it")


def _text_install(packages: str, engine: Engine, wheels: str) -> str:
    where = _("this Slicer's Python") if engine.in_slicer else engine.command[0]
    source = _("The packages come from the Python package index; torch alone may take several GB. ")
    if wheels:
        source = _("The packages come from {folder}; no network is used. ").format(folder=wheels)
    rest = _("Packages that are already there are not changed. It goes on in the background and can be cancelled.")
    asked = _("Install {packages} into {where}?").format(packages=packages, where=where)
    return asked + "\n\n" + source + rest


def _suggestion(file: str) -> str:
    try:
        return setup.id_for(file)
    except InputError:
        return "prior"


def _shortened(line: str, most: int = 160) -> str:
    return line if len(line) <= most else line[: most - 3] + "..."
