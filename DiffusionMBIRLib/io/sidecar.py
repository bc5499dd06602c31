"""The JSON file beside an array of k-space: what the array does not say of itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError

ORDER = ("slice", "partition", "coil", "row", "column")
_KEYS = ("axes", "spacing_mm", "variable", "centred", "wrapped", "oversampling", "readout", "mask", "noise_std")
_LARGEST = 1 << 20  # bytes


@dataclass(frozen=True)
class Sidecar:
    """Entries of the file at ``path``, which need not exist; the keys are those that ``arrays`` lists."""

    path: Path
    axes: tuple[str, ...] = ()
    spacing_mm: tuple[float, float, float] | None = None
    variable: str = ""
    centred: bool | None = None
    wrapped: bool | None = None
    oversampling: float = 1.0
    readout: str = "column"
    mask: str = ""
    noise_std: float = 0.0

    @classmethod
    def of(cls, path: Path) -> Sidecar:
        """What the JSON file beside ``path`` says; nothing if there is none."""
        beside = path.with_suffix(".json")
        if not beside.is_file():
            return cls(beside)
        try:
            if beside.stat().st_size > _LARGEST:
                raise ValueError
            entries = json.loads(beside.read_text(encoding="utf-8"))
        except (ValueError, OSError, RecursionError):
            raise InputError(f"{beside}: is no JSON; repair or remove it") from None
        if not isinstance(entries, dict):
            raise InputError(f"{beside}: must be a JSON object of {', '.join(_KEYS)}")
        unknown = sorted(set(entries) - set(_KEYS))
        if unknown:
            raise InputError(f"{beside}: does not know {', '.join(unknown)}; known are {', '.join(_KEYS)}")
        return cls(beside, **{key: _CHECKS[key](value, beside, key) for key, value in entries.items()})


def _axes(value: Any, path: Path, key: str) -> tuple[str, ...]:
    known = isinstance(value, list) and all(axis in ORDER for axis in value)
    if not known or len(set(value)) < len(value) or not {"row", "column"} <= set(value):
        raise InputError(f"{path}: axes must list row, column and what else there is of {', '.join(ORDER)}, once each")
    return tuple(value)


def _spacing(value: Any, path: Path, key: str) -> tuple[float, float, float]:
    if not isinstance(value, list) or len(value) != 3:
        raise InputError(f"{path}: spacing_mm must be three numbers, along columns, rows and slices")
    x, y, z = (_positive(v, path, key) for v in value)
    return x, y, z


def _positive(value: Any, path: Path, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise InputError(f"{path}: {key} must be positive, not {value!r}")
    return float(value)


def _level(value: Any, path: Path, key: str) -> float:
    return 0.0 if value == 0 and not isinstance(value, bool) else _positive(value, path, key)


def _oversampling(value: Any, path: Path, key: str) -> float:
    return max(_positive(value, path, key), 1.0)


def _name(value: Any, path: Path, key: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) < 256:
        raise InputError(f"{path}: {key} must be a name, not {value!r}")
    return value


def _readout(value: Any, path: Path, key: str) -> str:
    if value not in ("row", "column"):
        raise InputError(f"{path}: readout must be row or column, not {value!r}")
    return str(value)


def _flag(value: Any, path: Path, key: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{path}: {key} must be true or false, not {value!r}")
    return value


_CHECKS: dict[str, Any] = {
    "axes": _axes,
    "spacing_mm": _spacing,
    "variable": _name,
    "centred": _flag,
    "wrapped": _flag,
    "oversampling": _oversampling,
    "readout": _readout,
    "mask": _name,
    "noise_std": _level,
}
