"""Previews recorded and replayed, and scenes that are saved and opened again with result and recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from DiffusionMBIRGui import scene as streaming
from DiffusionMBIRGui.scene import OutputVolume, PreviewSequence
from DiffusionMBIRGui.volumes import grid_of, ijk_to_world, voxels
from DiffusionMBIRLib.geometry import Grid
from Testing.slicer.helpers import ORDINARY, Desk, nodes_of, rotated, with_marker

GRID = Grid((12, 24, 32), (1.0, 1.5, 2.0), (-11.0, 7.0, -20.0))


def test_previews_are_recorded_and_replayed_beside_the_result(desk: Desk) -> None:
    output = OutputVolume.create(desk.scene, "result", GRID)
    sequence = PreviewSequence(desk.scene, "result", GRID)
    previews = [with_marker(GRID, (1, 2 * step, 3 * step)) for step in range(5)]
    for step, (array, _centre) in enumerate(previews):
        output.update(array, 10 * step)
        assert sequence.record(array, 10 * step)
    output.node.GetDisplayNode().SetWindowLevel(500, 100)
    result = voxels(output.node).copy()
    browser = sequence.finish(output.node)
    assert sequence.frames == browser.GetNumberOfItems() == 5
    replay = browser.GetProxyNode(sequence.node)
    assert replay is not output.node
    assert replay.GetAttribute(streaming.HELPER)  # nobody's data
    for composite in streaming.ordinary_composites(desk.scene):
        composite.SetBackgroundVolumeID(replay.GetID())
    for step in (3, 0, 4):
        browser.SetSelectedItemNumber(step)
        assert sequence.node.GetNthIndexValue(step) == str(10 * step)
        np.testing.assert_array_equal(voxels(replay), previews[step][0])
        assert grid_of(replay) == GRID
        desk.jump_to(previews[step][1])
        assert all(desk.at(view, previews[step][1]) > 250 for view in ORDINARY)
    assert replay.GetAttribute(streaming.HELPER)  # still, once it was played
    display = replay.GetDisplayNode()
    assert (display.GetWindow(), display.GetLevel(), display.GetAutoWindowLevel()) == (500, 100, 0)
    np.testing.assert_array_equal(voxels(output.node), result)


def test_a_full_recording_is_thinned_out_and_spans_the_whole_run(desk: Desk) -> None:
    small = Grid((2, 2, 2))
    sequence = PreviewSequence(desk.scene, "result", small, budget_bytes=8 * 2 * 10)
    for step in range(100):
        sequence.record(np.full(small.shape, step, np.float32), step)
        assert sequence.frames <= 10
    sequence.record(np.full(small.shape, 777, np.float32), 100, last=True)
    steps = [int(sequence.node.GetNthIndexValue(index)) for index in range(sequence.frames)]
    assert steps[0] == 0
    assert steps[-1] == 100
    gaps = set(np.diff(steps[:-1]).tolist())
    assert gaps == {16}, steps


def test_values_that_are_no_hu_are_recorded_as_they_are(desk: Desk) -> None:
    small = Grid((2, 3, 4))
    values = np.linspace(0, 1, small.voxels, dtype=np.float32).reshape(small.shape)
    hu, other = PreviewSequence(desk.scene, "hu", small), PreviewSequence(desk.scene, "mr", small, unit="")
    hu.record(values * 1e6, 0)
    other.record(values, 0)
    assert voxels(hu.node.GetNthDataNode(0)).max() == 32767  # limited, not wrapped
    np.testing.assert_array_equal(voxels(other.node.GetNthDataNode(0)), values)


def test_nothing_recorded_gives_no_browser(desk: Desk) -> None:
    assert PreviewSequence(desk.scene, "result", GRID).finish() is None
    assert nodes_of(desk.scene, "vtkMRMLSequenceNode") == []


@pytest.mark.parametrize("kind", [".mrb", ".mrml"])
def test_a_saved_scene_brings_result_marks_window_and_recording_back(desk: Desk, tmp_path: Path, kind: str) -> None:
    grid = rotated(GRID, 20)
    output = OutputVolume.create(desk.scene, "result", grid)
    sequence = PreviewSequence(desk.scene, "result", grid)
    previews = [with_marker(grid, (1, 2 * step, 3 * step))[0] for step in range(3)]
    for step, array in enumerate(previews):
        output.update(array, step)
        sequence.record(array, step)
    output.update(previews[-1], 3, final=True, partial=True)
    output.describe({"software": "DiffusionMBIR"})
    output.node.GetDisplayNode().SetWindowLevel(77, 7)
    sequence.finish(output.node)
    path = tmp_path / f"saved{kind}"
    save(desk, path)
    other = desk.reopened(path)
    node = other.scene.GetFirstNodeByName("result (partial)")
    np.testing.assert_array_equal(voxels(node), previews[-1])
    np.testing.assert_allclose(ijk_to_world(node), ijk_to_world(output.node), atol=1e-6)
    assert node.GetAttribute(streaming.STATE) == "partial"
    assert node.GetAttribute(streaming.PROVENANCE) == '{"software": "DiffusionMBIR"}'
    assert (node.GetDisplayNode().GetWindow(), node.GetDisplayNode().GetLevel()) == (77, 7)
    browser = nodes_of(other.scene, "vtkMRMLSequenceBrowserNode")[0]
    browser.SetSelectedItemNumber(1)
    np.testing.assert_array_equal(voxels(browser.GetProxyNode(browser.GetMasterSequenceNode())), previews[1])
    again = OutputVolume.create(other.scene, "", grid, node=node)
    again.update(previews[0], 1, final=True)
    assert node.GetName() == "result"
    assert node.GetDisplayNode().GetWindow() == 77
    other.close()


def save(desk: Desk, path: Path) -> None:
    if path.suffix == ".mrb":
        assert desk.scene.WriteToMRB(str(path), None)
        return
    for node in nodes_of(desk.scene, "vtkMRMLStorableNode"):
        if node.AddDefaultStorageNode() and node.GetSaveWithScene():
            storage = node.GetStorageNode()
            extension = storage.GetDefaultWriteFileExtension()
            storage.SetFileName(str(path.parent / f"{node.GetID()}.{extension}"))
            assert storage.WriteData(node)
    desk.scene.SetURL(str(path))
    assert desk.scene.Commit(str(path))
