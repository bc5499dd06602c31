"""fastMRI's HDF5 layout: a dataset ``kspace`` (slices, [coils,] rows, columns), with header and mask if there are.

Rows are the readout there, columns the phase encoding.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..formats import MR, Format, register
from ..scans import KSpace
from .channels import coils_or_slices
from .hdf5 import SUFFIXES, Fields, reading, recognising
from .ismrmrd_header import Header, parse_header, require_cartesian
from .kspace_scan import Acquisition, finish
from .sizes import require_memory


def read_fastmri(fields: Fields) -> KSpace:
    """Read an open file.  Raises InputError, naming it, for axes, masks and headers that do not fit."""
    name, node = str(fields.path), fields.dataset("kspace")
    guessed: list[str] = []
    remarks: list[str] = []
    if node.ndim not in (3, 4):
        raise InputError(
            f"{name}: kspace has the shape {node.shape}; (slices, rows, columns) or (slices, coils, rows, columns) "
            "are needed"
        )
    if node.dtype.kind != "c":
        raise InputError(f"{name}: kspace is of type {node.dtype}; complex numbers are needed")
    require_memory(name, node.shape)
    header = _header(fields)
    if header is not None:
        guessed += header.guessed
        if header.ramp is not None:
            guessed.append("its readouts lie on the grid, though its header describes ramps")
    slices, rows, columns = node.shape[0], node.shape[-2], node.shape[-1]
    keep, spacing = _geometry(header, rows, columns, name, guessed)
    with np.errstate(over="ignore"):  # found not to be finite later
        data = node[()].astype(np.complex64, copy=False)
    data = data.reshape(slices, -1, rows, columns)
    lines = _lines(fields, data, remarks)
    data[..., ~lines] = 0
    whole = np.broadcast_to(lines, (rows, columns))
    if node.ndim == 3 and header is None and coils_or_slices(data[:, 0], whole) == "coils":
        guessed.append("the first axis holds slices, as in fastMRI's files, though its images look like those of coils")
    scan = Acquisition(
        name,
        "fastMRI HDF5",
        data[:, None],
        np.broadcast_to(lines, (slices, 1, rows, columns)),
        keep=keep,
        readout=-2,
        cut="mend",
        spacing_mm=spacing,
        axes="rows are readout, columns are phase encoding",
        guessed=guessed,
        remarks=remarks,
    )
    return finish(scan)


def _header(fields: Fields) -> Header | None:
    name = str(fields.path)
    if not fields.has("ismrmrd_header"):
        return None
    value = fields.dataset("ismrmrd_header")[()]
    if not isinstance(value, bytes | str):
        raise InputError(f"{name}: ismrmrd_header is no text")
    header = parse_header(value, name)
    require_cartesian(header, name)
    return header


def _geometry(
    header: Header | None, rows: int, columns: int, name: str, guessed: list[str]
) -> tuple[int, tuple[float, float, float]]:
    """Rows to keep once oversampling is removed, and spacing (along columns, rows, slices)."""
    if header is None or header.encoded is None:
        guessed.append("no oversampling of the readout, spacing 1 x 1 x 1 mm (no header)")
        return rows, (1.0, 1.0, 1.0)
    readout, phase, _ = header.encoded.matrix
    if rows != readout:
        swapped = "; are rows and columns exchanged?" if columns == readout else ""
        raise InputError(f"{name}: kspace has {rows} rows, its header encodes {readout} along the readout{swapped}")
    if columns != phase:
        guessed.append(f"its {columns} columns cover the field of view of the header's {phase}")
    x, y, z = header.encoded.field_mm[1] / columns, header.encoded.field_mm[0] / rows, header.encoded.field_mm[2]
    if min(x, y) <= 0:
        guessed.append("pixel spacing 1 x 1 mm (no field of view in the header)")
        x = y = 1.0
    guessed.append(f"slice spacing {z or 1.0:g} mm (the header tells {'no gaps' if z > 0 else 'no thickness'})")
    return round(rows / header.oversampling), (x, y, z or 1.0)


def _lines(fields: Fields, data: np.ndarray, remarks: list[str]) -> np.ndarray:
    """Which columns were sampled, bool (columns,): those that are not zero everywhere, and that the mask has."""
    name, columns = str(fields.path), data.shape[-1]
    measured: np.ndarray = np.zeros(columns, dtype=bool)
    with np.errstate(invalid="ignore"):  # what is not finite is reported by the scan
        for one in data:
            measured |= (one != 0).any(axis=(0, 1))
    if fields.has("mask"):
        node = fields.dataset("mask")
        mask = node[()] if node.size == columns else np.empty(0)
        if mask.dtype.kind not in "biuf" or mask.size != columns or max(mask.shape, default=0) != columns:
            raise InputError(
                f"{name}: mask has the shape {node.shape}; one entry for each of the {columns} columns is needed"
            )
        mask = mask.reshape(-1) != 0
        if not (mask & measured).any():
            raise InputError(f"{name}: no column of its mask holds data; is it another file's mask?")
        if (measured & ~mask).any():
            remarks.append(f"{int((measured & ~mask).sum())} measured columns are left out by the mask")
        if (mask & ~measured).any():
            remarks.append(f"{int((mask & ~measured).sum())} columns of the mask hold no data")
        measured &= mask
    return measured


register(Format("fastMRI", MR, SUFFIXES, reading(read_fastmri), recognising(lambda fields: fields.has("kspace"))))
