"""What runs came to: a table with one row a run, and a plot of how a run converged.  Both travel in the scene."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import slicer
import vtk

from .texts import _

ROLE = "DiffusionMBIR.Role"  # attribute by which our nodes are found again in a scene that was saved
_CONVERGENCE = "convergence"
_VOLUME = (
    "DiffusionMBIR.Volume"  # with a row's number behind: node reference to its volume, and attribute that it has one
)
_VOLUME_CLASS = "vtkMRMLScalarVolumeNode"
PLANES = ("axial", "coronal", "sagittal")
MEASURES = (("psnr", "PSNR", "dB", 2), ("ssim", "SSIM", "", 4))  # key, column, unit, digits shown


class ResultsTable:
    """One row a run: name, method, seconds, residual, PSNR and SSIM as means over the planes, and for each plane.

    Figures that are not known are NaN.  ``node`` may be deleted at any time: the next row makes a new table.
    """

    def __init__(self, scene: Any) -> None:
        self._scene = scene

    def find(self) -> Any:
        """The scene's table, None where there is none yet."""
        return _node_of(self._scene, "vtkMRMLTableNode", "results")

    @property
    def node(self) -> Any:
        """The scene's table; made if it is not there."""
        found = self.find()
        if found is None:
            found = self._scene.AddNewNodeByClass("vtkMRMLTableNode", _("Reconstructions"))
            found.SetAttribute(ROLE, "results")
            for name, unit, help_text, text in _columns():
                column = vtk.vtkStringArray() if text else vtk.vtkDoubleArray()
                column.SetName(name)
                found.AddColumn(column)
                found.SetColumnUnitLabel(name, unit)
                found.SetColumnDescription(name, help_text)
            found.SetLocked(True)
        return found

    def add(
        self,
        name: str,
        method: str,
        seconds: float,
        residual: float | None = None,
        metrics: Mapping[str, Any] | None = None,
        volume: Any = None,
    ) -> int:
        """Append a run and return its row.

        volume: the node that it made, which the row goes on to mean whatever its name becomes.  metrics: {"axial":
        {"psnr": dB, "ssim": ...}, "coronal": ..., "sagittal": ...} or None without a reference.
        """
        node = self.node
        was_modifying = node.StartModify()
        try:
            row = int(node.AddEmptyRow())
            node.SetCellText(row, 0, _one_line(name))
            node.SetCellText(row, 1, _one_line(method))
            numbers = [_rounded(seconds, 1), _significant(residual), *_figures(metrics)]
            for column, number in enumerate(numbers, start=2):
                node.GetTable().GetColumn(column).SetValue(row, number)
            node.GetTable().Modified()
            if volume is not None:
                node.SetNodeReferenceID(f"{_VOLUME}{row}", volume.GetID())
                node.SetAttribute(f"{_VOLUME}{row}", "1")
        finally:
            node.EndModify(was_modifying)
        return row

    def volume(self, row: int) -> Any:
        """The volume that the run of a row made, None where it was deleted; rows of old scenes know its name alone."""
        node = self.node
        if node.GetAttribute(f"{_VOLUME}{row}") is not None:
            found = node.GetNodeReference(f"{_VOLUME}{row}")
            return found if found is not None and found.GetScene() is self._scene else None
        return self._scene.GetFirstNode(node.GetCellText(row, 0), _VOLUME_CLASS)

    def rows(self) -> list[dict[str, Any]]:
        """All runs, oldest first: column name -> text or number."""
        table = self.node.GetTable()
        names = [table.GetColumnName(index) for index in range(table.GetNumberOfColumns())]
        return [
            {name: table.GetColumn(index).GetValue(row) for index, name in enumerate(names)}
            for row in range(table.GetNumberOfRows())
        ]

    def clear(self) -> None:
        """Take all rows away."""
        node = self.node
        for row in range(node.GetNumberOfRows()):
            node.RemoveNodeReferenceIDs(f"{_VOLUME}{row}")
            node.RemoveAttribute(f"{_VOLUME}{row}")
        node.GetTable().SetNumberOfRows(0)
        node.Modified()


def _columns() -> list[tuple[str, str, str, bool]]:
    """(name, unit, help, whether it holds text) of the table's columns."""
    columns = [
        ("name", "", _("Volume that the run made"), True),
        ("method", "", _("Reconstruction method"), True),
        ("seconds", "s", _("Time that the run took"), False),
        ("residual", "", _("Distance to the measurement, relative to it"), False),
    ]
    for key, title, unit, _digits in MEASURES:
        columns.append((title, unit, _("{measure}, mean of the three planes").format(measure=key.upper()), False))
    for key, title, unit, _digits in MEASURES:
        for plane in PLANES:
            text = _("{measure}, mean over the {plane} slices").format(measure=key.upper(), plane=plane)
            columns.append((f"{title} {plane}", unit, text, False))
    return columns


def _figures(metrics: Mapping[str, Any] | None) -> list[float]:
    """Means of the planes, then each plane's figure, in the table's order."""
    means, single = [], []
    for key, _title, _unit, digits in MEASURES:
        values = [float((metrics or {}).get(plane, {}).get(key, math.nan)) for plane in PLANES]
        means.append(_rounded(sum(values) / len(values), digits))
        single.extend(_rounded(value, digits) for value in values)
    return means + single


def _rounded(value: float, digits: int) -> float:
    return round(float(value), digits) if math.isfinite(value) else float(value)


def _significant(value: float | None) -> float:
    """Three significant digits; NaN for None."""
    return math.nan if value is None else float(f"{value:.3g}")


def _one_line(text: str) -> str:
    """Text that survives a tab-separated file."""
    return " ".join(text.replace('"', "'").split())


class ConvergencePlot:
    """How numbers that a run reports go with its steps: a table, a series for each number and a chart.

    ``add`` only collects; ``flush`` writes what has come since into the table, with one event, so that a run with
    thousands of steps does not redraw the plot at each of them.
    """

    def __init__(self, scene: Any, name: str) -> None:
        self._scene, self._name = scene, name
        self._pending: list[tuple[float, dict[str, float]]] = []
        self.table: Any = None
        self.chart: Any = None

    def add(self, step: float, metrics: Mapping[str, float]) -> None:
        """Note the numbers of one step; those that are not finite are left out."""
        finite = {key: float(value) for key, value in metrics.items() if math.isfinite(value)}
        if finite:
            self._pending.append((float(step), finite))

    def flush(self) -> bool:
        """Write what was noted into the scene; False where there is nothing new, or the table was deleted."""
        if not self._pending or (self.table is not None and self.table.GetScene() is None):
            return False
        if self.table is None:
            self._make()
        was_modifying = self.table.StartModify()
        try:
            for _step, metrics in self._pending:
                for key in metrics:
                    self._column(key)
            table = self.table.GetTable()
            for step, metrics in self._pending:
                row = table.InsertNextBlankRow()
                table.GetColumnByName("step").SetValue(row, step)
                for index in range(1, table.GetNumberOfColumns()):
                    column = table.GetColumn(index)
                    column.SetValue(row, metrics.get(column.GetName(), math.nan))
            table.Modified()
            self.table.Modified()
        finally:
            self.table.EndModify(was_modifying)
        self._pending = []
        return True

    def show(self) -> bool:
        """Choose the chart in the plot views and a layout that has one; False where there is nothing to show."""
        if self.chart is None or self.chart.GetScene() is None:
            return False
        layout = self._scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        if layout is not None and not self._scene.GetNumberOfNodesByClass("vtkMRMLPlotViewNode"):
            layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView)
        for index in range(self._scene.GetNumberOfNodesByClass("vtkMRMLPlotViewNode")):
            view = self._scene.GetNthNodeByClass(index, "vtkMRMLPlotViewNode")
            view.SetPlotChartNodeID(self.chart.GetID())
        return True

    @classmethod
    def of(cls, scene: Any) -> ConvergencePlot | None:
        """The last plot that a scene holds, e.g. of a run before it was saved; None where there is none."""
        charts = [
            scene.GetNthNodeByClass(i, "vtkMRMLPlotChartNode")
            for i in range(scene.GetNumberOfNodesByClass("vtkMRMLPlotChartNode"))
        ]
        ours = [chart for chart in charts if chart.GetAttribute(ROLE) == _CONVERGENCE]
        if not ours:
            return None
        found = cls(scene, ours[-1].GetTitle() or "")
        found.chart = ours[-1]
        return found

    def _make(self) -> None:
        self.table = self._scene.AddNewNodeByClass("vtkMRMLTableNode", f"{self._name} {_('convergence')}")
        step = vtk.vtkDoubleArray()
        step.SetName("step")
        self.table.AddColumn(step)
        self.chart = self._scene.AddNewNodeByClass("vtkMRMLPlotChartNode", f"{self._name} {_('convergence')}")
        self.chart.SetAttribute(ROLE, _CONVERGENCE)
        self.chart.SetTitle(self._name)
        self.chart.SetXAxisTitle(_("step"))
        self.chart.SetYAxisTitle("")
        self.chart.SetYAxisLogScale(True)

    def _column(self, key: str) -> None:
        """Make sure that a number has its column and its series."""
        table = self.table.GetTable()
        if table.GetColumnByName(key) is not None:
            return
        column = vtk.vtkDoubleArray()
        column.SetName(key)
        column.SetNumberOfTuples(table.GetNumberOfRows())
        column.Fill(math.nan)
        self.table.AddColumn(column)
        series = self._scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", key)
        series.SetAndObserveTableNodeID(self.table.GetID())
        series.SetXColumnName("step")
        series.SetYColumnName(key)
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
        series.SetUniqueColor()
        self.chart.AddAndObservePlotSeriesNodeID(series.GetID())


def _node_of(scene: Any, class_name: str, role: str) -> Any:
    for index in range(scene.GetNumberOfNodesByClass(class_name)):
        node = scene.GetNthNodeByClass(index, class_name)
        if node.GetAttribute(ROLE) == role:
            return node
    return None
