"""Which nodes and files can be reconstructed from: each unusable kind is named in one line, usable ones are placed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import vtk

from DiffusionMBIRGui import inputs
from DiffusionMBIRGui.volumes import grid_of, place
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import Grid, axial_order, view_angles
from Testing.slicer.helpers import Desk, rotated

ROOT = Path(__file__).resolve().parents[2]
GRID = Grid((4, 6, 5), (0.7, 0.8, 3.0), (10.0, -20.0, 30.0))


def ct(shape: tuple[int, int, int] = GRID.shape) -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1500, shape).astype(np.int16)


def linear_transform(desk: Desk, matrix: np.ndarray) -> Any:
    node = desk.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    vtk_matrix = vtk.vtkMatrix4x4()
    vtk_matrix.DeepCopy(matrix.reshape(-1).tolist())
    node.SetMatrixTransformToParent(vtk_matrix)
    return node


def is_one_line(text: str) -> bool:
    return bool(text) and "\n" not in text and len(text) < 140 and text.endswith(".")


def test_a_ct_volume_is_understood(desk: Desk) -> None:
    node = desk.volume(ct(), GRID)
    assert inputs.problem_with(node, "volume") == ""
    low, high = ct().min(), ct().max()
    assert inputs.summary_of(node, "volume") == f"CT, 5 x 6 x 4, 0.7 x 0.8 x 3 mm, HU {low} to {high}"


def test_the_summary_asks_about_values_that_do_not_look_like_hu(desk: Desk) -> None:
    node = desk.volume(np.abs(ct()), GRID)
    assert inputs.summary_of(node).endswith("; no values below -200: are these HU?")


def unusable_nodes(desk: Desk) -> dict[str, tuple[Any, str]]:
    """Kind -> node and a word that its line must hold."""
    scene, new = desk.scene, desk.scene.AddNewNodeByClass
    no_image = new("vtkMRMLScalarVolumeNode", "empty")
    no_voxels = new("vtkMRMLScalarVolumeNode", "empty")
    no_voxels.SetAndObserveImageData(vtk.vtkImageData())
    labels = new("vtkMRMLLabelMapVolumeNode", "labels")
    labels.SetAndObserveImageData(desk.volume(ct()).GetImageData())
    colours = vtk.vtkImageData()
    colours.SetDimensions(3, 3, 3)
    colours.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    vector = new("vtkMRMLVectorVolumeNode", "colours")
    vector.SetAndObserveImageData(colours)
    disguised = new("vtkMRMLScalarVolumeNode", "colours")
    disguised.SetAndObserveImageData(colours)
    bent = desk.volume(ct())
    bent.SetAndObserveTransformNodeID(new("vtkMRMLBSplineTransformNode", "bent").GetID())
    sheared = desk.volume(ct())
    sheared.SetIJKToRASDirections(1, 0.3, 0, 0, 1, 0, 0, 0, 1)
    sheared_by_parent = desk.volume(ct())
    shear = np.eye(4)
    shear[0, 2] = 0.2
    sheared_by_parent.SetAndObserveTransformNodeID(linear_transform(desk, shear).GetID())
    flat = desk.volume(ct())
    flattened = np.diag([1.0, 1.0, 0.0, 1.0])
    flat.SetAndObserveTransformNodeID(linear_transform(desk, flattened).GetID())
    holes = ct().astype(np.float32)
    holes[1, 2, 3] = np.nan
    infinite = ct().astype(np.float64)
    infinite[0, 0, 0] = -np.inf
    deleted = desk.volume(ct())
    scene.RemoveNode(deleted)
    return {
        "none": (None, "Choose"),
        "no image": (no_image, "empty"),
        "no voxels": (no_voxels, "empty"),
        "label map": (labels, "label map"),
        "segmentation": (new("vtkMRMLSegmentationNode", "s"), "label map"),
        "vector": (vector, "components"),
        "three components": (disguised, "components"),
        "tensors": (new("vtkMRMLDiffusionTensorVolumeNode", "d"), "components"),
        "frames": (new("vtkMRMLSequenceNode", "q"), "frames"),
        "model": (new("vtkMRMLModelNode", "m"), "no volume"),
        "non-linear transform": (bent, "non-linear"),
        "sheared": (sheared, "sheared"),
        "sheared by its transform": (sheared_by_parent, "sheared"),
        "flattened": (flat, "no length"),
        "not a number": (desk.volume(holes), "1 voxels are NaN"),
        "infinite": (desk.volume(infinite), "infinite"),
        "constant": (desk.volume(np.zeros((3, 3, 3), np.float32)), "All voxels are 0"),
        "deleted": (deleted, "deleted"),
    }


def test_each_unusable_node_is_told_apart_in_one_line(desk: Desk) -> None:
    for kind, (node, word) in unusable_nodes(desk).items():
        line = inputs.problem_with(node, "volume")
        assert word in line, f"{kind}: {line!r}"
        assert is_one_line(line), f"{kind}: {line!r}"
        with pytest.raises(InputError) as raised:
            inputs.volume_input(node)
        assert str(raised.value) == line


def test_a_closed_scene_leaves_a_deleted_volume(desk: Desk) -> None:
    node = desk.volume(ct())
    desk.scene.Clear(False)
    assert "deleted" in inputs.problem_with(node)


def test_no_line_holds_the_name_of_a_node_or_file(desk: Desk, tmp_path: Path) -> None:
    node = desk.volume(np.zeros((2, 2, 2)), name="Doe^Jane")
    assert "Doe" not in inputs.problem_with(node)
    assert "Doe" not in inputs.problem_with_file(tmp_path / "Doe.nrrd")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_the_array_is_a_read_only_view_of_the_nodes_memory(desk: Desk, dtype: Any) -> None:
    values = (np.arange(GRID.voxels) % 200).reshape(GRID.shape).astype(dtype)
    node = desk.volume(values, GRID)
    array, grid = inputs.volume_input(node)
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, values)
    assert not array.flags.writeable
    assert grid == GRID
    node.GetImageData().SetScalarComponentFromDouble(4, 5, 3, 0, 99)  # column, row, slice
    assert array[3, 5, 4] == 99


def test_grids_are_those_that_itk_reads(desk: Desk, tmp_path: Path) -> None:
    """Slicer's own writer and ITK agree with our change between RAS and LPS."""
    sitk = pytest.importorskip("SimpleITK")
    grid = rotated(Grid((4, 6, 5), (0.7, 0.8, 3.0), (10.0, -20.0, 30.0), (0, 0, 1, 1, 0, 0, 0, 1, 0)), 25)
    node = desk.volume(ct(), grid)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(tmp_path / "volume.nrrd"))
    assert storage.WriteData(node)
    image = sitk.ReadImage(str(tmp_path / "volume.nrrd"))
    assert image.GetSize()[::-1] == grid.shape
    for theirs, ours in (
        (image.GetSpacing(), grid.spacing_mm),
        (image.GetOrigin(), grid.origin_mm),
        (image.GetDirection(), grid.direction),
        (grid_of(node).origin_mm, grid.origin_mm),
        (grid_of(node).direction, grid.direction),
    ):
        np.testing.assert_allclose(theirs, ours, atol=1e-6)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), ct())


def test_a_rigid_transform_becomes_part_of_the_grid_and_the_result_lands_on_the_volume(desk: Desk) -> None:
    node = desk.volume(ct(), GRID)
    rigid = np.array([[0, -1, 0, 5], [1, 0, 0, -7], [0, 0, 1, 11], [0, 0, 0, 1]], dtype=float)
    node.SetAndObserveTransformNodeID(linear_transform(desk, rigid).GetID())
    array, grid = inputs.volume_input(node)
    np.testing.assert_allclose(grid.ijk_to_ras, rigid @ GRID.ijk_to_ras, atol=1e-12)
    assert grid.spacing_mm == pytest.approx(GRID.spacing_mm)
    assert inputs.summary_of(node).endswith("; with its transform")
    assert axial_order(grid).permutation == (0, 2, 1)  # what is axial counts in the world
    result = desk.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "result")
    result.SetAndObserveImageData(node.GetImageData())
    place(result, grid)
    ours, theirs = np.zeros(6), np.zeros(6)
    result.GetRASBounds(ours)
    node.GetRASBounds(theirs)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    assert array.shape == grid.shape


def test_anisotropic_scaling_and_mirroring_are_fine(desk: Desk) -> None:
    node = desk.volume(ct(), GRID)
    scaled = np.diag([2.0, 1.0, -0.5, 1.0])
    node.SetAndObserveTransformNodeID(linear_transform(desk, scaled).GetID())
    assert inputs.problem_with(node) == ""
    grid = inputs.volume_input(node)[1]
    assert grid.spacing_mm == pytest.approx((1.4, 0.8, 1.5))
    np.testing.assert_allclose(grid.ijk_to_ras, scaled @ GRID.ijk_to_ras, atol=1e-12)


def sinogram(desk: Desk, views: int = 8, columns: int = 12) -> Any:
    array = np.random.default_rng(1).uniform(0, 6, (3, views, columns)).astype(np.float32)
    return desk.volume(array, Grid(array.shape, (0.9, 1.0, 2.5), (0.0, 0.0, -40.0)), "sinogram")


def test_a_sinogram_gives_data_geometry_and_grid(desk: Desk) -> None:
    node = sinogram(desk)
    array, geometry, grid = inputs.sinogram_input(node, 8, 90.0)
    assert array.shape == (3, 8, 12)
    assert geometry.to_dict() == {
        "kind": "parallel-beam",
        "angles_deg": list(view_angles(8, 90.0)),
        "columns": 12,
        "pitch_mm": pytest.approx(0.9),
        "offset_mm": 0.0,
    }
    assert grid.shape == (3, 12, 12)
    assert grid.spacing_mm == pytest.approx((0.9, 0.9, 2.5))
    centre = np.asarray(grid.origin_mm) + 5.5 * np.array([0.9, 0.9, 0])
    np.testing.assert_allclose(centre, [0, 0, -40], atol=1e-9)
    assert "8 views from 0 to 157.5 deg, 12 columns of 0.9 mm, 3 slices" in inputs.summary_of(node, "sinogram")


def test_a_sinogram_may_list_its_angles(desk: Desk) -> None:
    node = sinogram(desk, views=3)
    node.SetAttribute(inputs.ANGLES, json.dumps([0, 50, 170]))
    assert inputs.sinogram_input(node, 0, 180.0)[1].angles_deg == (0, 50, 170)
    for wrong in ("[0, 50]", "[0, 50, NaN]", "nonsense", "7"):
        node.SetAttribute(inputs.ANGLES, wrong)
        with pytest.raises(InputError, match="must list 3 angles"):
            inputs.sinogram_input(node, 0, 180.0)


def test_a_sinogram_with_other_views_than_set_is_refused(desk: Desk) -> None:
    with pytest.raises(InputError, match="8 rows, one for each view, but 60 views are set: set 8"):
        inputs.sinogram_input(sinogram(desk), 60, 180.0)


def test_hu_and_counts_are_no_line_integrals(desk: Desk) -> None:
    assert "no line integrals" in inputs.problem_with(desk.volume(ct(), GRID), "sinogram")
    assert inputs.problem_with(sinogram(desk), "sinogram") == ""


def test_k_space_of_a_node_has_two_components_a_coil(desk: Desk) -> None:
    parts = np.random.default_rng(0).standard_normal((3, 4, 5, 6)).astype(np.float32)
    node = desk.vectors(parts)
    assert inputs.problem_with(node, "k-space") == ""
    assert inputs.summary_of(node, "k-space") == "k-space, 5 x 4 x 3, 1 x 1 x 1 mm, coils: 3"
    array, grid = inputs.kspace_input(node)
    data = inputs.complex_coils(array)
    assert data.dtype == np.complex64
    assert grid.shape == (3, 4, 5)
    for coil in range(3):
        np.testing.assert_array_equal(data[:, coil], parts[..., 2 * coil] + 1j * parts[..., 2 * coil + 1])


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda desk: desk.volume(ct()), "a real and an imaginary component for each coil"),
        (lambda desk: desk.vectors(np.ones((2, 3, 4, 3), np.float32)), "a real and an imaginary component"),
        (lambda desk: desk.vectors(np.zeros((2, 3, 4, 2), np.float32)), "zero everywhere"),
        (lambda desk: desk.vectors(np.full((2, 3, 4, 2), np.nan, np.float32)), "NaN or infinite"),
    ],
)
def test_unusable_k_space_is_one_line(desk: Desk, make: Any, line: str) -> None:
    assert line in inputs.problem_with(make(desk), "k-space")


def test_files_are_judged_by_a_glance(tmp_path: Path) -> None:
    (tmp_path / "empty.nrrd").write_bytes(b"")
    (tmp_path / "text.h5").write_bytes(b"hello")
    (tmp_path / "scan.h5").write_bytes(b"\x89HDF\r\n\x1a\n and more")
    (tmp_path / "notes.txt").write_bytes(b"hello")
    (tmp_path / "folder").mkdir()
    for name, source, word in (
        ("", "volume", "Choose"),
        ("missing.nrrd", "volume", "no such file"),
        ("empty.nrrd", "volume", "empty"),
        ("notes.txt", "volume", "use .nrrd"),
        ("scan.h5", "volume", "use .nrrd"),
        ("folder", "volume", "folder is empty"),
        ("folder", "sinogram", "no folder of projections"),
        ("folder", "k-space", "choose a file of k-space"),
        ("empty.nrrd", "k-space", ".mrd"),
        ("text.h5", "sinogram", "no HDF5"),
        ("text.h5", "k-space", "no HDF5"),
    ):
        line = inputs.problem_with_file(tmp_path / name if name else "", source)
        assert word in line, (name, source)
        assert is_one_line(line), line
    assert inputs.problem_with_file(tmp_path / "scan.h5", "sinogram") == ""
    (tmp_path / "raw.dat").write_bytes(b"any")
    assert inputs.problem_with_file(tmp_path / "raw.dat", "k-space") == ""
    (tmp_path / "folder" / "angles.txt").write_text("0\n90\n")
    assert inputs.problem_with_file(tmp_path / "folder", "sinogram") == ""
    assert "projections" in inputs.summary_of_file(tmp_path / "folder", "sinogram")
    assert inputs.problem_with_file(tmp_path / "folder", "volume") == ""
    assert "read when the job starts" in inputs.summary_of_file(tmp_path / "scan.h5", "sinogram")
    assert "DICOM" in inputs.summary_of_file(tmp_path / "folder")


@pytest.mark.slow
def test_a_glance_at_files_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "scan.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    code = (
        "import sys; from pathlib import Path; from DiffusionMBIRGui import compare, export, inputs, parameters\n"
        "from DiffusionMBIRGui import results, scene\n"
        f"for source in parameters.SOURCES: inputs.problem_with_file(Path({str(tmp_path / 'scan.h5')!r}), source)\n"
        "print([name for name in ('torch', 'h5py', 'SimpleITK', 'pydicom') if name in sys.modules])"
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "DiffusionMBIR"), *sys.path]))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_volume_files_header_is_summed_up(desk: Desk, tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(tmp_path / "volume.nrrd"))
    assert storage.WriteData(desk.volume(ct(), GRID))
    assert inputs.problem_with_file(tmp_path / "volume.nrrd") == ""
    assert inputs.summary_of_file(tmp_path / "volume.nrrd") == "CT, 5 x 6 x 4, 0.7 x 0.8 x 3 mm"
    (tmp_path / "damaged.nrrd").write_bytes(b"NRRD0004\nnonsense")
    assert inputs.summary_of_file(tmp_path / "damaged.nrrd").startswith("Volume file, 0.0 MB")
