"""Our own file of k-space, HDF5.

Layout, version 1 (groups and datasets; what follows a colon are attributes):

    /              : format = "DiffusionMBIR k-space", version = 1, software, task = "compressed-sensing-mri",
                     noise_std (of real and imaginary parts, 0: unknown)
    /data          complex (slices, coils, rows, columns), 0 where not sampled; the lowest frequency lies at
                   (rows // 2, columns // 2)
    /mask          (rows, columns) 1 where sampled, 0 elsewhere
    /maps          complex (slices or 1, coils, rows, columns) coil sensitivities, where they are known
    /calibration   complex (slices, coils, rows, columns) the middle of k-space from a separate scan, where there is one
    /grid          of the image : shape (slices, rows, columns), spacing_mm (x, y, z), origin_mm (x, y, z),
                     direction (9 cosines, row by row, LPS)
    /stored_grid   the grid to give the result on, where it differs : as /grid
    /provenance    text : JSON

Needed are format, version, data, mask and grid.
"""

from __future__ import annotations

import io
import json

import numpy as np

from ..errors import InputError
from ..geometry import CartesianMRI
from ..provenance import plain, software_version
from ..scans import KSpace
from ..tasks import MR_TASK
from .hdf5 import Fields
from .kspace_scan import require_memory

FORMAT = "DiffusionMBIR k-space"
VERSION = 1


def encode_kspace(kspace: KSpace) -> bytes:
    """The file's content.  Made in memory, because HDF5 does not recover from a disk that fills up while it writes."""
    import h5py

    buffer = io.BytesIO()
    options = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    with h5py.File(buffer, "w") as file:
        file.attrs.update(format=FORMAT, version=VERSION, software=f"DiffusionMBIR {software_version()}")
        file.attrs.update(task=kspace.task, noise_std=kspace.noise_std)
        file.create_dataset("data", data=kspace.data, **options)
        file.create_dataset("mask", data=kspace.geometry.mask.astype(np.uint8), **options)
        if kspace.maps is not None:
            file.create_dataset("maps", data=kspace.maps, **options)
        if kspace.calibration is not None:
            file.create_dataset("calibration", data=kspace.calibration, **options)
        file.create_group("grid").attrs.update(kspace.grid.to_dict())
        if kspace.stored_grid is not None:
            file.create_group("stored_grid").attrs.update(kspace.stored_grid.to_dict())
        file["provenance"] = json.dumps(plain(kspace.provenance), sort_keys=True)
    return buffer.getvalue()


def decode_kspace(fields: Fields) -> KSpace:
    """Read an open file.  Raises InputError that names the field."""
    fields.require_format(FORMAT, VERSION)
    mask = fields.numbers("mask")
    require_memory(str(fields.path), mask.shape, 1)
    data = _complex(fields, "data")
    return KSpace(
        data,
        CartesianMRI(mask[()], coils=data.shape[1]),
        fields.grid("grid"),
        stored_grid=fields.grid("stored_grid") if fields.has("stored_grid") else None,
        maps=_complex(fields, "maps") if fields.has("maps") else None,
        calibration=_complex(fields, "calibration") if fields.has("calibration") else None,
        noise_std=fields.number("noise_std", 0.0),
        task=str(fields.attribute("/", "task", MR_TASK)),
        provenance=fields.provenance(),
        name=str(fields.path),
    )


def _complex(fields: Fields, name: str) -> np.ndarray:
    node = fields.dataset(name)
    if node.dtype.kind != "c":
        raise InputError(f"{fields.path}: the dataset {name} is of type {node.dtype}; complex numbers are needed")
    if node.ndim != 4:
        raise InputError(f"{fields.path}: the dataset {name} must be (slices, coils, rows, columns), not {node.shape}")
    require_memory(str(fields.path), node.shape)
    with np.errstate(over="ignore"):  # what leaves the range is reported as not finite
        values: np.ndarray = node[()].astype(np.complex64, copy=False)
    return values
