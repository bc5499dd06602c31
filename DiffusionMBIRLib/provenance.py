"""What a result was made with, for its header and for the record: versions, settings, prior and seed.

Never a path, a user, a host or anything of a patient.  Needs numpy at most.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from .models import ModelCard
from .version import __version__

NOTICE = "Research use only, not for diagnosis."


def provenance(
    settings: Any,
    *,
    prior: ModelCard | None = None,
    prior_sha256: str = "",
    seed: int | None = None,
    device: Any = "cpu",
    precision: str = "float32",
    inputs: Iterable[Any] = (),
    measurement: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The record of one run as plain dictionaries, lists, strings and numbers, ready for ``json.dumps``.

    settings: a dataclass or mapping; its ``seed`` counts if none is given.  measurement: what the measurement itself
    tells of its origin, such as how it was simulated.  device: a torch device, or words for it.  precision: that the
    network computed in.  inputs: files or their names; only the last part of each is kept.  Paths elsewhere are cut in
    the same way; numbers that are not finite become null.
    """
    chosen = plain(settings)
    record: dict[str, Any] = {
        "software": "DiffusionMBIR",
        "version": software_version(),
        "date_utc": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "python": platform.python_version(),
        "torch": installed_version("torch"),
        "numpy": np.__version__,
        "device": str(device),
        "precision": precision,
        "seed": chosen.get("seed") if seed is None else seed,
        "inputs": [file_name(name) for name in inputs],
        "settings": chosen,
        "notice": NOTICE,
    }
    if prior is not None:
        record["prior"] = {"id": prior.id, "sha256": prior_sha256, "title": prior.title, "licence": prior.licence}
    if measurement:
        record["measurement"] = plain(measurement)
    return record


def software_version() -> str:
    """The version of this package."""
    return __version__


def file_name(path: Any) -> str:
    """The last part of a path, in the notation of any system."""
    return PureWindowsPath(str(path)).name


def plain(value: Any) -> Any:
    """``value`` as JSON knows it: dataclasses as dictionaries, arrays as lists, absolute paths as names."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, PurePath):
        return file_name(value)
    if isinstance(value, str):
        absolute = PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()
        return file_name(value) if absolute else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    return str(value)


def installed_version(package: str) -> str | None:
    """The version by its metadata, without importing the package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
