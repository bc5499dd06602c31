"""Streaming into the scene: what the three slice views show, what is kept, what is counted, what may vanish."""

from __future__ import annotations

import time

import numpy as np
import pytest
import slicer
import vtk

from DiffusionMBIRGui import scene as streaming
from DiffusionMBIRGui.scene import OutputVolume, PreviewSequence
from DiffusionMBIRGui.volumes import grid_of, ijk_to_world, image_like, image_voxels, voxels
from DiffusionMBIRLib.errors import EngineError, InputError
from DiffusionMBIRLib.geometry import Grid
from Testing.slicer.helpers import BONE, ORDINARY, Desk, events, nodes_of, rotated, with_marker

GRID = Grid((12, 24, 32), (1.0, 1.5, 2.0), (-11.0, 7.0, -20.0))


def shown(desk: Desk, grid: Grid = GRID, **options: object) -> OutputVolume:
    """An output volume in all three views, with nothing in it yet."""
    output = OutputVolume.create(desk.scene, "result", grid, **options)
    output.show()
    return output


@pytest.mark.parametrize("grid", [GRID, rotated(GRID, 90), GRID.coarsened(2)], ids=["plain", "turned", "coarsened"])
def test_the_content_of_each_preview_is_seen_in_all_three_views(desk: Desk, grid: Grid) -> None:
    output = shown(desk, grid)
    places = [(2, 3, 4), (6, 6, 10), (7, 1, 3), (1, 7, 9), (8, 8, 2)]  # five previews
    previews = [with_marker(grid, place) for place in places]
    for step, (array, here) in enumerate(previews):
        assert output.update(array, step)
        elsewhere = previews[step - 1][1]
        for view in ORDINARY:
            desk.jump_to(here)
            assert desk.at(view, here) > 250, f"{view} lacks the marker of preview {step}"
            desk.jump_to(elsewhere)
            assert desk.at(view, elsewhere) < 5, f"{view} still shows the marker of preview {step - 1}"


@pytest.mark.parametrize("view", ORDINARY)
def test_the_marker_has_its_place_and_size_in_the_picture(desk: Desk, view: str) -> None:
    output = shown(desk)
    array, centre = with_marker(GRID, (4, 8, 16))
    output.update(array, 1)
    desk.view(view).FitSliceToBackground()
    desk.jump_to(centre)
    display = output.node.GetDisplayNode()
    display.SetInterpolate(0)
    bright = np.argwhere(desk.pixels(view) > 128)
    node = desk.view(view).GetSliceNode()
    mm_a_pixel = node.GetFieldOfView()[0] / node.GetDimensions()[0]
    size_mm = {"Axial": (4.0, 6.0), "Coronal": (4.0, 8.0), "Sagittal": (6.0, 8.0)}[ORDINARY[view]]
    for axis, length in zip((1, 0), size_mm, strict=True):  # columns, then rows
        extent = bright[:, axis].max() - bright[:, axis].min() + 1
        assert extent * mm_a_pixel == pytest.approx(length, abs=2 * mm_a_pixel)
    middle = (bright.max(axis=0) + bright.min(axis=0)) / 2
    np.testing.assert_allclose(middle, np.array(node.GetDimensions()[1::-1]) / 2, atol=1.5)


def test_one_event_and_one_redraw_of_each_view_for_each_preview(desk: Desk) -> None:
    output = shown(desk)
    array, _centre = with_marker(GRID, (2, 2, 2))
    output.update(array, 0)
    node, display = events(output.node), events(output.node.GetDisplayNode())
    views = {name: events(desk.view(name)) for name in ORDINARY}
    for step in range(1, 6):
        output.update(array + step, step)
    assert node["ModifiedEvent"] == 5
    assert node["NoEvent"] == 5  # ImageDataModifiedEvent, for volume rendering
    assert sum(node.values()) == 10
    assert not display
    assert {name: counts["ModifiedEvent"] for name, counts in views.items()} == dict.fromkeys(ORDINARY, 5)


def test_updates_go_into_the_same_memory(desk: Desk) -> None:
    output = shown(desk)
    array, _centre = with_marker(GRID, (2, 2, 2))
    output.update(array, 0)
    image, address = output.node.GetImageData(), voxels(output.node).ctypes.data
    array[:] = 5
    assert voxels(output.node).max() == BONE  # a copy: the caller may reuse the array
    output.update(array, 1)
    assert output.node.GetImageData() is image
    assert voxels(output.node).ctypes.data == address
    assert (voxels(output.node) == 5).all()
    assert output.updates == 2


def test_a_preview_of_full_size_holds_the_main_thread_for_less_than_50_ms(desk: Desk) -> None:
    grid = Grid((256, 256, 256))
    output = shown(desk, grid)
    previews = [np.zeros(grid.shape, np.float32), np.ones(grid.shape, np.float32)]
    output.update(previews[0], 0)
    seconds = []
    for step in range(1, 8):
        start = time.thread_time()  # of this thread, whatever else the machine does
        output.update(previews[step % 2], step)
        seconds.append(time.thread_time() - start)
    assert np.median(seconds) < 0.05, seconds


def test_the_geometry_is_the_inputs_from_the_first_preview_on(desk: Desk) -> None:
    given = desk.volume(np.zeros(GRID.shape, np.int16), rotated(GRID, 30))
    output = shown(desk, grid_of(given), beside=given)
    output.update(np.zeros(GRID.shape, np.float32), 0)
    np.testing.assert_allclose(ijk_to_world(output.node), ijk_to_world(given), atol=1e-9)


def test_a_coarsened_grid_covers_the_inputs_field_of_view(desk: Desk) -> None:
    given = desk.volume(np.zeros(GRID.shape, np.int16), GRID)
    output = shown(desk, GRID.coarsened(2), beside=given)
    output.update(np.zeros(GRID.coarsened(2).shape, np.float32), 0)
    ours, theirs = np.zeros(6), np.zeros(6)
    output.node.GetRASBounds(ours)
    given.GetRASBounds(theirs)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    assert output.node.GetSpacing() == pytest.approx((2.0, 3.0, 2.0))


def test_the_result_may_lie_on_another_grid_than_the_previews(desk: Desk) -> None:
    output = shown(desk, GRID.coarsened(2))
    output.update(np.zeros(GRID.coarsened(2).shape, np.float32), 0)
    array, centre = with_marker(GRID, (4, 8, 16))
    assert output.update(array, 1, final=True, grid=GRID)
    assert grid_of(output.node) == GRID
    desk.jump_to(centre)
    assert all(desk.at(view, centre) > 250 for view in ORDINARY)


def test_a_preview_of_another_shape_is_refused_and_changes_nothing(desk: Desk) -> None:
    output = shown(desk)
    with pytest.raises(EngineError, match=r"preview of shape \(2, 3, 4\) does not fit its grid \(12, 24, 32\)"):
        output.update(np.zeros((2, 3, 4), np.float32), 0)
    assert output.node.GetImageData() is None


# Window and level.


def test_window_and_level_are_the_inputs(desk: Desk) -> None:
    given = desk.volume(np.zeros(GRID.shape, np.int16), GRID)
    given.GetDisplayNode().SetAutoWindowLevel(0)
    given.GetDisplayNode().SetWindowLevel(350, 40)
    given.GetDisplayNode().SetAndObserveColorNodeID("vtkMRMLColorTableNodeRainbow")
    output = shown(desk, GRID.coarsened(2), beside=given)
    output.update(np.zeros(GRID.coarsened(2).shape, np.float32), 0)
    display = output.node.GetDisplayNode()
    assert (display.GetWindow(), display.GetLevel(), display.GetAutoWindowLevel()) == (350, 40, 0)
    assert display.GetColorNodeID() == "vtkMRMLColorTableNodeRainbow"


def test_without_an_input_of_that_region_percentiles_count(desk: Desk) -> None:
    sinogram = desk.volume(np.zeros((12, 8, 32), np.float32), Grid((12, 8, 32)))
    sinogram.GetDisplayNode().SetWindowLevel(6, 3)
    output = shown(desk, beside=sinogram)
    values = np.linspace(-1000, 1000, GRID.voxels, dtype=np.float32).reshape(GRID.shape)
    values[0, 0, 0] = 1e6  # one hot voxel must not darken everything
    output.update(values, 0)
    display = output.node.GetDisplayNode()
    assert display.GetAutoWindowLevel() == 0
    assert display.GetWindow() == pytest.approx(1970, rel=0.02)
    assert display.GetLevel() == pytest.approx(-5, abs=20)
    output.update(values * 2, 1)
    assert display.GetWindow() == pytest.approx(1970, rel=0.02)  # no pumping while it streams
    output.update(values * 2, 2, final=True)
    assert display.GetWindow() == pytest.approx(3940, rel=0.02)


def test_window_and_level_stay_once_the_user_touched_them(desk: Desk) -> None:
    output = shown(desk)
    array, _centre = with_marker(GRID, (2, 2, 2))
    output.update(array, 0)
    display = output.node.GetDisplayNode()
    display.SetWindowLevel(123, -45)
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeRainbow")
    output.update(array * 2, 1)
    output.update(array * 3, 2, final=True)
    assert (display.GetWindow(), display.GetLevel()) == (123, -45)
    assert display.GetColorNodeID() == "vtkMRMLColorTableNodeRainbow"
    again = OutputVolume.create(desk.scene, "", GRID, node=output.node)  # the next run into the same volume
    again.update(array, 0)
    again.update(array, 1, final=True)
    assert (display.GetWindow(), display.GetLevel()) == (123, -45)


def test_a_chosen_output_that_windows_by_itself_is_set_by_hand(desk: Desk) -> None:
    chosen = desk.volume(np.ones((2, 2, 2), np.float32), name="chosen")
    assert chosen.GetDisplayNode().GetAutoWindowLevel()
    output = OutputVolume.create(desk.scene, "", GRID, node=chosen)
    output.update(with_marker(GRID, (2, 2, 2))[0], 0)
    assert not chosen.GetDisplayNode().GetAutoWindowLevel()
    assert chosen.GetDisplayNode().GetWindow() > 1000


# Its place, name and marks.


def children(hierarchy: slicer.vtkMRMLSubjectHierarchyNode, parent: int) -> list[str]:
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(parent, items)
    return [hierarchy.GetItemName(items.GetId(index)) for index in range(items.GetNumberOfIds())]


def test_the_output_follows_its_input_in_the_subject_hierarchy(desk: Desk) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(desk.scene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    given = desk.volume(np.zeros(GRID.shape, np.int16), GRID, "first")
    for node in (given, desk.volume(np.zeros(GRID.shape, np.int16), GRID, "second")):
        hierarchy.CreateItem(study, node)
    OutputVolume.create(desk.scene, "result", GRID, beside=given)
    assert children(hierarchy, study) == ["first", "result", "second"]
    last = desk.scene.GetFirstNodeByName("second")
    OutputVolume.create(desk.scene, "after the last", GRID, beside=last)
    assert children(hierarchy, study) == ["first", "result", "second", "after the last"]
    OutputVolume.create(desk.scene, "without input", GRID)
    assert "without input" in children(hierarchy, hierarchy.GetSceneItemID())


def test_a_chosen_output_with_content_stays_where_the_user_put_it(desk: Desk) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(desk.scene)
    folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "mine")
    given = desk.volume(np.zeros(GRID.shape, np.int16), GRID)
    hierarchy.CreateItem(hierarchy.GetSceneItemID(), given)
    chosen = desk.volume(np.zeros(GRID.shape, np.float32), GRID, "chosen")
    hierarchy.CreateItem(folder, chosen)
    output = OutputVolume.create(desk.scene, "ignored", GRID, beside=given, node=chosen)
    assert children(hierarchy, folder) == ["chosen"]
    assert output.node.GetName() == "chosen"


def test_new_outputs_get_names_of_their_own(desk: Desk) -> None:
    names = [OutputVolume.create(desk.scene, "result", GRID).node.GetName() for _ in range(3)]
    assert names[0] == "result"
    assert len(set(names)) == 3


def test_a_cancelled_run_is_marked_until_a_whole_one_takes_its_place(desk: Desk) -> None:
    array, _centre = with_marker(GRID, (2, 2, 2))
    output = shown(desk)
    output.update(array, 3)
    node = output.node
    assert node.GetAttribute(streaming.STATE) == "partial"  # so that a scene saved now tells the truth
    assert node.GetAttribute(streaming.STEP) == "3"
    assert node.GetName() == "result"
    assert output.mark_partial()
    assert node.GetName() == "result (partial)"
    again = OutputVolume.create(desk.scene, "", GRID, node=node)
    again.update(array, 1)
    again.update(array, 9, final=True, partial=True)
    assert (node.GetName(), node.GetAttribute(streaming.STATE)) == ("result (partial)", "partial")
    whole = OutputVolume.create(desk.scene, "", GRID, node=node)
    whole.update(array, 10, final=True)
    assert (node.GetName(), node.GetAttribute(streaming.STATE)) == ("result", "finished")


def test_what_a_chosen_output_holds_stays_until_the_first_preview(desk: Desk) -> None:
    chosen = desk.volume(np.full((2, 2, 2), 7, np.float32), name="chosen")
    output = OutputVolume.create(desk.scene, "", GRID, node=chosen)
    output.mark_partial()
    assert not output.discard_if_empty()
    assert (voxels(chosen) == 7).all()
    assert chosen.GetName() == "chosen"


def test_a_run_without_any_preview_leaves_no_node(desk: Desk) -> None:
    before = desk.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    output = shown(desk)
    assert output.discard_if_empty()
    assert not output.discard_if_empty()
    assert desk.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == before


def test_an_output_that_cannot_be_one_is_refused(desk: Desk) -> None:
    given = desk.volume(np.zeros(GRID.shape, np.float32), GRID)
    with pytest.raises(InputError, match="the input itself"):
        OutputVolume.create(desk.scene, "", GRID, beside=given, node=given)
    labels = desk.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    with pytest.raises(InputError, match="scalar volume"):
        OutputVolume.create(desk.scene, "", GRID, node=labels)


# What may vanish.


def test_a_node_deleted_while_the_job_runs_breaks_nothing(desk: Desk) -> None:
    given = desk.volume(np.zeros(GRID.shape, np.int16), GRID)
    output = shown(desk, beside=given)
    array, _centre = with_marker(GRID, (2, 2, 2))
    output.update(array, 0)
    desk.scene.RemoveNode(given)
    assert output.update(array, 1)
    desk.scene.RemoveNode(output.node)
    assert not output.alive
    assert not output.update(array, 2)
    assert not output.update(array, 3, final=True)
    assert not output.mark_partial()
    assert not output.describe({})
    assert not output.show()
    assert desk.pixels("Red").max() == 0


def test_a_deleted_display_node_breaks_nothing(desk: Desk) -> None:
    output = shown(desk)
    array, _centre = with_marker(GRID, (2, 2, 2))
    output.update(array, 0)
    desk.scene.RemoveNode(output.node.GetDisplayNode())
    assert output.update(array, 1)
    assert output.update(array, 2, final=True)


def test_an_input_deleted_before_the_first_preview_breaks_nothing(desk: Desk) -> None:
    given = desk.volume(np.zeros(GRID.shape, np.int16), GRID)
    output = shown(desk, beside=given)
    desk.scene.RemoveNode(given)
    assert output.update(with_marker(GRID, (2, 2, 2))[0], 0)
    assert output.node.GetDisplayNode().GetWindow() > 1000


@pytest.mark.parametrize("moment", ["before", "during"])
def test_automatic_windowing_that_the_user_asks_for_stays(desk: Desk, moment: str) -> None:
    output = shown(desk)
    array, _centre = with_marker(GRID, (2, 2, 2))
    output.update(array, 0)
    output.node.GetDisplayNode().SetAutoWindowLevel(1)
    if moment == "before":
        output = OutputVolume.create(desk.scene, "", GRID, node=output.node)
        output.update(array, 0)
    output.update(array, 1, final=True)
    assert output.node.GetDisplayNode().GetAutoWindowLevel() == 1


@pytest.mark.parametrize("singletons_too", [False, True])
def test_a_scene_closed_while_the_job_runs_breaks_nothing(desk: Desk, singletons_too: bool) -> None:
    output = shown(desk)
    sequence = PreviewSequence(desk.scene, "result", GRID)
    array, _centre = with_marker(GRID, (2, 2, 2))
    output.update(array, 0)
    sequence.record(array, 0)
    desk.scene.Clear(singletons_too)
    assert not output.update(array, 1)
    assert not sequence.record(array, 1)
    assert sequence.finish(output.node) is None
    assert nodes_of(desk.scene, "vtkMRMLScalarVolumeNode") == []


# Showing.


def test_only_ordinary_views_are_taken_and_only_empty_ones_fitted(desk: Desk) -> None:
    other = desk.volume(np.zeros(GRID.shape, np.int16), GRID)
    desk.view("Green").GetSliceCompositeNode().SetBackgroundVolumeID(other.GetID())
    desk.view("Green").GetSliceNode().SetFieldOfView(11, 11, 1)
    own = slicer.vtkMRMLSliceCompositeNode()
    own.SetLayoutName(f"{streaming.OWN_VIEWS}ResultAxial")
    own.SetSingletonTag(own.GetLayoutName())
    own = desk.scene.AddNode(own)
    output = OutputVolume.create(desk.scene, "result", GRID)
    output.update(with_marker(GRID, (2, 2, 2))[0], 0)
    output.show(fit=desk.slice_logics())
    assert own.GetBackgroundVolumeID() is None
    for name in ORDINARY:
        assert desk.view(name).GetSliceCompositeNode().GetBackgroundVolumeID() == output.node.GetID()
    assert desk.view("Green").GetSliceNode().GetFieldOfView()[0] == 11  # the user's zoom
    assert 32 <= desk.view("Red").GetSliceNode().GetFieldOfView()[0] < 60


def test_a_first_preview_that_lies_in_an_image_is_taken_over_and_later_ones_copied(desk: Desk) -> None:
    output = OutputVolume.create(desk.scene, "result", GRID)
    images = [image_like(np.full(GRID.shape, value, np.float32)) for value in (1, 2)]
    for step, image in enumerate(images):
        assert output.update(image_voxels(image), step, image=image)
        assert (voxels(output.node) == step + 1).all()
        assert output.node.GetImageData() is images[0]


def test_views_of_another_region_are_turned_and_fitted_to_the_result_others_stay(desk: Desk) -> None:
    away = Grid(GRID.shape, GRID.spacing_mm, (400.0, 300.0, 200.0))
    elsewhere = desk.volume(np.zeros(GRID.shape, np.float32), rotated(away, 25), "elsewhere")
    here = desk.volume(np.zeros(GRID.shape, np.float32), GRID, "here")
    for name, node in (("Red", elsewhere), ("Green", here)):
        desk.view(name).GetSliceCompositeNode().SetBackgroundVolumeID(node.GetID())
        desk.view(name).GetSliceNode().RotateToVolumePlane(node)
        desk.view(name).FitSliceToBackground()
    desk.view("Yellow").GetSliceCompositeNode().SetBackgroundVolumeID(elsewhere.GetID())
    desk.view("Yellow").GetSliceNode().SetOrientationToAxial()  # as a single slice leaves all views
    desk.view("Green").GetSliceNode().SetFieldOfView(7.0, 7.0, 1.0)  # the user's zoom
    output = OutputVolume.create(desk.scene, "result", GRID)
    array, centre = with_marker(GRID, (5, 11, 15))
    output.update(array, 1)
    output.show(fit=desk.slice_logics())
    desk.jump_to(centre)
    assert desk.at("Red", centre) > 250
    assert desk.view("Yellow").GetSliceNode().GetOrientation() == "Sagittal"
    assert desk.view("Green").GetSliceNode().GetFieldOfView()[0] == 7.0
