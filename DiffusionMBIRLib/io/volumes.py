"""Volumes from and to files: NRRD, NIfTI, MetaImage and DICOM folders, through SimpleITK."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import numpy as np

from ..data import Volume
from ..errors import EngineError, InputError
from ..geometry import Grid

WRITABLE = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")
READABLE = WRITABLE


def has_volume_suffix(path: str | os.PathLike[str]) -> bool:
    """True if the name ends like a volume file that we read."""
    return str(path).lower().endswith(READABLE)


def grid_of(image) -> Grid:  # noqa: ANN001 - SimpleITK is imported only where a file is touched
    """The grid of a three-dimensional SimpleITK image."""
    return Grid(image.GetSize()[::-1], image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def read_volume(path: str | os.PathLike[str]) -> Volume:
    """Read a volume file or a folder with one DICOM series; values keep their type, CT values are HU.

    Raises InputError, naming the path, for a file that is missing, truncated, foreign, not scalar, not 3D or not finite.
    """
    path = Path(path)
    if path.is_dir():
        from .dicom import read_dicom_folder

        return read_dicom_folder(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not has_volume_suffix(path):
        raise InputError(f"{path}: not a volume file that we read ({', '.join(READABLE)} or a DICOM folder)")
    import SimpleITK as sitk

    previous = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{path}: cannot be read as a volume; is it truncated or another format? ({reason})") from None
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(previous)
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"{path}: has {image.GetNumberOfComponentsPerPixel()} components a voxel; a scalar is needed")
    if image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
    if image.GetDimension() != 3:
        raise InputError(f"{path}: has {image.GetDimension()} dimensions; a three-dimensional volume is needed")
    keys = ("modality", "units", "provenance")
    metadata = {k: image.GetMetaData(k) for k in image.GetMetaDataKeys() if k.lower() in keys}
    return Volume(sitk.GetArrayFromImage(image), grid_of(image), name=str(path), metadata=metadata)


def write_volume(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write a volume; its metadata goes into the header where the format has one (NRRD).

    Written to a temporary name beside the target and renamed, so that a full disk or a crash leaves no half file.
    """
    import SimpleITK as sitk

    path = Path(path)
    suffix = next((s for s in WRITABLE if path.name.lower().endswith(s)), None)
    if suffix is None or suffix in (".nhdr", ".mhd"):
        raise InputError(f"{path}: cannot write this format; use .nrrd, .nii, .nii.gz or .mha")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; make it first")
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array))
    image.SetSpacing(volume.grid.spacing_mm)
    image.SetOrigin(volume.grid.origin_mm)
    image.SetDirection(volume.grid.direction)
    for key, value in volume.metadata.items():
        image.SetMetaData(key, value)
    temporary = path.with_name(f".{uuid.uuid4().hex}{suffix}")
    try:
        sitk.WriteImage(image, str(temporary), True)
        os.replace(temporary, path)
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise EngineError(f"{path}: could not be written; is the disk full or read-only? ({reason})") from None
    finally:
        temporary.unlink(missing_ok=True)
