"""Volumes from and to files: NRRD, NIfTI, MetaImage and DICOM folders, through SimpleITK."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EngineError, InputError, one_line
from ..formats import VOLUME, Format, format_of, register, suffixes, writes
from ..geometry import Grid
from ..models import resources
from ..names import require_unicode
from ..provenance import own_record
from ..schema import json_object
from ..volume import Volume
from . import nifti, volume_headers
from .files import replacing

NIFTI = nifti.SUFFIXES
WRITABLE = (".nrrd", ".mha", *NIFTI)
READABLE = (*WRITABLE, ".nhdr", ".mhd")
METADATA_KEYS = (
    "modality",
    "units",
    "slice_thickness_mm",
    "provenance",
)  # what we keep of a header: nothing that could name a patient
_LONGEST_WORD = 64
_BLOCK_BYTES = 1 << 20
_MOST_UNLIKE = 1000.0
LARGE_BYTES = 2**30  # from which on volumes are not compressed


def has_volume_suffix(path: str | os.PathLike[str]) -> bool:
    """True if the name ends like a volume file that we read."""
    return str(path).lower().endswith(READABLE)


def sample_data(name: str = "ct_chest.nrrd") -> Path:
    """The path of a bundled sample volume; an unknown name raises InputError that lists those at hand."""
    folder = resources() / "SampleData"
    known = sorted(p.name for p in folder.iterdir() if has_volume_suffix(p)) if folder.is_dir() else []
    if name not in known:
        raise InputError(f"sample data {name!r} is not bundled; at hand: {', '.join(known) or 'none'}")
    return folder / name


def simple_itk() -> Any:
    """SimpleITK, imported only where a file is touched; untyped, as its generated wrappers are."""
    import SimpleITK

    return SimpleITK


def grid_of(image: Any) -> Grid:
    """The grid of a three-dimensional SimpleITK image."""
    return Grid(image.GetSize()[::-1], image.GetSpacing(), image.GetOrigin(), image.GetDirection())


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Keep ITK's warnings off the console: what matters is raised, and a job's output is a protocol."""
    switch = simple_itk().ProcessObject
    previous = switch.GetGlobalWarningDisplay()
    switch.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        switch.SetGlobalWarningDisplay(previous)


@contextmanager
def silent_console() -> Iterator[None]:
    """Keep off the console what the readers in ITK write there past all switches, beside the error that they raise."""
    try:
        sys.stderr.flush()
        console, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except (OSError, AttributeError, ValueError):  # there is no console
        yield
        return
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(console, 2)
        os.close(console)
        os.close(nowhere)


def _require_written(path: Path, bytes_needed: int) -> None:
    """Raise OSError where a disk that ran full cut the file: ITK does not always notice."""
    name, damage = path.name.lower(), ""
    if name.endswith(NIFTI):
        damage = nifti.damage(path)
    elif name.endswith(".nrrd"):
        with path.open("rb") as stream:
            packed = False
            while line := stream.readline().strip():  # an empty line ends the header
                packed = packed or line == b"encoding: gzip"
            try:
                content = gzip.GzipFile(fileobj=stream) if packed else stream
                length = sum(len(block) for block in iter(partial(content.read, _BLOCK_BYTES), b""))
            except (EOFError, zlib.error, gzip.BadGzipFile):
                length = 0
        damage = "" if length == bytes_needed else "its data end early"
    if damage:
        raise OSError(damage)


def read_volume(path: str | os.PathLike[str]) -> Volume:
    """Read a volume file or a folder with one DICOM series; values keep their type, CT values are HU.

    Raises InputError, naming the path, for a file that is missing, truncated, foreign, not scalar, not 3D or holds
    values that are not finite.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    known = format_of(path, VOLUME)
    if known is None:
        raise InputError(f"{path}: not a volume file that we read ({', '.join(suffixes(VOLUME))} or a DICOM folder)")
    volume: Volume = known.read(path)
    return volume


def read_with_itk(path: Path) -> Volume:
    """Read a file of one of the formats of ``READABLE``; errors as of :func:`read_volume`."""
    require_unicode(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not has_volume_suffix(path):
        raise InputError(f"{path}: not a volume file that we read ({', '.join(READABLE)} or a DICOM folder)")
    name = path.name.lower()
    try:
        remarks = nifti.require_sound(path) if name.endswith(NIFTI) else volume_headers.require_sound(path)
        with quiet_itk(), _slightly_skewed() if remarks else nullcontext(), silent_console():
            image = simple_itk().ReadImage(str(path), imageIO=_reader(name))
    except (RuntimeError, OSError) as error:
        if isinstance(error, EngineError):
            raise
        raise InputError(
            f"{path}: cannot be read as a volume ({_reason(error)}); is it truncated or another format?"
        ) from error
    return _volume_of(image, path, remarks)


def _reader(name: str) -> str:
    """ITK's reader by the file's suffix, so that no other one takes the file than the one it was checked for."""
    return (
        "NiftiImageIO" if name.endswith(NIFTI) else "MetaImageIO" if name.endswith((".mha", ".mhd")) else "NrrdImageIO"
    )


@contextmanager
def _slightly_skewed() -> Iterator[None]:
    """Let ITK replace axes that are not quite orthogonal by the nearest that are; how much so was checked before."""
    switch = "ITK_NIFTI_SFORM_PERMISSIVE"
    before = os.environ.get(switch)
    os.environ[switch] = "ON"
    try:
        yield
    finally:
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before


def _reason(error: Exception) -> str:
    """The last sentence of ITK's own complaint, without places in memory."""
    words = " ".join(str(error).split()).rsplit("ERROR: ", 1)[-1].rsplit("[nrrd]", 1)[-1]
    return re.sub(r"\w+\(0x[0-9a-f]+\): ", "", words)[:160].strip(" .") or type(error).__name__


def _volume_of(image: Any, path: Path, remarks: list[str]) -> Volume:
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"{path}: has {image.GetNumberOfComponentsPerPixel()} components a voxel; a scalar is needed")
    if image.GetDimension() == 2:
        image = simple_itk().JoinSeries(image)
    if image.GetDimension() != 3:
        raise InputError(f"{path}: has {image.GetDimension()} dimensions; a three-dimensional volume is needed")
    metadata = _kept({k.lower(): image.GetMetaData(k) for k in image.GetMetaDataKeys() if k.lower() in METADATA_KEYS})
    if remarks:
        metadata["remarks"] = "; ".join(remarks)
    try:
        grid = grid_of(image)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    require_like_spacing(grid, str(path))
    array = simple_itk().GetArrayFromImage(image)
    if array.dtype == np.float64 and not np.abs(array).max() <= np.finfo(np.float32).max and np.isfinite(array).all():
        raise InputError(f"{path}: values up to {np.abs(array).max():.3g} leave the range of 32 bits; repair them")
    unit = metadata.get("units", "HU")
    return Volume(array, grid, unit=unit, name=str(path), metadata=metadata)


def _kept(told: dict[str, str]) -> dict[str, str]:
    """Short words, and of the record of a run what our own hold: a header may say anything."""
    kept = {key: one_line(value, _LONGEST_WORD) for key, value in told.items() if key != "provenance"}
    try:
        record = own_record(json_object(told["provenance"], "provenance")) if "provenance" in told else {}
    except InputError:
        record = {}
    return kept | ({"provenance": json.dumps(record)} if record else {})


def require_like_spacing(grid: Grid, name: str) -> None:
    """Raise InputError where voxels are a thousand times longer than wide, which no scanner makes but a slip does."""
    spacing = grid.spacing_mm
    if max(spacing) > _MOST_UNLIKE * min(spacing):
        raise InputError(f"{name}: its spacing {spacing} mm cannot be right; repair the header")


def require_writable(path: str | os.PathLike[str], *, bytes_needed: int = 0) -> None:
    """Find out before long work whether its result can be saved.

    Raises InputError for a format that we do not write or a missing folder, EngineError where the folder cannot be
    written to or its disk has less than ``bytes_needed`` left.
    """
    path = Path(path)
    _writable_suffix(path)
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; make it first")
    if not os.access(path.parent, os.W_OK):
        raise EngineError(f"{path}: the folder {path.parent} cannot be written to")
    free = shutil.disk_usage(path.parent).free
    if free < bytes_needed:
        raise EngineError(
            f"{path}: needs {bytes_needed / 1e6:.0f} MB, its disk has {free / 1e6:.0f} MB left; make room"
        )


def _writable_suffix(path: Path) -> str:
    suffix = next((s for s in WRITABLE if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise InputError(f"{path}: cannot write this format; use one of {', '.join(WRITABLE)}")
    return suffix


def write_volume(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write a volume; its unit and metadata go into the header where the format has room for them (NRRD).

    A volume of a gigabyte or more is not compressed, which would take longer than many a run of it: but for .nii.gz.
    Written to a temporary name beside the target and renamed, so that a full disk or a crash leaves no half file.
    Raises InputError for a format that we do not write or a missing folder, EngineError where writing fails.
    """
    path = Path(path)
    suffix = _writable_suffix(path)
    array = np.ascontiguousarray(volume.array)
    if array.dtype == np.bool_ or array.dtype == np.float16:  # ITK knows neither
        array = array.astype(np.uint8 if array.dtype == np.bool_ else np.float32)
    image = simple_itk().GetImageFromArray(array)
    image.SetSpacing(volume.grid.spacing_mm)
    image.SetOrigin(volume.grid.origin_mm)
    image.SetDirection(volume.grid.direction)
    for key, value in {"units": volume.unit, **volume.metadata}.items():
        image.SetMetaData(key, value)
    with replacing(path, suffix) as temporary, quiet_itk():
        simple_itk().WriteImage(image, str(temporary), array.nbytes < LARGE_BYTES)
        _require_written(temporary, array.nbytes)


register(Format("volume", VOLUME, READABLE, read_with_itk))
writes(Volume, write_volume)
