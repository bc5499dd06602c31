"""Measurements from and to HDF5 files.

Layout, version 1 (groups and datasets; what follows a colon are attributes):

    /              : format = "DiffusionMBIR measurement", version = 1, software, task ("sparse-view-ct" or
                     "limited-angle-ct"), mu_water_per_mm, photons (a ray, 0: noise-free), electronic_noise (photons)
    /data          (slices, views, columns) line integrals of the attenuation : unit = "1" (mm x 1/mm)
    /geometry      : kind = "parallel-beam", columns, pitch_mm, offset_mm
    /geometry/angles_deg   (views,)
    /grid          where to reconstruct, in axial order : shape (slices, rows, columns), spacing_mm (x, y, z),
                     origin_mm (x, y, z), direction (9 cosines, row by row, LPS)
    /stored_grid   the grid of the user's own volume, where it was not axial : as /grid
    /provenance    text : JSON

Needed are format, version, data, geometry and grid; what else is missing takes the defaults of ``Measurement``.  Data
may be of any real number type.  Nothing is unpickled, and links to other files are not followed.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..data import MU_WATER_PER_MM, TASKS, Measurement, require_data_shape
from ..errors import EngineError, InputError
from ..geometry import Grid, ParallelBeam
from ..provenance import plain, software_version
from .files import replacing

FORMAT = "DiffusionMBIR measurement"
VERSION = 1
SUFFIXES = (".h5", ".hdf5")
_GEOMETRY = ("kind", "columns", "pitch_mm", "offset_mm")
_GRID = ("shape", "spacing_mm", "origin_mm", "direction")


def write_measurement(measurement: Measurement, path: str | os.PathLike[str]) -> None:
    """Write a measurement to an HDF5 file (.h5, .hdf5), whole or not at all.

    Raises InputError for another suffix or a missing folder, EngineError where writing fails.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a measurement is written to a file named {' or '.join(SUFFIXES)}")
    content = _encode(measurement)
    with replacing(path, path.suffix) as temporary:
        temporary.write_bytes(content)


def _encode(measurement: Measurement) -> bytes:
    """The file's content.  Made in memory, because HDF5 does not recover from a disk that fills up while it writes."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs.update(format=FORMAT, version=VERSION, software=f"DiffusionMBIR {software_version()}")
        for key in ("task", "mu_water_per_mm", "photons", "electronic_noise"):
            file.attrs[key] = getattr(measurement, key)
        data = np.asarray(measurement.data, dtype=np.float32)
        dataset = file.create_dataset("data", data=data, compression="gzip", compression_opts=1, shuffle=True)
        dataset.attrs["unit"] = "1"
        geometry = measurement.geometry.to_dict()
        group = file.create_group("geometry")
        group.create_dataset("angles_deg", data=np.asarray(geometry.pop("angles_deg"), dtype=np.float64))
        group.attrs.update(geometry)
        file.create_group("grid").attrs.update(measurement.grid.to_dict())
        if measurement.stored_grid is not None:
            file.create_group("stored_grid").attrs.update(measurement.stored_grid.to_dict())
        file["provenance"] = json.dumps(plain(measurement.provenance), sort_keys=True)
    return buffer.getvalue()


def read_measurement(path: str | os.PathLike[str]) -> Measurement:
    """Read what :func:`write_measurement`, or another program by the layout above, wrote.

    Raises InputError, naming the file and the field, for a file that is missing, truncated, foreign, of a newer
    version, or incomplete, for data that do not fit the geometry, and for values that are not finite.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            return _decode(_Reader(path, file))
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as HDF5; is it truncated or another format?") from error
    except MemoryError as error:
        raise EngineError(f"{path}: no memory for its data; close other programs or cut the measurement") from error


class _Reader:
    """Fields of an open file by name; each complaint names the file and the field."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self._file = path, file

    def has(self, name: str) -> bool:
        return name in self._file

    def attribute(self, owner: str, key: str, default: Any = None) -> Any:
        """A plain string, number or list of numbers."""
        value = self._file[owner].attrs.get(key, default)
        if value is None:
            field = f"{owner.strip('/')}.{key}" if owner != "/" else key
            raise InputError(f"{self.path}: lacks the field {field}; see the layout in the documentation")
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, np.ndarray | np.generic):
            if value.dtype.kind not in "biufSU":
                raise InputError(f"{self.path}: the field {key} is of type {value.dtype}; write numbers or text")
            value = value.tolist()
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if not isinstance(value, str | int | float):
            raise InputError(f"{self.path}: the field {key} holds neither numbers nor text")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.attribute("/", key, default)
        if isinstance(value, str | list):
            raise InputError(f"{self.path}: the field {key} must be one number, not {value!r}")
        return float(value)

    def dataset(self, name: str) -> Any:
        """A dataset that lies in this file; its values are not read yet."""
        import h5py

        if not self.has(name):
            raise InputError(f"{self.path}: lacks the dataset {name}; see the layout in the documentation")
        node = self._file[name]
        if not isinstance(node, h5py.Dataset):
            raise InputError(f"{self.path}: {name} must be a dataset, not a group")
        if node.file.filename != self._file.filename or node.external or node.is_virtual:
            raise InputError(f"{self.path}: the dataset {name} lies in another file; write it into this one")
        return node

    def numbers(self, name: str) -> Any:
        node = self.dataset(name)
        if node.dtype.kind not in "iuf":
            raise InputError(f"{self.path}: the dataset {name} is of type {node.dtype}; real numbers are needed")
        return node

    def text(self, name: str, default: str) -> str:
        import h5py

        if not self.has(name):
            return default
        node = self.dataset(name)
        if h5py.check_string_dtype(node.dtype) is None or node.shape != ():
            raise InputError(f"{self.path}: the dataset {name} must be one text")
        return str(node.asstr(errors="replace")[()])


def _decode(reader: _Reader) -> Measurement:
    _check_format(reader)
    geometry, grid = _geometry(reader), _grid(reader, "grid")
    data = reader.numbers("data")
    require_data_shape(data.shape, geometry, grid.shape[0], str(reader.path))  # before a bad file costs memory
    with np.errstate(over="ignore"):  # what leaves the range of float32 is reported as not finite
        values = data[()].astype(np.float32)
    return Measurement(
        values,
        geometry,
        grid,
        task=str(reader.attribute("/", "task", TASKS[0])),
        stored_grid=_grid(reader, "stored_grid") if reader.has("stored_grid") else None,
        mu_water_per_mm=reader.number("mu_water_per_mm", MU_WATER_PER_MM),
        photons=reader.number("photons", 0.0),
        electronic_noise=reader.number("electronic_noise", 0.0),
        provenance=_provenance(reader),
        name=str(reader.path),
    )


def _check_format(reader: _Reader) -> None:
    if reader.attribute("/", "format", "") != FORMAT:
        raise InputError(f"{reader.path}: is HDF5 but no measurement of ours (its attribute format is not {FORMAT!r})")
    version = reader.number("version", 0)
    if version > VERSION:
        raise InputError(f"{reader.path}: has layout version {version:g}, newer than {VERSION}; update this software")
    if version != VERSION:
        raise InputError(f"{reader.path}: the field version must be {VERSION}, not {version:g}")


def _geometry(reader: _Reader) -> ParallelBeam:
    if not reader.has("geometry"):
        raise InputError(f"{reader.path}: lacks the group geometry; see the layout in the documentation")
    entries = {key: reader.attribute("geometry", key, 0.0 if key == "offset_mm" else None) for key in _GEOMETRY}
    angles = reader.numbers("geometry/angles_deg")
    if angles.ndim != 1:
        raise InputError(f"{reader.path}: geometry/angles_deg must be one list of angles, it has {angles.ndim} axes")
    try:
        return ParallelBeam.from_dict({**entries, "angles_deg": angles[()].tolist()})
    except InputError as error:
        raise InputError(f"{reader.path}: {error}") from None


def _grid(reader: _Reader, name: str) -> Grid:
    if not reader.has(name):
        raise InputError(f"{reader.path}: lacks the group {name}; see the layout in the documentation")
    try:
        return Grid.from_dict({key: reader.attribute(name, key) for key in _GRID})
    except InputError as error:
        prefix = "" if str(error).startswith(str(reader.path)) else f"{reader.path}: {name}: "
        raise InputError(f"{prefix}{error}") from None


def _provenance(reader: _Reader) -> dict[str, Any]:
    try:
        entries = json.loads(reader.text("provenance", "{}"))
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, dict):
        raise InputError(f"{reader.path}: provenance must be a JSON object; repair or remove it")
    return entries
