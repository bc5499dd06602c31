"""Result minus reference: values, colours, and that nothing but its last step needs the main thread."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import slicer

from DiffusionMBIRGui.compare import set_layers
from DiffusionMBIRGui.difference import Difference, difference_volume
from DiffusionMBIRGui.volumes import grid_of, voxels
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import Grid
from Testing.slicer.helpers import Desk, nodes_of, rotated, world_of

GRID = Grid((12, 24, 32), (1.0, 1.5, 2.0), (-11.0, 7.0, -20.0))
CENTRE = world_of(GRID, 5.5, 11.5, 15.5)


@pytest.fixture
def pair(desk: Desk) -> tuple[Any, Any]:
    """A bright result and a dark reference, with windows of their own."""
    result = desk.volume(np.full(GRID.shape, 400, np.float32), GRID, "result")
    reference = desk.volume(np.full(GRID.shape, -200, np.int16), GRID, "reference")
    for node, window, level in ((result, 1000, 0), (reference, 50, 3)):
        node.GetDisplayNode().SetAutoWindowLevel(0)
        node.GetDisplayNode().SetWindowLevel(window, level)
    return result, reference


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


def test_the_views_have_a_colour_bar_in_the_results_unit(desk: Desk, pair: tuple[Any, Any]) -> None:
    desk.scene.RegisterNodeClass(slicer.vtkMRMLColorLegendDisplayNode())  # as Slicer's module Colors does
    difference = Difference(*pair)
    difference.compute()
    node = difference.show(desk.scene)
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
    assert (legend.GetTitleText(), legend.GetVisibility()) == ("HU", 1)
    assert legend.GetLabelFormat() % 600.0 == "+600"
    assert difference.ends() == ("-600 HU", "+600 HU")
    difference.reach = 1023.7
    assert difference.ends() == ("-1020 HU", "+1020 HU")
    difference.reach = 600.0
    difference.show(desk.scene, node)
    assert slicer.vtkSlicerColorLogic.GetNumberOfColorLegendDisplayNodes(node) == 1


def test_the_colour_bar_comes_and_goes_with_its_volume(desk: Desk, pair: tuple[Any, Any]) -> None:
    """Slicer's views look at a bar anew when it changes, not when a script sets layers."""
    desk.scene.RegisterNodeClass(slicer.vtkMRMLColorLegendDisplayNode())
    node, composite = difference_volume(desk.scene, *pair), desk.view("Red").GetSliceCompositeNode()
    bar, seen = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node), []
    bar.AddObserver("ModifiedEvent", lambda *_event: seen.append(composite.GetBackgroundVolumeID()))
    for shown in (node, pair[0]):
        set_layers(composite, shown.GetID(), None, 0.0)
        assert seen[-1] == shown.GetID()


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


@pytest.mark.parametrize("moved", [False, True])
def test_a_thread_computes_slab_by_slab_and_nodes_may_vanish_meanwhile(desk: Desk, moved: bool) -> None:
    """Volumes of several slabs, the last one not full, on the same grid and on one that is half a voxel off."""
    grid = Grid((37, 6, 8), (1.0, 1.5, 2.0))
    own = Grid((39, 8, 10), grid.spacing_mm, (-0.5, -0.75, -1.0)) if moved else grid
    result, reference = desk.volume(ramp(grid) + 7, grid, "result"), desk.volume(ramp(own), own, "reference")
    difference = Difference(result, reference)
    desk.scene.RemoveNode(result)
    desk.scene.RemoveNode(reference)
    del result, reference
    thread = threading.Thread(target=difference.compute)
    thread.start()
    thread.join()
    node = difference.show(desk.scene)
    np.testing.assert_allclose(voxels(node), 7, atol=1e-2)
    assert nodes_of(desk.scene, "vtkMRMLScalarVolumeNode") == [node]


def test_whole_numbers_do_not_wrap_around(desk: Desk) -> None:
    high, low = np.full(GRID.shape, 30_000, np.int16), np.full(GRID.shape, -30_000, np.int16)
    node = difference_volume(desk.scene, desk.volume(high, GRID, "result"), desk.volume(low, GRID, "reference"))
    assert (voxels(node) == 60_000).all()
