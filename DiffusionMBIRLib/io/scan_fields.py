"""The one form that scans, and volumes in a job's folder, have in a file: for users, jobs, cases and tests alike.

Layout, version 2; in HDF5 (groups and datasets; what follows a colon are attributes), and with the same names in NPZ:

    /              : format = "DiffusionMBIR scan", version = 2, software, kind ("ct", "mr", "slices" or "volume"),
                     name, task, and the single numbers of the kind:
                     ct: mu_water_per_mm, unit of the result (HU or 1/mm), photons (a ray, 0: noise-free),
                     electronic_noise (photons)
                     mr: noise_std (of real and imaginary parts, 0: unknown)
                     slices: axis (of the user's array, that they are stacked along)
    /data          ct: line integrals of the attenuation (mm x 1/mm), (slices, views, columns) or (rows, views, columns)
                   mr: complex (slices, coils, rows, columns), 0 where not sampled; lowest frequency in the middle
                   slices: thick ones (slices, rows, columns), in HU or magnitudes of MR
    /geometry      : kind ("parallel-beam", "cartesian-mri", ...) and the single fields of the geometry; its lists and
                     arrays are datasets: angles_deg (views,); mask (rows, columns), 1 where sampled
    /photon_profile  ct: how the photons are spread over the rays, of a shape that broadcasts to that of data
    /most_per_mm   ct: largest attenuation that voxels can have, where it is known, in 1/mm, of a shape that
                   broadcasts to the grid's
    /least_per_mm  ct: the smallest, likewise
    /weights       ct: how far each ray is trusted, relative to others; 0 for one that does not count; shape likewise
    /maps          mr: complex (slices or 1, coils, rows, columns) coil sensitivities, where they are known
    /calibration   mr: complex (slices, coils, rows, columns), the middle of k-space from a separate scan
    /grid          where to reconstruct : shape (slices, rows, columns), spacing_mm (x, y, z), origin_mm (x, y, z),
                     direction (9 cosines, row by row, LPS), isocentre_mm (x, y, z) where it is not the middle
    /stored_grid   the grid of the user's own volume, where it differs : as /grid
    /provenance    text : JSON

HDF5 holds arrays of 2^28 values and more uncompressed and in one piece: they are mapped into memory, not read, so that
processes of one computer share them and each takes the slices that it needs.  Real data may be float16 ("storage"),
which a remark in the provenance tells; they are float32 in memory, but for what is mapped.

Version 1 had two forms, "DiffusionMBIR measurement" and "DiffusionMBIR k-space" (with /mask); both are read.  Needed
are format, version, data, geometry (or mask) and grid; what else is missing takes the defaults of its class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from typing import Any, Protocol

import numpy as np

from ..errors import InputError
from ..geometry import Geometry, Grid, ParallelBeam, geometry_from_dict
from ..preparation.consistency import with_doubt
from ..provenance import own_record, plain, shared_name, software_version
from ..scans import scan_kind
from ..scans.base import require_data_shape
from ..volume import Volume
from .sizes import require_memory

FORMAT = "DiffusionMBIR scan"
VERSION = 2
_OLD = {"DiffusionMBIR measurement": "ct", "DiffusionMBIR k-space": "mr"}  # version 1
_VOLUME = "volume"
Content = dict[str, Any]  # names, with / between a group and its entry, to plain values, numpy arrays and objects


class Source(Protocol):
    """An open file, as :class:`.hdf5.Fields` shows it; each complaint names the file and the field."""

    path: Any

    def has(self, name: str) -> bool: ...
    def names(self, group: str) -> list[str]: ...
    def attribute(self, owner: str, key: str, default: Any = None) -> Any: ...
    def attributes(self, owner: str) -> dict[str, Any]: ...
    def number(self, key: str, default: float) -> float: ...
    def dataset(self, name: str) -> Any: ...
    def mapped(self, name: str, wanted: np.dtype[Any]) -> np.ndarray | None: ...
    def grid(self, name: str) -> Grid: ...
    def json(self, name: str) -> dict[str, Any]: ...


def content_of(thing: Any) -> Content:
    """Every field of a scan or a volume by its name in the file; objects of JSON, such as provenance, as they are."""
    kind = _VOLUME if isinstance(thing, Volume) else thing.KIND
    content: Content = {"format": FORMAT, "version": VERSION, "software": f"DiffusionMBIR {software_version()}"}
    content["kind"] = kind
    stored = {} if kind == _VOLUME else thing.STORED
    for f in fields(thing):
        name, value = "data" if f.name == "array" else f.name, getattr(thing, f.name)
        if value is None:
            continue
        if name == "name":
            content[name] = shared_name(value)
        elif isinstance(value, Geometry | Grid):
            content |= {f"{name}/{key}": entry for key, entry in value.to_dict().items()}
        elif isinstance(value, np.ndarray):
            kept = np.float16 if name == "data" and value.dtype == np.float16 else stored.get(name)
            content[name] = np.asarray(value, dtype=kept)
        else:
            content[name] = plain(value)
    return content


def holds_scan(source: Source) -> bool:
    """Whether an open file says to be of our format, in any version."""
    return source.attribute("/", "format", "") in (FORMAT, *_OLD)


def scan_in(source: Source) -> Any:
    """The scan, or volume, of an open file.

    Raises InputError that names the field for a file that is foreign, of a newer version or incomplete, for data that
    do not fit the geometry, and for values that are not finite.
    """
    named = source.attribute("/", "format", "")
    if named not in (FORMAT, *_OLD):
        raise InputError(f"{source.path}: is no scan of ours (its attribute format is not {FORMAT!r})")
    newest, version = (VERSION if named == FORMAT else 1), source.number("version", 0)
    if version > newest:
        raise InputError(f"{source.path}: has layout version {version:g}, newer than {newest}; update this software")
    if version != newest:
        raise InputError(f"{source.path}: the field version must be {newest}, not {version:g}")
    kind = _OLD.get(named) or str(source.attribute("/", "kind"))
    if kind == _VOLUME:
        return _volume(source)
    try:
        cls = scan_kind(kind)
    except InputError as error:
        raise InputError(f"{source.path}: {error}") from None
    grid = source.grid("grid")
    data = source.dataset("data")
    _require_numbers(source, "data", data, np.dtype(cls.STORED["data"]))
    geometry = _geometry(source, data)
    require_data_shape(data.shape, geometry, grid, str(source.path))  # before a bad file costs memory
    known: Content = {"geometry": geometry, "grid": grid, "name": str(source.path)}
    for f in fields(cls):
        if f.name in known and not (f.name == "name" and source.attribute("/", "name", "")):
            continue
        if f.type in _READERS:
            known |= _READERS[f.type](source, f.name, cls.STORED.get(f.name), f.default)
    scan: Any = cls(**known)
    if isinstance(geometry, ParallelBeam):
        doubted = with_doubt(scan.provenance, scan.data, np.asarray(geometry.angles_deg))
        scan = replace(scan, provenance=doubted)
    return scan


def _geometry(source: Source, data: Any) -> Geometry:
    if source.has("geometry"):
        entries = source.attributes("geometry")
        for name in source.names("geometry"):
            node = source.dataset(f"geometry/{name}")
            if node.dtype.kind not in "iufb":
                raise InputError(f"{source.path}: geometry/{name} is of type {node.dtype}; real numbers are needed")
            if node.size:
                require_memory(str(source.path), node.shape or (1,))
            value = node[()]
            entries[name] = value.tolist() if value.ndim < 2 else value
    elif source.has("mask"):  # of k-space in version 1
        node = source.dataset("mask")
        require_memory(str(source.path), node.shape or (1,))
        entries = {"kind": "cartesian-mri", "mask": node[()], "coils": data.shape[1] if data.ndim == 4 else 1}
    else:
        raise InputError(f"{source.path}: lacks the group geometry; see the layout in the documentation")
    try:
        return geometry_from_dict(entries)
    except InputError as error:
        raise InputError(f"{source.path}: {' '.join(str(error).split())}") from None


def _volume(source: Source) -> Volume:
    node, grid = source.dataset("data"), source.grid("grid")
    if node.shape != grid.shape:
        raise InputError(f"{source.path}: data {node.shape} does not fit its grid {grid.shape}")
    require_memory(str(source.path), node.shape, node.dtype.itemsize)
    known = {str(k): str(v) for k, v in source.json("metadata").items()}
    name = str(source.attribute("/", "name", source.path))
    return Volume(node[()], grid, unit=str(source.attribute("/", "unit", "HU")), name=name, metadata=known)


def _require_numbers(source: Source, name: str, node: Any, wanted: np.dtype[Any]) -> None:
    if node.dtype.kind not in ("c" if wanted.kind == "c" else "iuf"):
        needed = "complex" if wanted.kind == "c" else "real"
        raise InputError(f"{source.path}: the dataset {name} is of type {node.dtype}; {needed} numbers are needed")


# --- a reader for each type of field: (source, name, type in memory, default) -> what the class is given

_Reader = Callable[[Source, str, Any, Any], Content]


def _array(source: Source, name: str, stored: Any, default: Any) -> Content:
    if not source.has(name) and default is None:
        return {}
    node, wanted = source.dataset(name), np.dtype(stored)
    _require_numbers(source, name, node, wanted)
    if node.ndim == 0:
        raise InputError(f"{source.path}: the dataset {name} holds one value, no array")
    halves = name == "data" and wanted == np.float32 and node.dtype == np.float16  # whoever uses a part widens it
    mapped = source.mapped(name, np.dtype(np.float16) if halves else wanted)
    if mapped is not None:
        return {name: mapped}
    require_memory(str(source.path), node.shape, wanted.itemsize)
    with np.errstate(over="ignore"):  # what leaves the range is reported as not finite
        return {name: node[()].astype(wanted, copy=False)}


def _number(source: Source, name: str, stored: Any, default: Any) -> Content:
    return {name: source.number(name, default)}


def _text(source: Source, name: str, stored: Any, default: Any) -> Content:
    return {name: str(source.attribute("/", name, None if default is MISSING else default))}


def _grid(source: Source, name: str, stored: Any, default: Any) -> Content:
    return {name: source.grid(name)} if source.has(name) or default is MISSING else {}


def _json(source: Source, name: str, stored: Any, default: Any) -> Content:
    return {name: own_record(source.json(name))}


_READERS: dict[Any, _Reader] = {
    "np.ndarray": _array,
    "np.ndarray | None": _array,
    "float": _number,
    "str": _text,
    "Grid | None": _grid,
    "dict[str, Any]": _json,
}
