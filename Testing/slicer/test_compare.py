"""The comparison's layout, flicker and difference volume, on real layout, link and slice logics."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import slicer
from DiffusionMBIRGui import compare
from DiffusionMBIRGui.compare import PLANES, ROWS, Comparison, Flicker, difference_volume, view_name
from DiffusionMBIRGui.volumes import grid_of, voxels

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import Grid
from Testing.slicer.helpers import ORDINARY, Desk, events, nodes_of, rotated, world_of

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


# Difference.


def ramp(grid: Grid) -> np.ndarray:
    """HU that are linear in the world, so that every way to interpolate gives the same."""
    slices, rows, columns = np.indices(grid.shape)
    lps = np.stack([columns, rows, slices], -1) * grid.spacing_mm @ grid.matrix.T + grid.origin_mm
    return (10 * lps[..., 0] - 20 * lps[..., 1] + 5 * lps[..., 2]).astype(np.float32)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_the_difference_to_a_finer_reference_is_to_its_block_means(desk: Desk, factor: int) -> None:
    fine = np.random.default_rng(0).standard_normal(GRID.shape).astype(np.float32) * 100
    reference = desk.volume(fine, GRID, "reference")
    coarse = GRID.coarsened(factor)
    means = fine.reshape(12, 24 // factor, factor, 32 // factor, factor).mean(axis=(2, 4))
    result = desk.volume(means + np.float32(25), coarse, "result")
    node = difference_volume(desk.scene, result, reference)
    np.testing.assert_allclose(voxels(node), 25, atol=1e-3)
    assert grid_of(node) == coarse
    assert node.GetName() == "result - reference"


def test_a_reference_on_any_other_grid_is_interpolated(desk: Desk) -> None:
    inner = rotated(Grid((5, 8, 9), (1.3, 1.1, 2.2), (2.0, 17.0, -15.0)), 20)
    result = desk.volume(ramp(inner) + 7, inner, "result")
    node = difference_volume(desk.scene, result, desk.volume(ramp(GRID), GRID, "reference"))
    np.testing.assert_allclose(voxels(node), 7, atol=2e-2)


def test_where_the_reference_ends_there_is_no_difference(desk: Desk) -> None:
    shifted = Grid(GRID.shape, GRID.spacing_mm, (-11.0 + 16.0, 7.0, -20.0))
    result = desk.volume(ramp(shifted) + 7, shifted, "result")
    reference = desk.volume(ramp(GRID), GRID, "reference")
    difference = voxels(difference_volume(desk.scene, result, reference))
    np.testing.assert_allclose(difference[..., :16], 7, atol=1e-2)
    assert (difference[..., 16:] == 0).all()
    away = Grid(GRID.shape, GRID.spacing_mm, (500.0, 7.0, -20.0))
    with pytest.raises(InputError, match="do not overlap"):
        difference_volume(desk.scene, desk.volume(ramp(away), away, "away"), reference)


def test_differences_are_coloured_from_blue_over_white_to_red(desk: Desk) -> None:
    result = np.zeros(GRID.shape, np.float32)
    result[:, :, :10], result[:, :, 20:] = -300, 300
    reference = desk.volume(np.zeros(GRID.shape, np.int16), GRID, "reference")
    node = difference_volume(desk.scene, desk.volume(result, GRID, "result"), reference)
    display = node.GetDisplayNode()
    assert (display.GetLevel(), display.GetAutoWindowLevel()) == (0, 0)
    assert display.GetWindow() == pytest.approx(600)
    desk.view("Red").GetSliceCompositeNode().SetBackgroundVolumeID(node.GetID())
    desk.jump_to(CENTRE)
    desk.view("Red").FitSliceToBackground()
    row = desk.colours("Red")[60].astype(int)
    inside = row[row.sum(axis=1) > 0]
    blue, white, red = inside[3], inside[len(inside) // 2], inside[-3]  # columns run to the left: the view's right
    assert white.tolist() == [255, 255, 255]
    assert blue.tolist() == [0, 0, pytest.approx(255 * 0.55, abs=1)]
    assert red.tolist() == [pytest.approx(255 * 0.55, abs=1), 0, 0]


def test_a_difference_can_be_made_again_in_place_and_shares_its_colours(desk: Desk, pair: tuple[Any, Any]) -> None:
    node = difference_volume(desk.scene, *pair)
    voxels(pair[0])[:] = 500
    assert difference_volume(desk.scene, *pair, node) is node
    assert (voxels(node) == 700).all()
    other = difference_volume(desk.scene, pair[1], pair[0])
    assert other.GetDisplayNode().GetColorNodeID() == node.GetDisplayNode().GetColorNodeID()
    desk.scene.RemoveNode(node)
    assert difference_volume(desk.scene, *pair, node).GetScene() is desk.scene


def test_equal_volumes_have_a_white_difference(desk: Desk, pair: tuple[Any, Any]) -> None:
    twin = desk.volume(voxels(pair[0]).copy(), GRID, "twin")
    node = difference_volume(desk.scene, pair[0], twin)
    desk.view("Red").GetSliceCompositeNode().SetBackgroundVolumeID(node.GetID())
    desk.jump_to(CENTRE)
    assert desk.at("Red", CENTRE) == 255
