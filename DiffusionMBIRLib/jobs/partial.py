"""The volume that a cancelled job leaves: written by the worker or, where that had to be killed, by the client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..geometry import Grid
from ..provenance import NOTICE, software_version
from .files import rewriting

NAME = "result-partial.nrrd"


def write_partial(path: Path, array: np.ndarray, grid: Grid, *, unit: str, step: int) -> None:
    """Write an estimate (slices, rows, columns) as a plain NRRD that is marked as partial.  Raises OSError."""
    record = {"software": "DiffusionMBIR", "version": software_version(), "partial": True, "step": step}
    metadata = {"units": unit, "provenance": json.dumps(record | {"notice": NOTICE})}
    with rewriting(path, durable=False) as stream:  # somebody waits
        stream.write(nrrd_header(grid, metadata))
        stream.write(np.ascontiguousarray(array, dtype="<f4").data)


def nrrd_header(grid: Grid, metadata: dict[str, Any]) -> bytes:
    """The header of a NRRD file with float32 values that follow it as they are."""
    axes = (grid.matrix * np.asarray(grid.spacing_mm)).T  # one world vector for each of x, y, z
    lines = [
        "NRRD0004",
        "type: float",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: " + " ".join(str(n) for n in grid.shape[::-1]),
        "space directions: " + " ".join(_vector(axis) for axis in axes),
        "kinds: domain domain domain",
        "endian: little",
        "encoding: raw",
        "space origin: " + _vector(np.asarray(grid.origin_mm)),
        *(f"{key}:={value}" for key, value in metadata.items()),
    ]
    return ("\n".join(lines) + "\n\n").encode("utf-8")


def _vector(values: np.ndarray) -> str:
    return "(" + ",".join(repr(float(v)) for v in values) + ")"
