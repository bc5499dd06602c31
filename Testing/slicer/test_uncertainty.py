"""How uncertain a result is, over it in the slice views: what is drawn, the threshold, and what comes back."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest_plugins = ("Testing.slicer.host.fixtures",)

import Testing.slicer.host  # noqa: E402, F401 - makes qt importable

# isort: split
from DiffusionMBIRGui.scene import UNCERTAINTY, OutputVolume, add_spread, ordinary_composites  # noqa: E402
from DiffusionMBIRGui.uncertainty import UncertaintyOverlay, half_widths_of, uncertain_colours  # noqa: E402
from DiffusionMBIRLib.errors import InputError  # noqa: E402
from DiffusionMBIRLib.geometry import Grid  # noqa: E402
from Testing.slicer.helpers import nodes_of, world_of  # noqa: E402
from Testing.slicer.host.played import ct_volume, shown, text  # noqa: E402

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
