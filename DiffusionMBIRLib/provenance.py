"""What a result was made with, for its header and for the record: versions, settings, prior and seed.

Never a path, a user, a host or anything of a patient.  Needs numpy at most.
"""

from __future__ import annotations

import hashlib
import math
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from .errors import one_line
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
    network computed in.  inputs: files or their names, which go by aliases.  Of paths elsewhere the last part
    is kept; numbers that are not finite become null.
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
        "inputs": [alias(name) for name in inputs],
        "settings": chosen,
        "notice": NOTICE,
    }
    if prior is not None:
        record["prior"] = {"id": prior.id, "sha256": prior_sha256, "title": prior.title, "licence": prior.licence}
    if measurement:
        record["measurement"] = own_record(measurement)
    return record


def software_version() -> str:
    """The version of this package."""
    return __version__


def file_name(path: Any) -> str:
    """The last part of a path, in the notation of any system."""
    return PureWindowsPath(str(path)).name


def alias(path: Any) -> str:
    """A name for a file that tells nothing of a patient, the same for the same name: "file-3f2a9c"."""
    name = file_name(path)
    return name if _ALIAS.fullmatch(name) else f"file-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def shared_name(name: str) -> str:
    """The name of a scan as it is passed on: where it is that of a file, an alias."""
    return alias(name) if _FILE.match(name) else name


_ALIAS = re.compile(r"file-[0-9a-f]{6}")
_FILE = re.compile(r".*(?:[\\/]|\.(?=\d*[A-Za-z])[A-Za-z0-9]{1,8}$)", re.DOTALL)
_LONGEST_TEXT, _MOST_LINES, _MOST_SETTINGS, _MOST_STEPS = 400, 64, 256, 1000
_DOUBT = ("filled_in", "unlike", "limit", "candidates")
_TEXTS = (
    "software", "version", "kind", "source", "maps", "axes", "date_utc", "python", "torch", "numpy", "device",
    "precision", "notice",
)  # fmt: skip
_VALUES = ("seed", "readout_oversampling", "oversampling_removed", "whitened", "partial", "step", "views")
_LISTS = ("guessed", "remarks", "inputs")


def own_record(told: Any) -> dict[str, Any]:
    """What is kept of the record in a file, which anybody may have written: entries that we write ourselves.

    Texts and numbers, lists of texts, settings and prior as flat objects, figures of doubt, and steps with residuals,
    all of bounded length; a source that is a file goes by its alias.
    """
    if not isinstance(told, Mapping):
        return {}
    record: dict[str, Any] = {key: _short(told[key]) for key in _TEXTS if isinstance(told.get(key), str)}
    record |= {key: plain(told[key]) for key in _VALUES if key in told and _is_value(told[key])}
    for key in _LISTS:
        if isinstance(told.get(key), list | tuple):
            record[key] = [_short(line) for line in told[key][:_MOST_LINES] if isinstance(line, str)]
    for key in ("settings", "prior"):
        if isinstance(told.get(key), Mapping):
            chosen = [(str(k), v) for k, v in told[key].items() if _is_value(v) or isinstance(v, str)][:_MOST_SETTINGS]
            record[key] = {k[:64]: _short(v) if isinstance(v, str) else plain(v) for k, v in chosen}
    if isinstance(told.get("doubt"), Mapping):
        record["doubt"] = {k: plain(told["doubt"][k]) for k in _DOUBT if _is_number(told["doubt"].get(k))}
    if isinstance(told.get("convergence"), list | tuple):
        steps = [s for s in told["convergence"][:_MOST_STEPS] if isinstance(s, list | tuple)]
        record["convergence"] = [plain(s) for s in steps if len(s) == 2 and all(map(_is_number, s))]
    if isinstance(told.get("measurement"), Mapping):
        record["measurement"] = own_record({k: v for k, v in told["measurement"].items() if k != "measurement"})
    if "source" in record:
        record["source"] = shared_name(record["source"])
    if "inputs" in record:
        record["inputs"] = [alias(name) for name in record["inputs"]]
    return record


def _is_number(value: Any) -> bool:
    return _is_value(value) and value is not None and not isinstance(value, bool)


def _short(text: str) -> str:
    return one_line(plain(text), _LONGEST_TEXT)


def _is_value(value: Any) -> bool:
    """A number that any reader of JSON knows, a truth value or none."""
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, np.integer | np.floating):
        value = value.item()
    return isinstance(value, int | float) and abs(value) < 2.0**63


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
