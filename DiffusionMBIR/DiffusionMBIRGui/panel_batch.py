"""The section Batch: a table of volumes that are reconstructed one after the other, without touching the scene."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.jobs.cases import TABLE

from . import batch, texts
from .batch import Batch, BatchRow
from .inputs import problem_with
from .panel_desktop import Desktop
from .panel_fields import Form
from .panel_page import opened
from .panel_work import Background
from .parameters import Parameters
from .scene import OutputVolume
from .setup import Engine
from .texts import Missing, _

COLUMNS = 4
SETTING = "batch_folder"  # of the machine: the batch to go on with after Slicer was closed
NODES = ("vtkMRMLScalarVolumeNode", "vtkMRMLVectorVolumeNode")


class BatchSection:
    """``report(line)`` says what went wrong, ``changed()`` is called when a batch begins or ends."""

    def __init__(
        self,
        form: Form,
        parameters: Parameters,
        desktop: Desktop,
        report: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self._form, self.parameters, self._desktop = form, parameters, desktop
        self._report, self._changed = report, changed
        self._scene: Any = None
        self._engine: Engine | None = None
        self._missing: Missing | None = None
        self._working: Background | None = None
        self._shown: list[tuple[str, ...]] = []
        self.batch = Batch()
        self._menu = qt.QMenu(form.batchAdd)
        self.actions = {
            name: self._action(title, act)
            for name, title, act in (
                ("volumes", _("The volumes of the scene"), self._add_volumes),
                ("file", _("A file ..."), self._add_file),
                ("folder", _("A folder of files, or a DICOM study ..."), self._add_folder),
                ("earlier", _("A batch of an earlier time ..."), self._open_other),
                ("new", _("Begin a new, empty batch"), self._begin_new),
            )
        }
        form.batchAdd.setMenu(self._menu)
        self._head()
        self._connect()
        self._open(self._desktop.setting(SETTING))

    def _action(self, title: str, act: Callable[[], None]) -> Any:
        action = self._menu.addAction(title)
        action.triggered.connect(lambda *_state: self._try(act))
        return action

    def _head(self) -> None:
        table = self._form.batchTable
        table.setColumnCount(COLUMNS)
        table.setHorizontalHeaderLabels([_("Name"), _("Status"), _("PSNR (dB)"), _("Time")])
        table.verticalHeader().setVisible(False)
        header = table.horizontalHeader()
        header.setHighlightSections(False)
        for column in (0, 1):
            header.setSectionResizeMode(column, qt.QHeaderView.Stretch)
        for column in range(2, COLUMNS):
            header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        table.setWordWrap(False)

    def _connect(self) -> None:
        form = self._form
        form.batchRemove.clicked.connect(self._on_remove)
        form.batchShow.clicked.connect(self._on_show)
        form.batchTable.cellDoubleClicked.connect(self._on_show)
        form.batchTable.itemSelectionChanged.connect(self._show_buttons)
        form.batchPages.clicked.connect(self._on_pages)
        form.batchRun.clicked.connect(self._on_run)

    def set_scene(self, scene: Any) -> None:
        """Work with the nodes of another scene; rows of nodes that were not begun yet go with the former one."""
        self._scene = scene
        if self._working is not None:
            self._working.then = None
        self.forget_nodes()

    def forget_nodes(self) -> None:
        """The scene goes, and its nodes with it; jobs that were made have their own copy."""
        rows = self.batch.rows
        for row in rows:
            row.node = None
        if not self.batch.running:
            self.batch.rows = [row for row in rows if row.path or row.job is not None]

    # What the user does.

    def _try(self, act: Callable[[], None]) -> None:
        self._report("")
        try:
            act()
        except InputError as error:
            self._report(str(error))
        self._changed()

    def _add_volumes(self) -> None:
        source = self.parameters.get("source")
        kinds = NODES if source == "k-space" else NODES[:1]
        nodes = [
            self._scene.GetNthNodeByClass(index, kind)
            for kind in kinds
            for index in range(self._scene.GetNumberOfNodesByClass(kind))
        ]
        fitting = [node for node in nodes if not _is_ours(node) and not problem_with(node, source)]
        if not fitting:
            raise InputError(_("The scene has no volume that fits the source and is no result."))
        for node in fitting:
            self.batch.add(node.GetName(), node=node)

    def _add_file(self) -> None:
        path = self._desktop.open_file(_("Choose a file"), _("All files") + " (*)")
        if path:
            self.batch.add(Path(path).name.partition(".")[0], path=path)

    def _add_folder(self) -> None:
        place = self._desktop.open_folder(_("Choose a folder of files, or of a DICOM study"))
        if not place or self._working is not None:
            return
        found: list[tuple[str, Path]] = []
        source = self.parameters.get("source")
        self._working = Background(lambda: found.extend(batch.found_in(Path(place), source)), lambda: self._take(found))
        self._working.done = lambda: "" if found else _("{folder}: holds nothing that fits.").format(folder=place)

    def _take(self, found: list[tuple[str, Path]]) -> None:
        for name, path in found:
            self.batch.add(name, path=str(path))

    def _open_other(self) -> None:
        place = self._desktop.open_folder(_("Choose the folder of a batch"))
        if place and not self.batch.running:
            self.batch.open(Path(place))
            self._desktop.set_setting(SETTING, place)

    def _begin_new(self) -> None:
        if not self.batch.running:
            self.batch = Batch()

    def _open(self, place: str) -> None:
        """The batch that was run last on this machine, if it is still there and not yet done."""
        if place and (Path(place) / TABLE).is_file():
            try:
                self.batch.open(Path(place))
            except InputError:
                return
            lacking = self._lacking()
            if not lacking:
                self.batch = Batch()
                return
            self._form.batchSection.setProperty("collapsed", False)
            line = self._line(len(self.batch.rows), lacking)
            self._report(_("Batch of an earlier time: {line}; Run all under Batch goes on.").format(line=line))

    def _lacking(self) -> int:
        """How many rows have no result."""
        return sum(row.status != batch.FINISHED for row in self.batch.rows)

    def _on_remove(self, *_state: Any) -> None:
        self.batch.remove(self._selected())
        self.show(self._engine, self._missing)

    def _on_show(self, *_state: Any) -> None:
        chosen = [self.batch.rows[index] for index in self._selected()]
        results = [(row.name, row.result) for row in chosen if row.result is not None]
        if results and self._working is None:
            self._try(lambda: self._load(*results[0]))

    def _load(self, name: str, path: Path) -> None:
        from DiffusionMBIRLib.io.volumes import read_volume

        found: list[Any] = []
        self._working = Background(lambda: found.append(read_volume(path)), lambda: self._show_volume(name, found[0]))

    def _show_volume(self, name: str, volume: Any) -> None:
        output = OutputVolume.create(self._scene, name, volume.grid, unit=volume.unit)
        output.update(volume.array, 0, final=True)
        output.show(fit=self._desktop.slice_logics())

    def _on_pages(self, *_state: Any) -> None:
        """A page of each result and the index of them, by the engine; then the index in the browser."""
        from .pages import make_page

        folder, engine = self.batch.folder, self._engine
        if folder is None or engine is None or self._working is not None:
            return
        index = folder.absolute() / "index.html"
        self._working = Background(lambda: make_page(engine.command, engine.variables(), [str(index.parent)], folder))
        self._working.done = lambda: opened(self._desktop, index)
        self._report(_("Writing the pages ..."))
        self._changed()

    def _on_run(self, *_state: Any) -> None:
        if self.batch.running:
            self.batch.stop()
            self._changed()
        elif self._missing is None and self._engine is not None:
            self._try(self._start)

    def _start(self) -> None:
        place = str(self.batch.folder or "") or self._desktop.open_folder(_("Choose a folder for results"))
        if place and self._engine is not None:
            self._desktop.set_setting(SETTING, place)
            engine = self._engine
            self.batch.start(self.parameters, Path(place), engine.command, engine.variables(), engine.place)

    def _selected(self) -> list[int]:
        table = self._form.batchTable
        return [row for row in range(len(self.batch.rows)) if table.item(row, 0) and table.item(row, 0).isSelected()]

    # What goes on.

    @property
    def busy(self) -> bool:
        return self.batch.running or self._working is not None

    def poll(self) -> None:
        """Follow the batch; called by the panel's timer."""
        work = self._working
        if work is not None and work.over:
            self._working = None
            if work.then is not None and not work.problem:
                work.then()
            self._report(work.problem or work.done())
            self._changed()
        if self.batch.running:
            self.batch.poll()
            self.show(self._engine, self._missing)
            if not self.batch.running:
                self._changed()

    def close(self) -> None:
        """End what is under way."""
        if self._working is not None:
            self._working.then = None
        self._working = None
        self.batch.close()

    # What is shown.

    def show(self, engine: Engine | None, missing: Missing | None) -> None:
        """Bring the section up to date.  missing: why nothing can be run, None if it can."""
        self._engine, self._missing = engine, missing
        cells = [_cells(row) for row in self.batch.rows]
        if cells != self._shown:
            self._shown = cells
            self._fill(cells)
        self._show_buttons()

    def _fill(self, cells: list[tuple[str, ...]]) -> None:
        table = self._form.batchTable
        quiet = table.blockSignals(True)
        table.setRowCount(len(cells))
        for number, row in enumerate(cells):
            for column, text in enumerate(row):
                item = table.item(number, column)
                if item is None:
                    item = qt.QTableWidgetItem()
                    table.setItem(number, column, item)
                item.setText(text)
                item.setToolTip(self.batch.rows[number].note or text)
        table.blockSignals(quiet)

    def _show_buttons(self, *_state: Any) -> None:
        form, rows, running = self._form, self.batch.rows, self.batch.running
        chosen = [rows[index] for index in self._selected()]
        done = any(row.result for row in rows) and self._engine is not None and self.batch.folder is not None
        form.batchPages.setEnabled(done and not self.busy)
        lacking = self._lacking()
        form.batchTable.setVisible(bool(rows))
        form.batchAdd.setEnabled(not self.busy)
        form.batchRemove.setEnabled(bool(chosen) and not running)
        form.batchShow.setEnabled(any(row.result for row in chosen) and self._working is None)
        form.batchRun.setText(_("Stopping ...") if self.batch.stopping else _("Stop") if running else _("Run all"))
        can = not self.batch.stopping if running else bool(lacking) and self._missing is None
        form.batchRun.setEnabled(can)
        tip = _("Runs the rows one after the other with the settings above")
        form.batchRun.setToolTip(tip if running or self._missing is None else self._missing.line)
        failed = [row.note for row in chosen if row.status == batch.FAILED]
        form.batchLine.setText(failed[0] if len(failed) == 1 else self._line(len(rows), lacking))

    def _line(self, count: int, lacking: int) -> str:
        if not count:
            return _("Many volumes with the same settings: add them, then Run all. The results are files in a folder.")
        if not lacking and self.batch.folder is not None:
            return _("All done: {folder}").format(folder=self.batch.folder / batch.RESULTS)
        failed = sum(row.status == batch.FAILED for row in self.batch.rows)
        line = _("{done} of {count} done, {failed} failed") if failed else _("{done} of {count} done")
        return line.format(done=count - lacking, count=count, failed=failed)


def _cells(row: BatchRow) -> tuple[str, ...]:
    status = {
        batch.WAITING: lambda: _("waiting"),
        batch.PREPARING: lambda: _("preparing"),
        batch.RUNNING: lambda: row.note or _("starting"),
        batch.FINISHED: lambda: _("done"),
        batch.FAILED: lambda: _("failed: {reason}").format(reason=_without_path(row.note)),
        batch.STOPPED: lambda: _("stopped; will go on"),
    }[row.status]()
    time = texts.duration(float(row.seconds)) if row.seconds else ""
    return row.name, status if len(status) <= 40 else status[:37] + "...", row.psnr, time


def _without_path(reason: str) -> str:
    """The row has little room, and says what it is of beside."""
    place, _colon, rest = reason.partition(": ")
    return rest if rest and {"/", "\\"} & set(place) else reason


def _is_ours(node: Any) -> bool:
    from .scene import HELPER, STATE

    return any(node.GetAttribute(name) is not None for name in (STATE, HELPER))
