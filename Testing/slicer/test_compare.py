"""The comparison's layout, flicker and difference volume, on real layout, link and slice logics."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import slicer

from DiffusionMBIRGui import compare
from DiffusionMBIRGui.compare import PLANES, ROWS, Comparison, Flicker, view_name
from DiffusionMBIRGui.difference import difference_volume
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import Grid
from Testing.slicer.helpers import ORDINARY, Desk, events, nodes_of, world_of

GRID = Grid((12, 24, 32), (1.0, 1.5, 2.0), (-11.0, 7.0, -20.0))
CENTRE = world_of(GRID, 5.5, 11.5, 15.5)
FOUR_UP = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView


@pytest.fixture
def pair(desk: Desk) -> tuple[Any, Any]:
    """A bright result and a dark reference, with windows of their own."""
    result = desk.volume(np.full(GRID.shape, 400, np.float32), GRID, "result")
    reference = desk.volume(np.full(GRID.shape, -200, np.int16), GRID, "reference")
    for node, window, level in ((result, 1000, 0), (reference, 50, 3)):
        node.GetDisplayNode().SetAutoWindowLevel(0)
        node.GetDisplayNode().SetWindowLevel(window, level)
    return result, reference


def link_logic(desk: Desk) -> Any:
    """What carries slice, zoom and layers from one linked view to the others in the application."""
    logic = slicer.vtkMRMLSliceLinkLogic()
    logic.SetMRMLApplicationLogic(desk.application)
    logic.SetMRMLScene(desk.scene)
    for node in nodes_of(desk.scene, "vtkMRMLSliceNode"):
        node.SetMappedInLayout((node.GetLayoutName() in ORDINARY) == 0)
    return logic


def entered(desk: Desk, pair: tuple[Any, Any]) -> Comparison:
    comparison = Comparison(desk.scene)
    comparison.enter(*pair, desk.application)
    desk.open_views()
    comparison.fit(desk.application)
    return comparison


def test_the_layout_has_two_rows_of_three_planes() -> None:
    root = ElementTree.fromstring(compare.layout_description())
    assert (root.tag, root.get("type")) == ("layout", "vertical")
    rows = [item.find("layout") for item in root]
    assert [row.get("type") for row in rows] == ["horizontal", "horizontal"]
    planes = [[item.find("view/property[@name='orientation']").text for item in row] for row in rows]
    assert planes == [list(PLANES), list(PLANES)]
    tags = [view.get("singletontag") for view in root.iter("view")]
    assert len(set(tags)) == 6


@pytest.mark.parametrize(("room", "layout"), [(0, compare.LAYOUT), (2, compare.NARROW), (3, compare.LAYOUT)])
def test_where_three_views_do_not_fit_the_two_stand_side_by_side(desk, pair, room, layout) -> None:
    """Slicer's window would grow beyond the screen otherwise."""
    comparison, before = Comparison(desk.scene), desk.layout.GetViewArrangement()
    comparison.enter(*pair, desk.application, room)
    assert desk.layout.GetViewArrangement() == layout
    assert comparison.active
    comparison.leave()
    assert desk.layout.GetViewArrangement() == before
    root = ElementTree.fromstring(compare.layout_description(narrow=True))
    columns = [item.find("layout") for item in root]
    assert [root.get("type"), *(column.get("type") for column in columns)] == ["horizontal", "vertical", "vertical"]
    assert len(columns[0]) == 3


def test_entering_shows_both_volumes_in_three_planes_with_one_window(desk: Desk, pair: tuple[Any, Any]) -> None:
    comparison = entered(desk, pair)
    assert comparison.active
    for row, grey in zip(ROWS, (230, 76), strict=True):  # 400 and -200 in a window of 1000 around 0
        for plane in PLANES:
            node = desk.view(view_name(row, plane)).GetSliceNode()
            assert node.GetOrientation() == plane
            picture = desk.pixels(view_name(row, plane))
            assert np.median(picture[picture > 0]) == pytest.approx(grey, abs=2)
            assert np.count_nonzero(picture) > 2000  # fitted to the view


def test_leaving_restores_the_layout_and_never_touches_ordinary_views(desk: Desk, pair: tuple[Any, Any]) -> None:
    former = slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView
    desk.layout.SetViewArrangement(former)
    desk.view("Red").GetSliceCompositeNode().SetBackgroundVolumeID(pair[1].GetID())
    counts = [events(desk.view(name).GetSliceCompositeNode()) for name in ORDINARY]
    comparison = entered(desk, pair)
    comparison.enter(*pair)  # entering twice does not forget where it came from
    comparison.leave()
    assert desk.layout.GetViewArrangement() == former
    assert not comparison.active
    assert not any(counts)
    comparison.leave()
    assert desk.layout.GetViewArrangement() == former


def test_a_layout_chosen_meanwhile_stays(desk: Desk, pair: tuple[Any, Any]) -> None:
    comparison = entered(desk, pair)
    chosen = slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView
    desk.layout.SetViewArrangement(chosen)
    assert not comparison.active
    comparison.leave()
    assert desk.layout.GetViewArrangement() == chosen


def test_slices_and_zoom_are_linked_between_the_rows_and_with_no_other_view(desk: Desk, pair: tuple[Any, Any]) -> None:
    comparison = entered(desk, pair)
    link = link_logic(desk)
    moved, red = desk.view(view_name("Result", "Axial")), desk.view("Red").GetSliceNode()
    before = (red.GetSliceOffset(), red.GetFieldOfView())
    moved.StartSliceOffsetInteraction()
    moved.SetSliceOffset(-14.0)
    moved.EndSliceOffsetInteraction()
    moved.StartSliceNodeInteraction(slicer.vtkMRMLSliceNode.FieldOfViewFlag)
    moved.GetSliceNode().SetFieldOfView(40, 30, 1)
    moved.EndSliceNodeInteraction()
    other = desk.view(view_name("Reference", "Axial")).GetSliceNode()
    assert other.GetSliceOffset() == -14.0
    assert other.GetFieldOfView()[0] == pytest.approx(40)
    assert desk.view(view_name("Reference", "Coronal")).GetSliceNode().GetSliceOffset() != -14.0
    assert (red.GetSliceOffset(), red.GetFieldOfView()) == before
    comparison.leave()
    link.SetMRMLScene(None)


def test_the_views_open_at_the_slices_of_the_ordinary_ones(desk: Desk, pair: tuple[Any, Any]) -> None:
    desk.jump_to(CENTRE + [3, 4, 2])
    entered(desk, pair)
    for plane, axis in zip(PLANES, (2, 1, 0), strict=True):
        matrix = desk.view(view_name("Reference", plane)).GetSliceNode().GetSliceToRAS()
        assert matrix.GetElement(axis, 3) == pytest.approx((CENTRE + [3, 4, 2])[axis])


def test_slices_beside_the_volumes_are_not_taken_over(desk: Desk, pair: tuple[Any, Any]) -> None:
    desk.jump_to(CENTRE + [300, 300, 300])
    entered(desk, pair)
    for row in ROWS:
        for plane in PLANES:
            assert desk.pixels(view_name(row, plane)).max() > 0


def test_window_and_level_follow_each_other_both_ways_until_it_is_left(desk: Desk, pair: tuple[Any, Any]) -> None:
    comparison = entered(desk, pair)
    result, reference = (node.GetDisplayNode() for node in pair)
    reference.SetWindowLevel(300, 40)
    assert (result.GetWindow(), result.GetLevel()) == (300, 40)
    result.SetWindowLevel(600, 60)
    assert (reference.GetWindow(), reference.GetLevel()) == (600, 60)
    comparison.leave()
    result.SetWindowLevel(1, 2)
    assert reference.GetWindow() == 600


def test_window_and_level_are_free_once_another_layout_was_chosen(desk: Desk, pair: tuple[Any, Any]) -> None:
    entered(desk, pair)
    desk.layout.SetViewArrangement(FOUR_UP)
    pair[0].GetDisplayNode().SetWindowLevel(1, 2)
    assert pair[1].GetDisplayNode().GetWindow() == 1000


def test_nothing_breaks_when_nodes_or_scene_vanish_meanwhile(desk: Desk, pair: tuple[Any, Any]) -> None:
    comparison = entered(desk, pair)
    desk.scene.RemoveNode(pair[1])
    pair[0].GetDisplayNode().SetWindowLevel(1, 2)
    desk.scene.Clear(False)
    comparison.leave()
    assert not comparison.active
    result = desk.volume(np.ones(GRID.shape, np.float32), GRID, "next result")
    reference = desk.volume(np.zeros(GRID.shape, np.float32), GRID, "next reference")
    comparison.enter(result, reference, desk.application)
    assert comparison.active
    comparison.leave()
    assert not comparison.active


def test_what_cannot_be_compared_is_told_in_one_line(desk: Desk, pair: tuple[Any, Any]) -> None:
    result, reference = pair
    comparison, flicker = Comparison(desk.scene), Flicker(desk.scene)
    for first, second, line in (
        (None, reference, "no result"),
        (result, None, "nothing to compare with"),
        (result, result, "the same volume"),
    ):
        for act in (comparison.enter, flicker.start, lambda a, b: difference_volume(desk.scene, a, b)):
            with pytest.raises(InputError, match=line):
                act(first, second)
    assert desk.layout.GetViewArrangement() == FOUR_UP
    assert not flicker.active


# Flicker.


def test_flicker_shows_result_and_reference_in_turn_and_leaves_no_trace(desk: Desk, pair: tuple[Any, Any]) -> None:
    result, reference = pair
    composites = {name: desk.view(name).GetSliceCompositeNode() for name in ORDINARY}
    for composite in composites.values():
        composite.SetBackgroundVolumeID(result.GetID())
    composites["Green"].SetForegroundVolumeID(reference.GetID())
    composites["Green"].SetForegroundOpacity(0.25)
    flicker = Flicker(desk.scene)
    flicker.start(result, reference)
    desk.jump_to(CENTRE)
    for shows_result in (True, False, True):
        assert flicker.shows_result is shows_result
        assert {desk.at(name, CENTRE) for name in ORDINARY} == {229 if shows_result else 76}
        flicker.toggle()
    flicker.stop()
    assert not flicker.active
    for name, composite in composites.items():
        assert composite.GetBackgroundVolumeID() == result.GetID()
        assert composite.GetForegroundVolumeID() == (reference.GetID() if name == "Green" else None)
    assert composites["Green"].GetForegroundOpacity() == 0.25


def test_a_toggle_is_one_redraw_of_each_view(desk: Desk, pair: tuple[Any, Any]) -> None:
    flicker = Flicker(desk.scene)
    flicker.start(*pair)
    counts = {name: events(desk.view(name)) for name in ORDINARY}
    flicker.toggle()
    assert {name: count["ModifiedEvent"] for name, count in counts.items()} == dict.fromkeys(ORDINARY, 1)


def test_flicker_survives_a_closed_scene(desk: Desk, pair: tuple[Any, Any]) -> None:
    flicker = Flicker(desk.scene)
    flicker.start(*pair)
    desk.scene.Clear(False)
    flicker.toggle()
    flicker.stop()
    assert not flicker.active
