"""What a NIfTI file says of itself, checked before ITK reads it: ITK fills gaps in silence, with zeros and ones.

Layouts after the NIfTI-1 and NIfTI-2 definitions (nifti1.h, nifti2.h).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..host_memory import require_room

SUFFIXES = (".nii", ".nii.gz")
_HEADER_BYTES = 544
_BLOCK_BYTES = 1 << 20
_MOST_BEHIND = 1 << 26
_FLOATS = {16: "f4", 64: "f8"}
_ORTHOGONAL = 1e-2  # as a grid allows
_SAME_SPACING = 1e-2
# For each version: size of the header, then format and place of dim, bitpix, vox_offset, pixdim, scl_slope and
# scl_inter, datatype, sform_code, srow_x to srow_z.
_LAYOUTS = (
    (348, ("8h", 40), ("h", 72), ("f", 108), ("8f", 76), ("2f", 112), ("h", 70), ("h", 254), ("12f", 280)),
    (540, ("8q", 16), ("h", 14), ("q", 168), ("8d", 104), ("2d", 176), ("h", 12), ("i", 348), ("12d", 400)),
)


@dataclass(frozen=True)
class Nifti:
    """Fields of a header.  shape: all axes, fastest first.  sform: (3, 3) columns in mm, None where not given."""

    order: str
    shape: tuple[int, ...]
    itemsize: int
    offset: int
    pixdim: tuple[float, ...]
    scaling: tuple[float, float]
    datatype: int
    sform: np.ndarray | None

    @property
    def bytes_needed(self) -> int:
        return self.offset + math.prod(self.shape) * self.itemsize


def parse(header: bytes) -> Nifti | None:
    """The fields of an uncompressed header; None for one that is neither version."""
    for size, *places in _LAYOUTS:
        for order in "<>":
            if len(header) < size or struct.unpack_from(f"{order}i", header)[0] != size:
                continue
            dim, bits, offset, pixdim, scaling, datatype, code, srow = (
                struct.unpack_from(order + kind, header, at) for kind, at in places
            )
            shape = tuple(max(int(n), 1) for n in dim[1 : 1 + max(int(dim[0]), 0)])
            sform = np.reshape(srow, (3, 4))[:, :3] if code[0] > 0 else None
            start = int(offset[0]) if math.isfinite(offset[0]) else 0
            return Nifti(order, shape, int(bits[0]) // 8, start, pixdim[1:4], scaling, int(datatype[0]), sform)
    return None


def damage(path: Path) -> str:
    """What is wrong with the length of a file or with its values, '' if nothing."""
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as stream:
            start = stream.read(_HEADER_BYTES)
            header = parse(start)
            if header is None:
                return "its header is not that of NIfTI"
            if _FLOATS.get(header.datatype) and header.itemsize != np.dtype(_FLOATS[header.datatype]).itemsize:
                return f"bitpix says {8 * header.itemsize} bits a value, which its datatype {header.datatype} has not"
            length, bad = _data(stream, start, header)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return "its compressed data end early or are damaged"
    if length < header.bytes_needed:
        return f"it holds {length} of the {header.bytes_needed} bytes that its header announces"
    return f"{bad} of {math.prod(header.shape)} values are NaN or infinite; repair or mask them first" if bad else ""


def _data(stream: BufferedIOBase, start: bytes, header: Nifti) -> tuple[int, int]:
    """How many bytes there are, and how many values are not finite.

    What follows the data is read too, for the check sum of packed files, but not without end.
    """
    length, bad, rest = 0, 0, b""
    kind, needed = _FLOATS.get(header.datatype), header.bytes_needed
    block = start
    while block and length < needed + _MOST_BEHIND:
        if kind:
            rest += block[max(0, header.offset - length) : max(0, needed - length)]
            whole = len(rest) - len(rest) % header.itemsize
            bad += int(np.count_nonzero(~np.isfinite(np.frombuffer(rest[:whole], dtype=header.order + kind))))
            rest = rest[whole:]
        length += len(block)
        block = stream.read(_BLOCK_BYTES)
    return length, bad


def require_sound(path: Path) -> list[str]:
    """Remarks on what is read with a repair.

    Raises InputError, naming the field, for a spacing of zero, sheared axes, a scaling without sense, data that end
    early or are not finite, and for what does not fit into memory.
    """
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as stream:
            header = parse(stream.read(_HEADER_BYTES))
    except (EOFError, zlib.error, gzip.BadGzipFile):
        header = None
    if header is None:
        raise InputError(f"{path}: {damage(path)}; copy the file again")
    require_room(str(path), header.shape, max(header.itemsize, 4))
    axes = min(len(header.shape), 3)
    if not all(math.isfinite(size) and size > 0 for size in header.pixdim[:axes]):
        raise InputError(
            f"{path}: pixdim, the spacing, must be positive, not {header.pixdim[:axes]}; repair the header"
        )
    slope, intercept = header.scaling
    if not (math.isfinite(slope) and math.isfinite(intercept)) or (slope == 0 and intercept != 0):
        raise InputError(f"{path}: scl_slope {slope:g} and scl_inter {intercept:g} are no scaling; repair the header")
    remarks = _axes(path, header)
    wrong = damage(path)
    if wrong:
        raise InputError(f"{path}: {wrong}" + ("" if "values" in wrong else "; copy the file again"))
    return remarks


def _axes(path: Path, header: Nifti) -> list[str]:
    """Remarks on the axes that srow gives; InputError for sheared ones."""
    if header.sform is None:
        return []
    if not np.isfinite(header.sform).all():
        raise InputError(f"{path}: srow, the orientation, holds NaN; repair the header")
    lengths = np.linalg.norm(header.sform, axis=0)
    if lengths.min() <= 0:
        raise InputError(f"{path}: srow, the orientation, has an axis without length; repair the header")
    units = header.sform / lengths
    skew = float(np.abs(units.T @ units - np.eye(3)).max())
    if skew > _ORTHOGONAL:
        degrees = math.degrees(math.asin(min(skew, 1.0)))
        raise InputError(f"{path}: its axes are sheared by {degrees:.2g} degrees, not orthogonal; resample it first")
    remarks = []
    if skew > 1e-6:
        remarks.append(f"axes that are {math.degrees(skew):.2g} degrees from orthogonal are made orthogonal")
    axes = min(len(header.shape), 3)
    if not np.allclose(lengths[:axes], header.pixdim[:axes], rtol=_SAME_SPACING):
        told = " x ".join(f"{length:.4g}" for length in lengths[:axes])
        used = " x ".join(f"{size:.4g}" for size in header.pixdim[:axes])
        remarks.append(f"srow says voxels of {told} mm, pixdim {used} mm, which is taken")
    return remarks
