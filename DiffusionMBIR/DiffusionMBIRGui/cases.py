"""Reconstruction from the Python console and from scripts: one volume, or a list of cases that can be gone on with.

.. code-block:: python

    node = reconstruct(slicer.mrmlScene, inputVolume, outputVolume, task="sparse-view-ct", views=8)
    rows = reconstruct_cases(slicer.mrmlScene, [Case("a", volume, choices={"views": 8})], "study")

Without a scene (``None``) it takes arrays and files and gives a :class:`DiffusionMBIRLib.Volume`, so that the same
lines work in a notebook.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from DiffusionMBIRLib.errors import Cancelled, EngineError, InputError
from DiffusionMBIRLib.jobs.asking import ask
from DiffusionMBIRLib.jobs.cases import Case, CaseTable, begin_case, require_unique, run_cases
from DiffusionMBIRLib.jobs.client import Job
from DiffusionMBIRLib.jobs.folder import JobFolder, jobs_root
from DiffusionMBIRLib.jobs.messages import Event, Failed, Finished
from DiffusionMBIRLib.volume import Volume

_POLL_MS = 50
Idle = Callable[[], None]


def reconstruct(
    scene: Any,
    source: Any,
    output: Any = None,
    *,
    task: str | None = None,
    preset: str | None = None,
    name: str = "",
    reference: Any = None,
    record: bool = False,
    wait: bool = True,
    idle: Idle | None = None,
    listener: Any = None,
    python: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    jobs_folder: str | os.PathLike[str] | None = None,
    **choices: Any,
) -> Any:
    """Reconstruct a volume node, a file or an array in a process of its own.

    output: the volume node to fill, None for a new one.  reference: a node to judge the result by where the data are
    measured.  record: keep the previews as a sequence.  choices: settings of the scan and of the reconstruction by
    name, such as ``views=8, photons=1e5, steps=50, seed=7``; ``task`` and ``preset`` decide the others.
    wait: return the output node when it holds the result, with the event loop alive meanwhile (``idle``, called many
    times a second, in Slicer its own).  With ``wait=False`` the runner is returned at once; ``listener`` hears of
    previews and of the end (see :class:`DiffusionMBIRGui.listener.Quiet`), and outside of Slicer ``runner.poll()`` is
    to be called.  python, environment: of the engine, in Slicer the one that its panel uses.
    Raises InputError for what the user can mend, EngineError where the job fails, Cancelled where it was cancelled.
    """
    engine = _engine(python, environment)
    if scene is None:
        request, array = ask(source, task=task, name=name, preset=preset, choices=choices)
        return _volume(JobFolder.create(Path(jobs_folder or jobs_root()), request, array), engine, idle)
    from .plans import plan_from
    from .runner import Runner

    plan = plan_from(
        source, output, name=name, task=task, preset=preset, reference=reference, record=record, choices=choices
    )
    runner = Runner(scene, root=Path(jobs_folder) if jobs_folder else None)
    runner.python, runner.environment = engine
    if wait:
        return _wait(runner, plan, listener, idle or _idle())
    runner.listener = listener
    runner.begin(plan)
    _drive(runner)
    return runner


def reconstruct_cases(
    scene: Any,
    cases: Sequence[Case],
    folder: str | os.PathLike[str],
    *,
    show: bool = True,
    idle: Idle | None = None,
    python: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[dict[str, str]]:
    """Run cases one after the other; ``folder/cases.csv`` tells of each, and is gone on with when called again.

    The source of a case is a volume node, a file or an array.  show: let each result appear in the scene.  A case that
    fails does not end the others.  Returns the rows of the table.
    """
    engine = _engine(python, environment)
    if scene is None:
        return run_cases(cases, folder, python=engine[0], environment=engine[1], idle=idle)
    require_unique(case.name for case in cases)
    table = CaseTable(Path(folder))
    for case in cases:
        _run_case(scene, case, table, engine, idle or _idle(), show=show)
    return [row for row in (table.row(case.name) for case in cases) if row is not None]


def _run_case(
    scene: Any, case: Case, table: CaseTable, engine: tuple[Sequence[str], Any], idle: Idle, *, show: bool
) -> None:
    from .plans import Plan, as_source
    from .runner import Runner
    from .texts import kind_of_method

    node = case.source if hasattr(case.source, "GetImageData") else None
    try:
        array, grid = as_source(case.source)
        folder = begin_case(table, replace(case, source=array, grid=grid or case.grid))
    except InputError as error:
        table.refuse(case.name, str(error))
        return
    if folder is None:
        return
    if not show:
        table.end(case.name, _follow(folder, engine, idle))
        return
    method = kind_of_method(str(folder.request.settings["method"]))
    plan = Plan(case.name, method, lambda: (folder.request, None), beside=node, folder=folder)
    runner = Runner(scene)
    runner.python, runner.environment = engine
    heard = _Ending()
    runner.listener = heard
    runner.begin(plan)
    _poll_to_the_end(runner, idle)
    if heard.last is not None:
        table.end(case.name, heard.last)


class _Ending:
    """Keeps the last word, and passes everything on to another listener."""

    def __init__(self, listener: Any = None) -> None:
        self._listener = listener
        self.last: Event | None = None
        self.node: Any = None

    def on_finished(self, event: Finished, node: Any) -> None:
        self.last, self.node = event, node
        if self._listener is not None:
            self._listener.on_finished(event, node)

    def on_failed(self, event: Failed) -> None:
        self.last = event
        if self._listener is not None:
            self._listener.on_failed(event)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return getattr(self._listener, name) if self._listener is not None else lambda *_event: None


def _wait(runner: Any, plan: Any, listener: Any, idle: Idle) -> Any:
    heard = _Ending(listener)
    runner.listener = heard
    runner.begin(plan)
    _poll_to_the_end(runner, idle)
    if isinstance(heard.last, Finished) and not heard.last.partial:
        return heard.node
    raise _as_error(heard.last)


def _poll_to_the_end(runner: Any, idle: Idle) -> None:
    try:
        while runner.poll():
            idle()
            time.sleep(0.01)
    finally:
        if runner.running:  # idle raised, as for Ctrl-C
            runner.close()


def _as_error(last: Event | None) -> Exception:
    if isinstance(last, Failed):
        return InputError(last.reason) if last.kind == "input" else EngineError(last.reason)
    return Cancelled("the reconstruction was cancelled")


def _volume(folder: JobFolder, engine: tuple[Sequence[str], Any], idle: Idle | None) -> Volume:
    from DiffusionMBIRLib.io.volumes import read_volume

    last = _follow(folder, engine, idle or (lambda: None))
    if not isinstance(last, Finished) or last.partial or folder.result_path is None:
        raise _as_error(last)
    folder.tidy()
    return read_volume(folder.result_path)


def _follow(folder: JobFolder, engine: tuple[Sequence[str], Any], idle: Idle) -> Event:
    job = Job.start(folder, python=engine[0], environment=engine[1])
    try:
        while job.running:
            job.poll()
            idle()
            time.sleep(0.01)
    finally:
        if job.running:
            job.close()
    assert job.last_word is not None
    return job.last_word


# --- Slicer's application, where there is one


def _idle() -> Idle:
    """Keeps the event loop of the application alive."""
    import slicer

    if not hasattr(slicer, "app"):
        return lambda: None
    return slicer.app.processEvents  # type: ignore[no-any-return]


def _drive(runner: Any) -> None:
    """Let a timer poll the runner, in the application."""
    try:
        import qt
        import slicer
    except ImportError:
        return
    if not hasattr(slicer, "app"):
        return
    timer = qt.QTimer()
    timer.setInterval(_POLL_MS)

    def turn() -> None:
        if not runner.poll():
            timer.stop()

    timer.timeout.connect(turn)
    timer.start()
    runner.timer = timer  # kept alive with the runner


def _engine(
    python: Sequence[str] | None, environment: Mapping[str, str] | None
) -> tuple[Sequence[str], Mapping[str, str] | None]:
    """The Python to compute with: the one given, in Slicer else the panel's choice, elsewhere this one."""
    if python is not None:
        return tuple(python), environment
    slicer = sys.modules.get("slicer")
    if slicer is None or not hasattr(slicer, "app"):
        return (sys.executable,), environment
    from .panel_desktop import SlicerDesktop
    from .setup import Engine, other_python

    desktop = SlicerDesktop()
    chosen = desktop.setting("engine_python")
    command = other_python(chosen) if chosen else desktop.own_python()
    if not command:
        raise InputError("this Slicer's own Python is not found; choose another one in the panel, or by python=")

    variables = environment or (desktop.clean_environment() if chosen else None)
    return command, Engine(command, variables).variables()
