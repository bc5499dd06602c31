"""The section Results: the table of runs, comparison with a reference, convergence, export and the report."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import qt

from DiffusionMBIRLib.errors import EngineError, InputError
from DiffusionMBIRLib.tasks import MR_TASK

from .panel_desktop import Desktop
from .panel_fields import Form
from .parameters import Parameters
from .texts import _

COLUMNS = ("name", "method", "seconds", "residual", "PSNR", "SSIM")  # of the table in the scene, which has more
VOLUME_CLASS = "vtkMRMLScalarVolumeNode"


class Background:
    """Something that takes long, in a thread: it touches no node and no widget.

    then: called from the timer once it is done, if it worked; None where nobody wants it any more.
    """

    def __init__(self, act: Callable[[], Any], done: str, then: Callable[[], None] | None = None) -> None:
        self._act, self._done, self.then = act, done, then
        self._outcome: str | None = None
        self.worked = False
        threading.Thread(target=self._run, daemon=True).start()

    def outcome(self) -> str | None:
        """One line once it is over: that it is done, or why it is not."""
        return self._outcome

    def _run(self) -> None:
        try:
            self._act()
            self.worked, self._outcome = True, self._done
        except (InputError, EngineError, OSError) as error:
            self._outcome = str(error)
        except Exception as error:  # a thread that dies without a word would leave the buttons locked
            self._outcome = f"{type(error).__name__}: {error}"


class ResultsSection:
    """Works on the run whose row is selected, else on the last one.  ``report(line)`` says what went wrong."""

    def __init__(
        self,
        form: Form,
        parameters: Parameters,
        desktop: Desktop,
        runner: Any,
        report: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self._form, self.parameters, self._desktop, self._runner = form, parameters, desktop, runner
        self._report, self._changed = report, changed
        self._scene: Any = None
        self._comparison: Any = None
        self._flicker: Any = None
        self._table: Any = None
        self._observed: tuple[Any, int] | None = None
        self._difference: Any = None
        self._working: Background | None = None
        self._head()
        self._connect()

    def _head(self) -> None:
        titles = (_("Name"), _("Method"), _("Time"), _("Residual"), _("PSNR (dB)"), _("SSIM"))
        table = self._form.resultsTable
        table.setColumnCount(len(COLUMNS))
        table.setHorizontalHeaderLabels(list(titles))
        table.verticalHeader().setVisible(False)
        header = table.horizontalHeader()
        header.setHighlightSections(False)  # bold titles would need more room
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)  # a long name is cut, never a figure
        for column in range(1, len(COLUMNS)):
            header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        table.setWordWrap(False)
        table.setToolTip(_("One row a run; the buttons below work on the row that is selected, else on the last run"))

    def _connect(self) -> None:
        form = self._form
        form.compareButton.clicked.connect(self._on_compare)
        form.flickerButton.clicked.connect(self.flicker)
        form.differenceButton.clicked.connect(self._on_difference)
        form.plotButton.clicked.connect(self._on_plot)
        form.exportButton.clicked.connect(self._on_export)
        form.reportButton.clicked.connect(self._on_report)
        form.resultsTable.itemSelectionChanged.connect(self.show)

    # The scene.

    def set_scene(self, scene: Any) -> None:
        """Work on another scene, or on the same one after it was emptied."""
        from .compare import Comparison, Flicker

        self.close()
        self._scene, self._comparison, self._flicker = scene, Comparison(scene), Flicker(scene)
        self.look()

    def close(self) -> None:
        """Touch no node any more."""
        self._let_go_of_table()
        self._difference = None
        if self._working is not None:
            self._working.then = None

    def _let_go_of_table(self) -> None:
        if self._observed is not None:
            node, tag = self._observed
            node.RemoveObserver(tag)
            self._observed = None
        self._table = None

    def look(self) -> None:
        """Follow the scene's table of runs, once there is one."""
        found = table_of(self._scene)
        if found is not None and found is not self._table:
            self._let_go_of_table()
            self._table = found
            self._observed = (found, found.AddObserver("ModifiedEvent", self._on_table))
        self._fill(rows_of(self._scene))

    def _on_table(self, *_state: Any) -> None:
        self.look()
        self.show()

    def _fill(self, rows: list[dict[str, Any]]) -> None:
        table = self._form.resultsTable
        quiet = table.blockSignals(True)
        table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            for column, name in enumerate(COLUMNS):
                item = qt.QTableWidgetItem(_shown(name, row[name]))
                item.setToolTip(_shown(name, row[name]))
                table.setItem(number, column, item)
        table.blockSignals(quiet)

    @property
    def busy(self) -> bool:
        return self._working is not None

    def poll(self) -> None:
        """Follow what is under way in a thread; called by the panel's timer."""
        work = self._working
        outcome = work.outcome() if work is not None else None
        if work is None or outcome is None:
            return
        self._working = None
        self._report(outcome)
        if work.worked and work.then is not None:
            self._try(work.then)
        self.show()

    # What is chosen.

    def result(self) -> Any:
        """The volume of the selected row, else the last output; None where there is none."""
        table = self._form.resultsTable
        row = int(table.currentRow())
        item = table.item(row, 0) if row >= 0 else None
        if item is not None and self._scene is not None:
            node = self._scene.GetFirstNode(str(item.text()), VOLUME_CLASS)
            if node is not None:
                return node
        return self.parameters.output_node

    def _pair(self) -> tuple[Any, Any]:
        """Result and reference, each with a display node, which volumes made by scripts may lack."""
        pair = (self.result(), self.reference())
        for node in pair:
            if node is not None and node.GetDisplayNode() is None:
                node.CreateDefaultDisplayNodes()
        return pair

    def reference(self) -> Any:
        """What a result is judged against: the reference that is chosen, else the volume that was scanned."""
        node = self.parameters.reference_node if self.parameters.get("source") != "volume" else None
        return node or (self.parameters.input_node if self.parameters.get("source") == "volume" else None)

    # What the user does.

    def _on_compare(self, *_state: Any) -> None:
        if self._comparison.active:
            self._comparison.leave()
        else:
            self._flicker.stop()
            self._try(self._compare)
        self.show()

    def _compare(self) -> None:
        logic = self._desktop.application_logic()
        self._comparison.enter(*self._pair(), logic)
        # The views get their size once the layout is up.
        qt.QTimer.singleShot(0, lambda: self._comparison.active and self._comparison.fit(logic))

    def flicker(self, *_state: Any) -> None:
        """The other of result and reference in sight; begins with the result's first press."""
        if self.result() is None or self._runner.running:
            return
        if not self._flicker.active:
            self._try(lambda: self._flicker.start(*self._pair()))
        if self._flicker.active:
            self._flicker.toggle()
        self.show()

    def stop_flicker(self) -> None:
        if self._flicker is not None:
            self._flicker.stop()

    def _on_difference(self, *_state: Any) -> None:
        self._try(self._make_difference)

    def _make_difference(self) -> None:
        from .difference import Difference

        difference = Difference(self.result(), self.reference())
        self._working = Background(difference.compute, "", lambda: self._show_difference(difference))
        self._report(_("Computing the difference ..."))
        self._changed()

    def _show_difference(self, difference: Any) -> None:
        from .scene import ordinary_composites

        self._difference = difference.show(self._scene, self._difference)
        self.stop_flicker()
        for composite in ordinary_composites(self._scene):
            composite.SetBackgroundVolumeID(self._difference.GetID())

    def _on_plot(self, *_state: Any) -> None:
        plot = self._plot()
        if plot is not None:
            plot.flush()
        if plot is None or not plot.show():
            self._report(_("There is no convergence to show yet: run a reconstruction."))

    def _plot(self) -> Any:
        """How the last run converged: this session's, else the one that came with the scene."""
        from .results import ConvergencePlot

        plot = getattr(self._runner, "plot", None)
        return plot or (ConvergencePlot.of(self._scene) if self._scene is not None else None)

    def _on_export(self, *_state: Any) -> None:
        node = self.result()
        if node is None:
            return
        kinds = _("NRRD volume") + " (*.nrrd);;" + _("DICOM series, a new folder") + " (*)"
        path = self._desktop.save_file(_("Export the result"), f"{node.GetName()}.nrrd", kinds)
        if path:
            self._try(lambda: self._export(node, path))

    def _export(self, node: Any, path: str) -> None:
        """Write the volume in a thread, which copies it first: both take long."""
        from . import export

        volume = export.snapshot(node, unit="HU" if _is_ct(node) else "", copy=False)
        write = export.write_nrrd if path.lower().endswith(".nrrd") else export.write_dicom
        self._working = Background(lambda: write(replace(volume, array=volume.array.copy()), path), _("Exported."))
        self._report(_("Exporting ..."))
        self._changed()

    def _on_report(self, *_state: Any) -> None:
        job = self._runner.job_path
        if job is None:
            return
        path = self._desktop.save_file(_("Save the report"), "DiffusionMBIR-report.zip", "(*.zip)")
        if path:
            self._try(lambda: self._save_report(job, path))

    def _save_report(self, job: Any, path: str) -> None:
        from DiffusionMBIRLib.jobs.issue_report import save_issue_report

        self._working = Background(lambda: save_issue_report(job, path), _("Report saved."))
        self._changed()

    def _try(self, act: Callable[[], None]) -> None:
        self._report("")
        try:
            act()
        except (InputError, EngineError) as error:
            self._report(str(error))

    # What is shown.

    def show(self, *_state: Any) -> None:
        """What can be pressed, by what there is."""
        form = self._form
        result, reference = self.result(), self.reference()
        pair = result is not None and reference is not None and not self._runner.running
        active = bool(self._comparison is not None and self._comparison.active)
        form.compareButton.setChecked(active)
        form.compareButton.setEnabled(pair or active)
        form.flickerButton.setEnabled(pair)
        form.differenceButton.setEnabled(pair and not self.busy)
        form.exportButton.setEnabled(result is not None and not self._runner.running and not self.busy)
        form.plotButton.setEnabled(self._plot() is not None)
        form.reportButton.setEnabled(self._runner.job_path is not None and not self.busy)


def table_of(scene: Any) -> Any:
    """The scene's table of runs, None while there is none."""
    from .results import _node_of

    return _node_of(scene, "vtkMRMLTableNode", "results") if scene is not None else None


def rows_of(scene: Any) -> list[dict[str, Any]]:
    """The runs of a scene, oldest first."""
    from .results import ResultsTable

    return ResultsTable(scene).rows() if table_of(scene) is not None else []


def _is_ct(node: Any) -> bool:
    """False for a volume that our own record calls an MR reconstruction."""
    from .export import provenance_of

    return MR_TASK not in str(provenance_of(node).get("measurement", ""))


def _shown(name: str, value: Any) -> str:
    """A table's cell for people; '-' for what is not known."""
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return "-"
    return {"seconds": f"{value:.1f} s", "residual": f"{value:.2e}", "PSNR": f"{value:.2f}"}.get(name, f"{value:.3f}")
