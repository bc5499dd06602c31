"""The table of runs and the convergence plot, as nodes that Slicer's table and plot views show."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import slicer

from DiffusionMBIRGui.results import ConvergencePlot, ResultsTable
from Testing.slicer.helpers import Desk, events, nodes_of

METRICS = {
    "axial": {"psnr": 29.0699, "ssim": 0.77812},
    "coronal": {"psnr": 31.4201, "ssim": 0.78},
    "sagittal": {"psnr": 29.31, "ssim": 0.7734},
    "data_range": 2303.0,
}


def test_a_row_a_run_with_the_means_of_the_planes_first(desk: Desk) -> None:
    table = ResultsTable(desk.scene)
    assert table.find() is None
    assert table.add("first", "dds", 19.53, 0.0033712, METRICS) == 0
    assert table.add("second", "fbp", 0.0421) == 1
    node = table.node
    names = [node.GetColumnName(index) for index in range(node.GetNumberOfColumns())]
    assert names[:6] == ["name", "method", "seconds", "residual", "PSNR", "SSIM"]
    assert names[6:9] == ["PSNR axial", "PSNR coronal", "PSNR sagittal"]
    first = [node.GetCellText(0, column) for column in range(7)]
    assert first == ["first", "dds", "19.5", "0.00337", "29.93", "0.7772", "29.07"]
    rows = table.rows()
    assert rows[0]["SSIM sagittal"] == 0.7734
    assert rows[1]["seconds"] == 0.0
    assert math.isnan(rows[1]["residual"])
    assert all(math.isnan(rows[1][name]) for name in names[4:])
    assert node.GetColumnUnitLabel("PSNR axial") == "dB"


def test_a_run_is_one_event_of_the_table(desk: Desk) -> None:
    table = ResultsTable(desk.scene)
    counts = events(table.node)
    table.add("first", "dds", 1.0, 0.1, METRICS)
    assert counts["ModifiedEvent"] == 1


def test_a_perfect_plane_stays_infinite(desk: Desk) -> None:
    table = ResultsTable(desk.scene)
    table.add("equal", "fbp", 1.0, 0.0, {**METRICS, "axial": {"psnr": math.inf, "ssim": 1.0}})
    assert table.rows()[0]["PSNR"] == math.inf


def test_a_deleted_table_or_closed_scene_begins_anew(desk: Desk) -> None:
    table = ResultsTable(desk.scene)
    table.add("first", "dds", 1.0)
    desk.scene.RemoveNode(table.node)
    table.add("second", "dds", 1.0)
    assert [row["name"] for row in table.rows()] == ["second"]
    desk.scene.Clear(False)
    assert table.find() is None
    table.add("third", "dds", 1.0)
    table.clear()
    assert table.rows() == []


def test_the_table_travels_in_the_scene_and_grows_there(desk: Desk, tmp_path: Path) -> None:
    table = ResultsTable(desk.scene)
    table.add('with\ta tab,\n a line and "quotes"', "dds", 19.5, 0.0033712, METRICS)
    table.add("without figures", "fbp", 0.1)
    before = table.rows()
    assert before[0]["name"] == "with a tab, a line and 'quotes'"
    assert desk.scene.WriteToMRB(str(tmp_path / "saved.mrb"), None)
    other = desk.reopened(tmp_path / "saved.mrb")
    again = ResultsTable(other.scene)
    assert again.rows()[0] == before[0]
    assert again.rows()[1]["name"] == "without figures"
    assert math.isnan(again.rows()[1]["PSNR"])
    assert again.add("third", "dds", 2.0, 0.5, METRICS) == 2
    assert len(nodes_of(other.scene, "vtkMRMLTableNode")) == 1
    other.close()


# Convergence.


def test_numbers_become_series_over_the_steps_with_one_event_a_flush(desk: Desk) -> None:
    plot = ConvergencePlot(desk.scene, "result")
    assert not plot.flush()
    for step in range(10):
        plot.add(step, {"sigma": 0.2 / (step + 1)})
    assert plot.flush()
    counts = events(plot.table)
    for step in range(10, 15):
        plot.add(step, {"sigma": 0.2 / (step + 1), "residual": 1.0 / step, "broken": math.nan})
    assert plot.flush()
    assert counts["ModifiedEvent"] == 1
    table = plot.table.GetTable()
    assert [table.GetColumnName(i) for i in range(table.GetNumberOfColumns())] == ["step", "sigma", "residual"]
    assert table.GetNumberOfRows() == 15
    residual = table.GetColumnByName("residual")
    assert math.isnan(residual.GetValue(9))
    assert residual.GetValue(14) == pytest.approx(1 / 14)
    assert table.GetColumnByName("sigma").GetValue(14) == pytest.approx(0.2 / 15)
    names = []
    for index in range(plot.chart.GetNumberOfPlotSeriesNodes()):
        series = plot.chart.GetNthPlotSeriesNode(index)
        assert series.GetTableNode() is plot.table
        assert series.GetXColumnName() == "step"
        names.append(series.GetYColumnName())
    assert names == ["sigma", "residual"]


def test_the_chart_opens_in_a_layout_with_a_plot_view(desk: Desk) -> None:
    plot = ConvergencePlot(desk.scene, "result")
    assert not plot.show()
    plot.add(1, {"sigma": 0.2})
    plot.flush()
    assert plot.show()
    views = nodes_of(desk.scene, "vtkMRMLPlotViewNode")
    assert desk.layout.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView
    assert [view.GetPlotChartNodeID() for view in views] == [plot.chart.GetID()]


def test_a_deleted_table_ends_the_plot_in_silence(desk: Desk) -> None:
    plot = ConvergencePlot(desk.scene, "result")
    plot.add(1, {"sigma": 0.2})
    plot.flush()
    desk.scene.Clear(False)
    plot.add(2, {"sigma": 0.1})
    assert not plot.flush()
    assert not plot.show()


def test_the_plot_travels_in_the_scene(desk: Desk, tmp_path: Path) -> None:
    plot = ConvergencePlot(desk.scene, "result")
    plot.add(1, {"sigma": 0.25})
    plot.flush()
    assert desk.scene.WriteToMRB(str(tmp_path / "saved.mrb"), None)
    other = desk.reopened(tmp_path / "saved.mrb")
    chart = nodes_of(other.scene, "vtkMRMLPlotChartNode")[0]
    series = chart.GetNthPlotSeriesNode(0)
    assert series.GetTableNode().GetTable().GetColumnByName(series.GetYColumnName()).GetValue(0) == 0.25
    other.close()


def test_the_last_plot_of_a_scene_is_found_again(desk: Desk) -> None:
    assert ConvergencePlot.of(desk.scene) is None
    desk.scene.AddNewNodeByClass("vtkMRMLPlotChartNode", "somebody else's")
    for name in ("first", "second"):
        plot = ConvergencePlot(desk.scene, name)
        plot.add(1, {"residual": 0.5})
        plot.flush()
    found = ConvergencePlot.of(desk.scene)
    assert found is not None
    assert found.chart is plot.chart
    assert found.show()
    assert not found.flush()  # nothing new
