"""The section Results: the table of runs, comparison with a reference, convergence, export and the report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt

from DiffusionMBIRLib.errors import EngineError, InputError

from .panel_desktop import Desktop, with_ending
from .panel_export import ExportMenu
from .panel_fields import Form
from .panel_page import PageButton
from .panel_rows import COLUMNS, cell, cell_tip, rows_of, table_of, volume_of
from .panel_uncertainty import UncertaintyView
from .panel_work import Background
from .parameters import Parameters
from .scene import REFERENCE
from .texts import _, shape


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
        self._difference: Any = None  # the node, and
        self._layers: Any = None  # what the views showed before
        self._regridded: Any = None  # the reference on the result's grid, while they are compared
        self._working: Background | None = None
        self.on_shown: Callable[[bool], None] = lambda shown: None  # whether there is something to flicker
        self.export = ExportMenu(form.exportButton, desktop, self.result, self._begin, self._try)
        self.page = PageButton(form.pageButton, desktop, runner, self.result, self._begin, self._try)
        self.uncertainty = UncertaintyView(form, self.result, self._clear_views, self._try, self.show)
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
        form.reportButton.clicked.connect(self._on_report)
        form.resultsTable.itemSelectionChanged.connect(self._on_selected)
        form.resultsSection.contentsCollapsed.connect(self.show)

    # The scene.

    def set_scene(self, scene: Any) -> None:
        """Work on another scene, or on the same one after it was emptied."""
        from .compare import Comparison, Flicker, ViewLayers

        self.leave()
        self.close()
        self._scene, self._comparison, self._flicker = scene, Comparison(scene), Flicker(scene)
        self._layers = ViewLayers()
        self.uncertainty.set_scene(scene)
        self.export.folders.clear()
        self.look()

    def leave(self) -> None:
        """Give layout and views back, while their nodes are still there."""
        if self._comparison is not None:
            self._clear_views()

    def close(self) -> None:
        """Touch no node any more."""
        self._let_go_of_table()
        self._difference = self._regridded = self._layers = None
        self.uncertainty.close()
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
        if rows and not int(table.property("rowCount")):
            self._form.resultsSection.setProperty("collapsed", False)
        table.setVisible(bool(rows))
        quiet = table.blockSignals(True)
        table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            for column, name in enumerate(COLUMNS):
                item = qt.QTableWidgetItem(cell(name, row[name]))
                item.setToolTip(cell_tip(name, row[name]))
                table.setItem(number, column, item)
        table.blockSignals(quiet)

    @property
    def busy(self) -> bool:
        return self._working is not None

    def poll(self) -> None:
        """Follow what is under way in a thread; called by the panel's timer."""
        work = self._working
        if work is None or not work.over:
            return
        self._working = None
        self._report(work.problem)
        if not work.problem:
            self._try(lambda: self._follow(work))
        self.show()

    def _follow(self, work: Background) -> None:
        if work.then is not None:
            work.then()
        line = work.done()
        if line:
            self._report(line)

    def _begin(self, work: Background, line: str) -> None:
        self._working = work
        self._report(line)
        self._changed()

    # What is chosen.

    def result(self) -> Any:
        """The volume of the selected row, else the last output; None where there is none (any more)."""
        row = self._selected()
        return self.parameters.output_node if row is None else volume_of(self._scene, row)

    def _selected(self) -> int | None:
        table = self._form.resultsTable
        row = int(table.currentRow())
        return row if row >= 0 and table.item(row, 0) is not None and table_of(self._scene) is not None else None

    def _pair(self) -> tuple[Any, Any]:
        """Result and reference, each with a display node, which volumes made by scripts may lack."""
        pair = (self.result(), self.reference())
        for node in pair:
            if node is not None and node.GetDisplayNode() is None:
                node.CreateDefaultDisplayNodes()
        return pair

    def reference(self) -> Any:
        """What a result is judged against: what its run knew of, else the reference that is chosen or was scanned."""
        result = self.result()
        noted = result.GetNodeReference(REFERENCE) if result is not None else None
        if noted is not None and noted.GetImageData() is not None:
            return noted
        simulated = self.parameters.get("source") == "volume"
        return self.parameters.input_node if simulated else self.parameters.reference_node

    # What the user does.

    def _on_compare(self, *_state: Any) -> None:
        if self._comparison.active:
            self._leave_comparison()
        else:
            self.stop_flicker()
            self._stop_difference()
            self._try(self._compare)
        self.show()

    def _compare(self) -> None:
        """Side by side on one grid: that of the result, which PSNR and SSIM refer to as well."""
        from .compare import require_pair
        from .regrid import OnGrid

        result, reference = self._pair()
        require_pair(result, reference)
        other = OnGrid(reference, result)
        if not other.needed:
            self._enter(result, reference)
            return
        work = Background(other.compute, lambda: self._enter_on_grid(result, reference, other))
        self._begin(work, _("Bringing the reference onto the result's grid ..."))

    def _enter_on_grid(self, result: Any, reference: Any, other: Any) -> None:
        if result.GetScene() is not self._scene:  # deleted meanwhile
            return
        self._drop_regridded()  # of a comparison that was left by Slicer's own menu
        self._regridded = other.show(self._scene)
        self._regridded.GetDisplayNode().SetAndObserveColorNodeID(reference.GetDisplayNode().GetColorNodeID())
        self._enter(result, self._regridded)
        text = _("The reference is shown on the result's grid, {shape}, on which PSNR and SSIM are taken as well.")
        self._report(text.format(shape=shape(tuple(result.GetImageData().GetDimensions()[::-1]))))

    def _enter(self, result: Any, reference: Any) -> None:
        logic, comparison = self._desktop.application_logic(), self._comparison
        comparison.enter(result, reference, logic, self._desktop.views_side_by_side())
        # The views get their size once the layout is up.
        qt.QTimer.singleShot(0, lambda: comparison.active and comparison.fit(logic))

    def _leave_comparison(self) -> None:
        self._comparison.leave()
        self._drop_regridded()

    def _drop_regridded(self) -> None:
        if self._regridded is not None and self._regridded.GetScene() is self._scene:
            self._scene.RemoveNode(self._regridded)
        self._regridded = None

    def flicker(self, *_state: Any) -> None:
        """The other of result and reference in sight; begins with the result's first press."""
        if self.result() is None or self._runner.running:
            return
        if not self._flicker.active:
            self._stop_difference()
            self._try(lambda: self._flicker.start(*self._pair()))
        if self._flicker.active:
            self._flicker.toggle()
        self.show()

    def stop_flicker(self) -> None:
        if self._flicker is not None:
            self._flicker.stop()

    def _on_selected(self, *_state: Any) -> None:
        self._clear_views()  # they showed what belongs to another row
        self.show()

    def _on_difference(self, *_state: Any) -> None:
        if self.shows_difference:
            self._stop_difference()
        else:
            self._try(self._make_difference)
        self.show()

    @property
    def shows_difference(self) -> bool:
        return bool(self._layers is not None and self._layers.kept)

    def _stop_difference(self) -> None:
        self.uncertainty.stop()
        if self._layers is not None:
            self._layers.give_back()

    def leave_overlays(self) -> None:
        """Take difference, uncertainty and flicker out of the ordinary views."""
        self.stop_flicker()
        self._stop_difference()

    def _clear_views(self) -> None:
        """The ordinary views, showing what they showed."""
        self.leave_overlays()
        self._leave_comparison()

    def _make_difference(self) -> None:
        from .difference import Difference

        difference = Difference(self.result(), self.reference())
        work = Background(difference.compute, lambda: self._show_difference(difference))
        self._begin(work, _("Computing the difference ..."))

    def _show_difference(self, difference: Any) -> None:
        from .compare import set_layers
        from .difference import colour_bar
        from .scene import ordinary_composites

        self._clear_views()
        self._difference = difference.show(self._scene, self._difference)
        self._layers.keep(ordinary_composites(self._scene))
        for composite in self._layers.kept:
            set_layers(composite, self._difference.GetID(), None, 0.0)
        low, high = difference.ends()
        self._form.differenceLow.setText(low)
        self._form.differenceHigh.setText(high)
        self._form.differenceBar.setText("0")  # white, in the middle
        self._form.differenceBar.setToolTip(_("Result minus reference"))
        self._form.differenceBar.setStyleSheet(colour_bar())

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

    def _on_report(self, *_state: Any) -> None:
        job = self._runner.job_path
        if job is None:
            return
        path = self._desktop.save_file(_("Save the report"), "DiffusionMBIR-report.zip", "(*.zip)")
        if path := with_ending(self._desktop, path, ".zip"):
            self._try(lambda: self._save_report(job, path))

    def _save_report(self, job: Any, path: str) -> None:
        from DiffusionMBIRLib.jobs.issue_report import save_issue_report

        work = Background(lambda: save_issue_report(job, path))
        work.done = lambda: _("Report saved.")
        self._begin(work, _("Saving the report ..."))

    def _try(self, act: Callable[[], None]) -> None:
        self._report("")
        try:
            act()
        except (InputError, EngineError) as error:
            self._report(str(error))

    # What is shown.

    def show(self, *_state: Any) -> None:
        """What can be pressed, by what there is; and why the rest cannot."""
        form = self._form
        self._name_rows()
        result, running = self.result(), self._runner.running
        why = self.why_not()
        active = bool(self._comparison is not None and self._comparison.active)
        for button, on in (
            (form.compareButton, active),
            (form.differenceButton, self.shows_difference),
            (form.flickerButton, False),
        ):
            button.setChecked(on)
            button.setEnabled(on or (not why and not self.busy))
        form.resultsWhy.setText(why)
        form.resultsWhy.setVisible(bool(why))
        for part in (form.differenceLow, form.differenceBar, form.differenceHigh):
            part.setVisible(self.shows_difference or self.uncertainty.active)
        self.uncertainty.show(result, not running and not self.busy)
        form.exportButton.setEnabled(result is not None and not running and not self.busy)
        self.page.show(not running and not self.busy)
        form.plotButton.setEnabled(self._plot() is not None)
        form.reportButton.setEnabled(self._runner.job_path is not None and not self.busy)
        self.on_shown(not why and not bool(form.resultsSection.property("collapsed")))

    def _name_rows(self) -> None:
        """The names that the runs' volumes have by now."""
        table = self._form.resultsTable
        for row in range(int(table.property("rowCount"))):
            node, item = volume_of(self._scene, row), table.item(row, 0)
            if node is not None and item is not None and str(item.text()) != node.GetName():
                item.setText(node.GetName())
                item.setToolTip(node.GetName())

    def why_not(self) -> str:
        """Why there is nothing to compare, in one line; '' where there is."""
        result, reference = self.result(), self.reference()
        if self._runner.running:
            return _("Compare, Flicker and Difference wait for the end of the run.")
        if result is None:
            gone = _("The volume of this run is no longer in the scene: select another row.")
            return _("Results appear here after a run.") if self._selected() is None else gone
        if reference is None:
            known = _("No PSNR and nothing to compare with: ")
            if self.parameters.get("source") == "volume":
                return known + _("the volume that was scanned is not in the scene.")
            return known + _("choose a known volume as Compare with, under Data.")
        same = _("Result and reference are the same volume: choose another one.")
        return same if result is reference else ""
