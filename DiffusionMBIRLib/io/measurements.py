"""Measurements from and to files; for k-space see ``kspace``.

Layout of projections, HDF5, version 1 (groups and datasets; what follows a colon are attributes):

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

import numpy as np

from ..errors import InputError
from ..geometry import ParallelBeam
from ..provenance import plain, software_version
from ..scans import KSpace, Measurement
from ..tasks import TASKS
from ..volume import MU_WATER_PER_MM
from .files import replacing
from .hdf5 import Fields, opened
from .kspace import SUFFIXES as KSPACE_SUFFIXES
from .kspace import is_kspace_hdf5, read_kspace, read_kspace_hdf5, write_kspace
from .projections import is_data_exchange, is_projection_folder, read_data_exchange, read_projection_folder

FORMAT = "DiffusionMBIR measurement"
VERSION = 1
SUFFIXES = (".h5", ".hdf5")
_GEOMETRY = ("kind", "columns", "pitch_mm", "offset_mm")


def write_measurement(measurement: Measurement | KSpace, path: str | os.PathLike[str]) -> None:
    """Write projections or k-space to an HDF5 file (.h5, .hdf5), whole or not at all.

    Raises InputError for another suffix or a missing folder, EngineError where writing fails.
    """
    path = Path(path)
    if isinstance(measurement, KSpace):
        return write_kspace(measurement, path)
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


def is_measurement(path: str | os.PathLike[str]) -> bool:
    """True if the path is named like a file of projections or k-space, or is a folder of projections."""
    path = Path(path)
    if path.is_dir():
        return is_projection_folder(path)
    return path.suffix.lower() in (*SUFFIXES, *KSPACE_SUFFIXES)


def read_measurement(path: str | os.PathLike[str]) -> Measurement | KSpace:
    """Read projections or k-space, by the file's content.

    What :func:`write_measurement` wrote, another program's file of the layouts above, and the formats of MR and CT
    systems that ``kspace`` and ``projections`` list.  Raises InputError, naming the file and the field, for a file
    that is missing, truncated, foreign, of a newer version, or incomplete, for data that do not fit the geometry, and
    for values that are not finite.
    """
    path = Path(path)
    if path.is_dir():
        return read_projection_folder(path)
    if path.suffix.lower() in KSPACE_SUFFIXES and path.suffix.lower() not in SUFFIXES:
        return read_kspace(path)
    with opened(path) as fields:
        if is_kspace_hdf5(fields):
            return read_kspace_hdf5(fields)
        return read_data_exchange(fields) if is_data_exchange(fields) else _decode(fields)


def _decode(reader: Fields) -> Measurement:
    reader.require_format(FORMAT, VERSION)
    geometry, grid = _geometry(reader), reader.grid("grid")
    data = reader.numbers("data")
    require_data_shape(data.shape, geometry, grid.shape[0], str(reader.path))  # before a bad file costs memory
    with np.errstate(over="ignore"):  # what leaves the range of float32 is reported as not finite
        values = data[()].astype(np.float32)
    return Measurement(
        values,
        geometry,
        grid,
        task=str(reader.attribute("/", "task", TASKS[0])),
        stored_grid=reader.grid("stored_grid") if reader.has("stored_grid") else None,
        mu_water_per_mm=reader.number("mu_water_per_mm", MU_WATER_PER_MM),
        photons=reader.number("photons", 0.0),
        electronic_noise=reader.number("electronic_noise", 0.0),
        provenance=reader.provenance(),
        name=str(reader.path),
    )


def _geometry(reader: Fields) -> ParallelBeam:
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
