"""How uncertain a result is, over it in the slice views: what is drawn, the threshold, and what comes back."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest_plugins = ("Testing.slicer.host.fixtures",)

import Testing.slicer.host  # noqa: E402, F401 - makes qt importable

# isort: split
from DiffusionMBIRGui.outlines import DoubtOutlines  # noqa: E402
from DiffusionMBIRGui.pages import job_of  # noqa: E402
from DiffusionMBIRGui.probe import CursorLine, text_at  # noqa: E402
from DiffusionMBIRGui.scene import (  # noqa: E402
    CANDIDATES,
    FILLED,
    JOB,
    PROVENANCE,
    UNCERTAINTY,
    OutputVolume,
    add_spread,
    ordinary_composites,
)
from DiffusionMBIRGui.uncertainty import UncertaintyOverlay, half_widths_of, uncertain_colours  # noqa: E402
from DiffusionMBIRLib.config import ReconSettings  # noqa: E402
from DiffusionMBIRLib.errors import InputError  # noqa: E402
from DiffusionMBIRLib.geometry import Grid  # noqa: E402
from Testing.slicer.helpers import nodes_of, world_of  # noqa: E402
from Testing.slicer.host.played import ct_volume, shown, text, wait_for  # noqa: E402

GRID = Grid((12, 16, 20), (2.0, 2.0, 3.0))
COARSE = Grid((6, 8, 10), (4.0, 4.0, 6.0), (1.0, 1.0, 1.5))  # the same region
HIGH, LOW = 100.0, 10.0


@pytest.fixture
def pair(desk):
    """A result of even grey, and half-widths on a coarser grid that are high in one half of each slice."""
    result = desk.volume(np.zeros(GRID.shape, np.float32), GRID, "result")
    result.GetDisplayNode().SetAutoWindowLevel(0)
    result.GetDisplayNode().SetWindowLevel(200, 0)
    spread = np.full(COARSE.shape, LOW, np.float32)
    spread[:, :, 5:] = HIGH
    half_widths = desk.volume(spread, COARSE, "half-widths")
    for composite in ordinary_composites(desk.scene):
        composite.SetBackgroundVolumeID(result.GetID())
    for logic in desk.slice_logics():
        logic.FitSliceToBackground()
    return result, half_widths


def colour_at(desk, column):
    """RGB that the axial view draws in the middle of the volume, at a column of the result."""
    desk.jump_to(world_of(GRID, 6, 8, column), ("Red",))
    rows, columns = desk.colours("Red").shape[:2]
    return desk.colours("Red")[rows // 2, columns // 2].astype(int)


def is_grey(colour):
    return int(np.ptp(colour)) <= 2


def test_what_is_uncertain_is_coloured_and_the_rest_is_as_it_was(desk, pair):
    result, half_widths = pair
    plain = colour_at(desk, 3)
    overlay = UncertaintyOverlay(desk.scene)
    overlay.start(result, half_widths)
    assert overlay.active
    assert overlay.reach == pytest.approx(HIGH)
    assert is_grey(colour_at(desk, 3))  # 10 of 100 lie below the threshold
    assert np.array_equal(colour_at(desk, 3), plain)
    last = [round(255 * part) for part in _last_colour(desk.scene)]
    expected = 0.6 * np.array(last) + 0.4 * plain
    np.testing.assert_allclose(colour_at(desk, 16), expected, atol=6)
    overlay.set_threshold(5.0)
    assert not is_grey(colour_at(desk, 3))
    overlay.set_threshold(HIGH + 1)
    assert is_grey(colour_at(desk, 16))
    overlay.stop()
    assert not overlay.active
    assert np.array_equal(colour_at(desk, 16), plain)


def _last_colour(scene):
    table = uncertain_colours(scene)
    colour = [0.0] * 4
    table.GetColor(table.GetNumberOfColors() - 1, colour)
    return colour[:3]


def test_colours_get_darker_with_uncertainty(desk):
    table = uncertain_colours(desk.scene)
    grey = []
    for index in range(table.GetNumberOfColors()):
        colour = [0.0] * 4
        table.GetColor(index, colour)
        grey.append(np.dot(colour[:3], (0.299, 0.587, 0.114)))
    assert (np.diff(grey) < 0).all()
    assert uncertain_colours(desk.scene) is table


def test_views_and_display_come_back_as_they_were(desk, pair):
    result, half_widths = pair
    display = half_widths.GetDisplayNode()
    display.SetAutoWindowLevel(0)
    display.SetWindowLevel(33, 44)
    colours = display.GetColorNodeID()
    (composite, *_others) = ordinary_composites(desk.scene)
    composite.SetForegroundVolumeID(half_widths.GetID())
    composite.SetForegroundOpacity(0.25)
    overlay = UncertaintyOverlay(desk.scene)
    overlay.start(result, half_widths)
    overlay.start(result, half_widths)  # again: what was before is still known
    overlay.stop()
    overlay.stop()
    assert (display.GetWindow(), display.GetLevel(), display.GetColorNodeID()) == (33, 44, colours)
    assert not display.GetApplyThreshold()
    assert composite.GetBackgroundVolumeID() == result.GetID()
    assert composite.GetForegroundVolumeID() == half_widths.GetID()
    assert composite.GetForegroundOpacity() == 0.25
    overlay.start(result, half_widths)
    desk.scene.RemoveNode(half_widths)  # deleted while it is shown
    overlay.set_threshold(3.0)
    overlay.stop()
    assert composite.GetBackgroundVolumeID() == result.GetID()


def test_what_cannot_be_shown_is_refused_in_one_line(desk, pair):
    result, half_widths = pair
    overlay = UncertaintyOverlay(desk.scene)
    for one, other, reason in (
        (None, half_widths, "Choose a result"),
        (result, None, "Choose a result"),
        (result, result, "volume of its own"),
        (result, desk.volume(np.zeros(GRID.shape, np.float32), GRID, "nothing"), "0 everywhere"),
    ):
        with pytest.raises(InputError, match=reason):
            overlay.start(one, other)
        assert not overlay.active


def test_a_run_tells_its_result_where_the_standard_deviation_is(desk, tmp_path):
    output = OutputVolume.create(desk.scene, "chest", GRID)
    output.update(np.zeros(GRID.shape, np.float32), 1, final=True)
    assert half_widths_of(output.node) is None
    add_spread(output, "standard deviation", np.ones(GRID.shape, np.float32), {})
    found = half_widths_of(output.node)
    assert found.GetName() == "chest standard deviation"
    assert desk.scene.CreateNodeByClass  # the scene keeps the reference:
    desk.scene.SetRootDirectory(str(tmp_path))
    path = tmp_path / "scene.mrb"
    assert desk.scene.WriteToMRB(str(path), None)
    other = desk.reopened(path)
    names = {node.GetName(): node for node in nodes_of(other.scene, "vtkMRMLScalarVolumeNode")}
    assert half_widths_of(names["chest"]) is names["chest standard deviation"]
    other.close()


def test_one_button_any_volume_and_one_thing_at_a_time(ready, new_scene):
    form, results = ready.form, ready.results
    result, spread = ct_volume(new_scene, "result"), ct_volume(new_scene, "spread")
    ready.parameters.set_node("output", result)
    ready.refresh()
    assert not form.uncertaintyButton.isEnabled()
    form.uncertaintyNode.setCurrentNode(spread)
    assert form.uncertaintyButton.isEnabled()
    form.uncertaintyButton.click()
    # There are no slice views in this scene; what follows is the panel's.
    assert text(ready.form.runMessage) == ""
    assert form.uncertaintyLeast.property("maximum") == pytest.approx(results.uncertainty._overlay.reach, rel=1e-3)
    result.SetNodeReferenceID(UNCERTAINTY, ready.parameters.input_node.GetID())
    form.uncertaintyNode.setCurrentNode(None)
    ready.refresh()
    assert form.uncertaintyNode.currentNode() is ready.parameters.input_node  # what its run left
    assert not shown(form.uncertaintyLeast)
    new_scene.Clear(0)
    ready.attach(new_scene)
    assert not form.uncertaintyButton.isEnabled()


def test_difference_and_uncertainty_take_turns(ready, desk, pair, desktop):
    result, half_widths = pair
    reference = desk.volume(np.linspace(0, 9, 3840, dtype=np.float32).reshape(GRID.shape), GRID, "reference")
    result.SetNodeReferenceID(UNCERTAINTY, half_widths.GetID())
    ready.attach(desk.scene)
    ready.parameters.set_node("input", reference)
    ready.parameters.set_node("output", result)
    ready.refresh()
    form = ready.form
    form.uncertaintyButton.click()
    assert ready.results.uncertainty.active
    assert shown(form.uncertaintyLeast)
    assert shown(form.differenceBar)
    assert text(form.differenceHigh).startswith("100")
    assert form.uncertaintyLeast.text().partition(" ")[0] == "25"
    form.uncertaintyLeast.setValue(60.0)
    assert half_widths.GetDisplayNode().GetLowerThreshold() == 60.0
    form.flickerButton.click()
    assert not ready.results.uncertainty.active
    form.uncertaintyButton.click()
    assert ready.results.uncertainty.active
    assert not ready.results._flicker.active
    form.uncertaintyButton.click()
    assert not ready.results.uncertainty.active
    assert not shown(form.differenceBar)
    form.uncertaintyButton.click()
    form.runButton.click()
    assert not ready.results.uncertainty.active  # the previews are to be seen


ORANGE, MAGENTA = (255, 191, 25), (242, 51, 229)


def count_of(desk, colour):
    """Pixels of the axial view through the volume's middle that have a colour."""
    desk.jump_to(world_of(GRID, 6, 8, 10), ("Red",))
    return int((np.abs(desk.colours("Red").astype(int) - colour).max(axis=2) <= 3).sum())


def test_doubt_is_outlined_and_what_the_user_had_comes_back(desk, pair):
    result, half_widths = pair
    (composite, *_others) = ordinary_composites(desk.scene)
    views = nodes_of(desk.scene, "vtkMRMLSliceNode")
    outlines = DoubtOutlines(desk.scene)
    outlines.start(result, half_widths, 50.0, ordinary_composites(desk.scene))
    assert outlines.active
    drawn = count_of(desk, ORANGE)
    rows, columns = desk.colours("Red").shape[:2]
    assert 0 < drawn < rows * columns / 10  # the border of one half, not the half
    outlines.set_threshold(HIGH + 1)
    assert count_of(desk, ORANGE) == 0
    marked = np.zeros(COARSE.shape, np.uint8)
    marked[2:4, 3:5, 2:4] = 7
    output = OutputVolume(result, COARSE)
    add_spread(output, "candidates", marked, {}, CANDIDATES)
    outlines.start(result, half_widths, HIGH + 1, ordinary_composites(desk.scene))
    assert count_of(desk, MAGENTA) > 0
    outlines.stop()
    outlines.stop()
    assert count_of(desk, MAGENTA) == 0
    assert composite.GetLabelVolumeID() is None
    assert not any(view.GetUseLabelOutline() for view in views)
    assert [n.GetName() for n in nodes_of(desk.scene, "vtkMRMLLabelMapVolumeNode")] == ["result candidates"]


def test_the_cursor_tells_value_half_width_and_share(desk, pair):
    result, half_widths = pair
    said = []
    probe = CursorLine(said.append)
    cursor = desk.scene.AddNewNodeByClass("vtkMRMLCrosshairNode")
    probe.follow(result, half_widths)
    cursor.SetCursorPositionRAS(world_of(GRID, 6, 8, 3))
    cursor.SetCursorPositionRAS(world_of(GRID, 6, 8, 16))
    add_spread(OutputVolume(result, COARSE), "filled", np.full(COARSE.shape, 0.4, np.float32), {}, FILLED)
    probe.follow(result, half_widths)
    cursor.SetCursorPositionRAS(world_of(GRID, 5, 8, 16))
    cursor.SetCursorPositionRAS(world_of(GRID, 600, 8, 16))
    probe.stop()
    cursor.SetCursorPositionRAS(world_of(GRID, 6, 8, 3))
    plus = "\N{PLUS-MINUS SIGN}"
    assert said == [f"0 HU {plus} 10", f"0 HU {plus} 100", f"0 HU {plus} 100 (prior-filled 40 %)", ""]
    assert half_widths_of(result) is None  # the share is no half-width
    small = desk.volume(np.full(GRID.shape, 0.0123, np.float32), GRID, "small")
    assert text_at(small, small, world_of(GRID, 1, 1, 1)) == f"0.0123 HU {plus} 0.0123"
    desk.scene.RemoveNode(half_widths)
    assert text_at(result, half_widths, world_of(GRID, 1, 1, 1)) == ""


def test_outlines_and_line_follow_the_panel(ready, desk, pair):
    result, half_widths = pair
    result.SetNodeReferenceID(UNCERTAINTY, half_widths.GetID())
    cursor = desk.scene.AddNewNodeByClass("vtkMRMLCrosshairNode")
    ready.attach(desk.scene)
    ready.parameters.set_node("output", result)
    ready.refresh()
    form = ready.form
    cursor.SetCursorPositionRAS(world_of(GRID, 6, 8, 3))
    assert text(form.probeLine) == "0 HU \N{PLUS-MINUS SIGN} 10"
    assert not shown(form.uncertaintyOutlines)
    form.uncertaintyButton.click()
    assert shown(form.uncertaintyOutlines)
    form.uncertaintyOutlines.setChecked(True)
    assert len(nodes_of(desk.scene, "vtkMRMLLabelMapVolumeNode")) == 1
    form.uncertaintyOutlines.setChecked(False)
    assert not nodes_of(desk.scene, "vtkMRMLLabelMapVolumeNode")
    form.uncertaintyOutlines.setChecked(True)
    form.uncertaintyButton.click()
    assert not nodes_of(desk.scene, "vtkMRMLLabelMapVolumeNode")
    form.uncertaintyButton.click()
    desk.scene.Clear(0)
    ready.attach(desk.scene)
    assert text(form.probeLine) == ""


@pytest.mark.slow
def test_a_result_becomes_a_page_that_is_opened(ready, new_scene, desktop, application, tmp_path):
    """Without its job, from what the scene holds; what the engine has against it is said in one line."""
    form, result = ready.form, ct_volume(new_scene, "chest: 8 views")
    ready.parameters.set_node("output", result)
    ready.refresh()
    desktop.saved = str(tmp_path / "page")
    form.pageButton.click()
    wait_for(lambda: not ready.results.busy, application)
    assert "no record of a run" in text(form.runMessage)
    assert desktop.opened == []
    result.SetAttribute(PROVENANCE, json.dumps({"settings": asdict(ReconSettings())}))
    result.SetAttribute(JOB, "../../etc")
    assert job_of(result, tmp_path) is None
    spread = ct_volume(new_scene, "chest 95 % interval")
    result.SetNodeReferenceID(UNCERTAINTY, spread.GetID())
    form.pageButton.click()
    wait_for(lambda: not ready.results.busy, application)
    assert desktop.opened == [str(tmp_path / "page.html")]
    page = Path(desktop.opened[0]).read_text(encoding="utf-8")
    assert "Half-widths within which 95 %" in page
    assert "page.html" in text(form.runMessage)
