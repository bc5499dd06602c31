"""Can this node or file be reconstructed from?  What is wrong with it in one line, what it holds, and its array.

The texts name no node and no path: a name may hold a patient's, and the user sees beside it what was chosen.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from DiffusionMBIRLib import hounsfield
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import Grid, ParallelBeam, view_angles
from DiffusionMBIRLib.simulation.settings import CTScan

from .texts import _, no_input, shape
from .volumes import grid_of, voxels

ANGLES = "DiffusionMBIR.AnglesDeg"  # attribute of a sinogram node: JSON list of view angles, where they are irregular
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MOST_ABSORBING = 100.0  # no ray that is measured has a larger line integral; counts and HU do
_VECTORS = ("vtkMRMLTensorVolumeNode", "vtkMRMLDiffusionTensorVolumeNode", "vtkMRMLStreamingVolumeNode")
_FRAMES = ("vtkMRMLSequenceNode", "vtkMRMLMultiVolumeNode")


# Nodes.


def problem_with(node: Any, source: str = "volume") -> str:
    """Why a node cannot be reconstructed from, in one line that says what to do; '' if it can.

    source: 'volume' (a scan of it is simulated), 'sinogram' or 'k-space'.  Reads the voxels once: 4 ms for 256^3.
    """
    if node is None:
        return no_input(source)
    if source == "k-space":
        return _problem_of_kspace(node) or _problem_of_place(node)
    return _problem_of_kind(node) or _problem_of_place(node) or _problem_of_values(node, source)


def _problem_of_kind(node: Any) -> str:
    if node.GetScene() is None:
        return _("The volume was deleted: choose another one.")
    if any(node.IsA(name) for name in _FRAMES):
        return _("This has several frames: choose or export a single one.")
    if node.IsA("vtkMRMLLabelMapVolumeNode") or node.IsA("vtkMRMLSegmentationNode"):
        return _("This is a label map: choose the image that it was drawn on.")
    if any(node.IsA(name) for name in _VECTORS):
        return _("This volume has several components a voxel: choose a scalar volume.")
    if not node.IsA("vtkMRMLScalarVolumeNode"):
        return _("This is no volume: choose a scalar volume.")
    image = node.GetImageData()
    if image is None or min(image.GetDimensions()) < 1 or image.GetPointData().GetScalars() is None:
        return _("The volume is empty: load its data, or choose another one.")
    if image.GetNumberOfScalarComponents() != 1:
        return _("This volume has several components a voxel: choose a scalar volume.")
    return ""


def _problem_of_kspace(node: Any) -> str:
    if node.GetScene() is None:
        return _("The volume was deleted: choose another one.")
    image = node.GetImageData() if node.IsA("vtkMRMLVectorVolumeNode") else None
    if image is None or image.GetPointData().GetScalars() is None or image.GetNumberOfScalarComponents() % 2:
        return _("k-space needs a real and an imaginary component for each coil: choose such a volume, or a file.")
    array = voxels(node)
    if not np.isfinite([array.min(), array.max()]).all():
        return _("k-space holds values that are NaN or infinite: mask or repair them first.")
    return "" if array.any() else _("k-space is zero everywhere: nothing was measured.")


def _problem_of_place(node: Any) -> str:
    parent = node.GetParentTransformNode()
    if parent is not None and not parent.IsTransformToWorldLinear():
        return _("The volume lies under a non-linear transform: harden it first (Transforms module).")
    try:
        grid_of(node)
    except InputError:
        return _("The axes of the volume are sheared or have no length: resample it to a regular grid first.")
    return ""


def _problem_of_values(node: Any, source: str) -> str:
    array = voxels(node)
    low, high = float(array.min()), float(array.max())  # NaN and infinity show in them
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int(array.size - np.count_nonzero(np.isfinite(array)))
        return _("{count} voxels are NaN or infinite: mask or repair them first.").format(count=bad)
    if low == high:
        return _("All voxels are {value}: there is nothing to reconstruct.").format(value=f"{low:g}")
    if source == "sinogram" and max(-low, high) > _MOST_ABSORBING:
        return _("Values up to {value} are no line integrals: take -log(counts / open beam) first.").format(
            value=f"{max(-low, high):.4g}"
        )
    return ""


def summary_of(node: Any, source: str = "volume", parameters: Any = None) -> str:
    """What was understood of a usable node, in one line: kind, size, spacing, values.

    parameters: the panel's, for the task and for what a sinogram does not tell by itself; None for the usual ones.
    """
    if source == "k-space":
        coils = node.GetImageData().GetNumberOfScalarComponents() // 2
        return _summary(grid_of(node), mri=True, kind=_("k-space")) + ", " + _("coils: {count}").format(count=coils)
    array = voxels(node)
    low, high = float(array.min()), float(array.max())  # VTK's own range takes 0.15 s at 256^3
    if source == "sinogram":
        slices, views, columns = node.GetImageData().GetDimensions()[::-1]
        angles = _angles(node, views, parameters.get("angle_range_deg") if parameters else CTScan.angle_range_deg)
        return _("Sinogram, {views} views from {first} to {last} deg, {columns} columns of {pitch} mm, {slices} slices, line integrals {low} to {high}").format(  # noqa: E501
            views=views, first=f"{min(angles):g}", last=f"{max(angles):g}", columns=columns,
            pitch=f"{node.GetSpacing()[0]:.4g}", slices=slices, low=f"{low:.3g}", high=f"{high:.3g}",
        )  # fmt: skip
    mri = parameters is not None and parameters.modality == "MR"
    return _summary(grid_of(node), mri) + ", " + (_("{low} to {high}") if mri else _("HU {low} to {high}")).format(
        low=f"{low:.5g}", high=f"{high:.5g}"
    ) + _remarks(node, mri, low, high)  # fmt: skip


def _summary(grid: Grid, mri: bool, kind: str = "") -> str:
    kind = kind or (_("MRI") if mri else _("CT"))
    spacing = " x ".join(f"{s:.3g}" for s in grid.spacing_mm)
    return _("{kind}, {shape}, {spacing} mm").format(kind=kind, shape=shape(grid.shape), spacing=spacing)


def _remarks(node: Any, mri: bool, low: float, high: float) -> str:
    """What the user should know, but what does not stand in the way."""
    remarks = ""
    if not mri and hounsfield.doubt(low, high):
        remarks += "; " + _("no values below -200: are these HU?")
    if node.GetParentTransformNode() is not None:
        remarks += "; " + _("with its transform")
    return remarks


def volume_input(node: Any) -> tuple[np.ndarray, Grid]:
    """The voxels (slices, rows, columns) of a volume node, a read-only view, and where they lie in the world (LPS).

    Linear transforms that the node lies under are part of the grid.  Raises InputError with :func:`problem_with`'s
    line.
    """
    problem = problem_with(node, "volume")
    if problem:
        raise InputError(problem)
    array = voxels(node)
    array.flags.writeable = False
    return array, grid_of(node)


def sinogram_input(node: Any, views: int, angle_range_deg: float) -> tuple[np.ndarray, ParallelBeam, Grid]:
    """Line integrals (slices, views, columns) of a sinogram node, their geometry and the grid to reconstruct on.

    The node's columns are the detector's, its rows the views, its slices the slices; its spacing gives the detector
    pitch and the distance of slices.  views: how many rows are expected, 0 to take what is there.  The angles are
    spread over ``angle_range_deg`` unless the node lists them (attribute DiffusionMBIR.AnglesDeg).  The grid is the
    square around the circle that all views see.  Raises InputError in one line.
    """
    problem = problem_with(node, "sinogram")
    if problem:
        raise InputError(problem)
    array = voxels(node)
    array.flags.writeable = False
    slices, rows, columns = array.shape
    if views and views != rows:
        raise InputError(
            _("The sinogram has {rows} rows, one for each view, but {views} views are set: set {rows}.").format(
                rows=rows, views=views
            )
        )
    pitch, _rows_mm, slice_mm = (float(s) for s in node.GetSpacing())
    geometry = ParallelBeam(_angles(node, rows, angle_range_deg), columns, pitch)
    centred = -(columns - 1) / 2 * pitch
    bottom = float(node.GetOrigin()[2])
    grid = Grid((slices, columns, columns), (pitch, pitch, slice_mm), (centred, centred, bottom))
    return array, geometry, grid


def kspace_input(node: Any) -> tuple[np.ndarray, Grid]:
    """k-space (slices, rows, columns, 2 x coils) of a vector volume node, a read-only view, and the image's grid.

    The components are the real and the imaginary part of each coil in turn, zero where nothing was sampled; the lowest
    frequency lies in the middle of rows and columns.  :func:`complex_coils` makes complex numbers of it.  Raises
    InputError with :func:`problem_with`'s line.
    """
    problem = problem_with(node, "k-space")
    if problem:
        raise InputError(problem)
    array = voxels(node)
    array.flags.writeable = False
    return array, grid_of(node)


def complex_coils(array: np.ndarray) -> np.ndarray:
    """(slices, rows, columns, 2 x coils) as complex64 (slices, coils, rows, columns)."""
    values = np.ascontiguousarray(np.moveaxis(array[..., 0::2], -1, 1), dtype=np.complex64)
    values.imag = np.moveaxis(array[..., 1::2], -1, 1)
    return values


def _angles(node: Any, views: int, angle_range_deg: float) -> tuple[float, ...]:
    text = node.GetAttribute(ANGLES)
    if not text:
        return view_angles(views, angle_range_deg)
    try:
        angles = tuple(float(angle) for angle in json.loads(text))
    except (TypeError, ValueError):
        angles = ()
    if len(angles) != views or not np.all(np.isfinite(angles)):
        raise InputError(
            _("The attribute {name} of the sinogram must list {views} angles.").format(name=ANGLES, views=views)
        )
    return angles


# Files.


def problem_with_file(path: str | os.PathLike[str], source: str = "volume") -> str:
    """Why a file or DICOM folder cannot be reconstructed from, as far as a glance tells; '' if it may.

    Looks at its name and first bytes only; the engine reads it in its own process.
    """
    if not str(path):
        return no_input(source)
    file = Path(path)
    try:
        if file.is_dir():
            return _problem_with_folder(file, source)
        if not file.is_file():
            return _("There is no such file: choose another one.")
        return _problem_with_content(file, source)
    except OSError:
        return _("The file cannot be read: check its permissions, or copy it.")


def _problem_with_folder(folder: Path, source: str) -> str:
    if source == "volume":
        return "" if any(folder.iterdir()) else _("The folder is empty: choose the folder of a CT series.")
    if source == "k-space":
        return _("This is a folder: choose a file of k-space.")
    from DiffusionMBIRLib.io.projections import is_projection_folder

    if is_projection_folder(folder):
        return ""
    return _("This is no folder of projections with a list of angles (angles.txt): choose a measurement file.")


def _problem_with_content(file: Path, source: str) -> str:
    suffixes = suffixes_of(source)
    if not file.name.lower().endswith(suffixes):
        return _("This kind of file cannot be read here: use {suffixes}.").format(suffixes=", ".join(suffixes))
    from DiffusionMBIRLib.io.hdf5 import SUFFIXES as HDF5_SUFFIXES

    with file.open("rb") as stream:
        first = stream.read(4096)
    if not first:
        return _("The file is empty: copy it again.")
    if file.suffix.lower() in HDF5_SUFFIXES and _HDF5 not in first:  # some files begin with a block of the user's
        return _("This is no HDF5 file, or it is damaged: copy it again.")
    return ""


def suffixes_of(source: str) -> tuple[str, ...]:
    """How the names of files end that the engine reads; its modules are only imported once a file is chosen."""
    from DiffusionMBIRLib import formats

    return formats.suffixes({"sinogram": formats.CT, "k-space": formats.MR}.get(source, formats.VOLUME))


def summary_of_file(path: str | os.PathLike[str], source: str = "volume", parameters: Any = None) -> str:
    """What was understood of a usable file, in one line; of a volume its header is read, the voxels are not."""
    file = Path(path)
    if file.is_dir():
        kind = _("DICOM folder") if source == "volume" else _("Folder of projections")
        return _("{kind}, read when the job starts").format(kind=kind)
    size_mb = f"{file.stat().st_size / 1e6:.1f}"
    if source != "volume":
        return _("Measurement file, {size} MB, read when the job starts").format(size=size_mb)
    grid = _header(file)
    if grid is None:
        return _("Volume file, {size} MB, read when the job starts").format(size=size_mb)
    return _summary(grid, parameters is not None and parameters.modality == "MR")


def _header(file: Path) -> Grid | None:
    """The grid that a volume file announces; None where it tells of none that we understand."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
        return Grid(reader.GetSize()[::-1], reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())
    except (RuntimeError, InputError):
        return None
