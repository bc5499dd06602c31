"""What the tests of the Slicer module share: a scene with its logics and slice views, volumes, event counts, pixels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from DiffusionMBIRGui.volumes import image_like, place
from DiffusionMBIRLib.geometry import Grid

ORDINARY = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}
VIEW_SIZE = (160, 120)  # columns, rows
AIR, BONE = -1000.0, 1000.0


class Desk:
    """A scene with the logics that Slicer's application has: layouts, slice views, colours, sequences, file reading."""

    def __init__(self, cache_folder: Path) -> None:
        cache_folder.mkdir(parents=True)
        self.scene = slicer.vtkMRMLScene()
        cache = slicer.vtkCacheManager()
        cache.SetRemoteCacheDirectory(str(cache_folder))
        cache.SetMRMLScene(self.scene)
        data = slicer.vtkDataIOManager()
        data.SetCacheManager(cache)
        self.scene.SetCacheManager(cache)
        self.scene.SetDataIOManager(data)
        self.application = slicer.vtkSlicerApplicationLogic()
        self.application.SetMRMLScene(self.scene)
        self._logics = [cache, data]
        for name in ("vtkMRMLColorLogic", "vtkMRMLLayoutLogic", "vtkSlicerSequencesLogic"):
            logic = getattr(slicer, name)()
            logic.SetMRMLScene(self.scene)
            self._logics.append(logic)
        self.layout = self._logics[3].GetLayoutNode()
        self.layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        self._slice_logics = vtk.vtkCollection()
        self.open_views()

    def open_views(self) -> None:
        """Give each slice node of the layouts so far its view, as the application's layout manager does."""
        have = {logic.GetSliceNode() for logic in self.slice_logics()}
        for node in nodes_of(self.scene, "vtkMRMLSliceNode"):
            if node not in have:
                logic = slicer.vtkMRMLSliceLogic()
                logic.SetMRMLScene(self.scene)
                logic.SetSliceNode(node)
                node.SetDimensions(*VIEW_SIZE, 1)
                self._slice_logics.AddItem(logic)
        self.application.SetSliceLogics(self._slice_logics)

    def slice_logics(self) -> list[Any]:
        return [self._slice_logics.GetItemAsObject(i) for i in range(self._slice_logics.GetNumberOfItems())]

    def view(self, name: str) -> Any:
        """The slice logic of a view by its layout name."""
        return self.application.GetSliceLogicByLayoutName(name)

    def pixels(self, name: str) -> np.ndarray:
        """What a slice view shows, (rows, columns) grey of 0 to 255, row 0 at the bottom.

        The slice logic's own pipeline reslices, windows, colours and blends the volumes into this image, which the
        application's view draws as it is: no renderer and no GPU is needed.
        """
        return self.colours(name)[..., 0].astype(int)

    def colours(self, name: str) -> np.ndarray:
        """As :meth:`pixels`, (rows, columns, RGB), on the view's black ground."""
        connection = self.view(name).GetImageDataConnection()
        if connection is None:
            return np.zeros((*VIEW_SIZE[::-1], 3), np.uint8)
        connection.GetProducer().Update()
        image = connection.GetProducer().GetOutputDataObject(connection.GetIndex())
        columns, rows, _one = image.GetDimensions()
        rgba = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(rows, columns, -1)
        return (rgba[..., :3] * (rgba[..., 3:] / 255.0)).astype(np.uint8)

    def at(self, name: str, ras_mm: np.ndarray) -> int:
        """The grey value that a view shows at a point of the world; the point must lie in its slice."""
        matrix = vtk.vtkMatrix4x4()
        matrix.DeepCopy(self.view(name).GetSliceNode().GetXYToRAS())
        matrix.Invert()
        column, row, depth, _one = matrix.MultiplyPoint((*ras_mm, 1.0))
        assert abs(depth) < 1e-3, f"the point lies {depth} off the slice"
        return int(self.pixels(name)[round(row), round(column)])

    def jump_to(self, ras_mm: np.ndarray, names: tuple[str, ...] = tuple(ORDINARY)) -> None:
        """Let views show the slices through a point of the world, the point in their middle."""
        for name in names:
            self.view(name).GetSliceNode().JumpSliceByCentering(*ras_mm)

    def volume(self, array: np.ndarray, grid: Grid | None = None, name: str = "input") -> Any:
        """A displayed scalar volume node."""
        node = self.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        place(node, grid or Grid(array.shape))
        node.SetAndObserveImageData(image_like(array, array.dtype))
        node.CreateDefaultDisplayNodes()
        return node

    def vectors(self, array: np.ndarray, name: str = "vectors") -> Any:
        """A vector volume node of (slices, rows, columns, components)."""
        node = self.scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", name)
        place(node, Grid(array.shape[:3]))
        image = vtk.vtkImageData()
        image.SetDimensions(array.shape[2::-1])
        values = np.ascontiguousarray(array).reshape(-1, array.shape[-1])
        image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(values, deep=True))
        node.SetAndObserveImageData(image)
        return node

    def reopened(self, path: Path) -> Desk:
        """Another desk with the scene that was saved at ``path`` (.mrb or .mrml)."""
        other = Desk(path.parent / f"{path.stem}-cache")
        if path.suffix == ".mrb":
            assert other.scene.ReadFromMRB(str(path), True, None)
        else:
            other.scene.SetURL(str(path))
            assert other.scene.Import()
        return other

    def close(self) -> None:
        for logic in self.slice_logics():
            logic.SetMRMLScene(None)
        self._slice_logics.RemoveAllItems()
        self.application.SetMRMLScene(None)
        for logic in self._logics[2:]:
            logic.SetMRMLScene(None)
        self.scene.Clear(True)


def nodes_of(scene: Any, class_name: str) -> list[Any]:
    return [scene.GetNthNodeByClass(index, class_name) for index in range(scene.GetNumberOfNodesByClass(class_name))]


def events(node: Any) -> Counter[str]:
    """Counts the events of a node from now on, by name; ImageDataModifiedEvent counts as 'NoEvent'."""
    counts: Counter[str] = Counter()
    node.AddObserver("AnyEvent", lambda _caller, event: counts.update([event]))
    return counts


def rotated(grid: Grid, degrees: float) -> Grid:
    """The grid with axes turned about z."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ grid.matrix
    return Grid(grid.shape, grid.spacing_mm, grid.origin_mm, tuple(matrix.reshape(-1)))


def world_of(grid: Grid, slice_index: float, row: float, column: float) -> np.ndarray:
    """RAS position in mm of a voxel."""
    lps = np.asarray(grid.origin_mm) + grid.matrix @ (np.array([column, row, slice_index]) * grid.spacing_mm)
    return lps * [-1, -1, 1]


def with_marker(grid: Grid, low: tuple[int, int, int], size: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Air with a bright block of size^3 voxels, and the RAS position of the block's centre."""
    array = np.full(grid.shape, AIR, dtype=np.float32)
    array[tuple(slice(start, start + size) for start in low)] = BONE
    middle = [start + (size - 1) / 2 for start in low]
    return array, world_of(grid, *middle)
