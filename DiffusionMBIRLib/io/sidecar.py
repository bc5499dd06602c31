"""The JSON file beside an array of k-space: what the array does not say of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..schema import Flag, Listed, Number, OneOf, Rule, Text, checked, json_object

ORDER = ("slice", "partition", "coil", "row", "column")
_LENGTH, _NAME = Number(1e-6, 1e6), Text(255)
_SCHEMA: dict[str, Rule] = {
    "axes": Listed(OneOf(ORDER), len(ORDER)),
    "spacing_mm": Listed(_LENGTH, 3),
    "variable": _NAME,
    "centred": Flag(),
    "wrapped": Flag(),
    "oversampling": Number(1e-6, 1e3),
    "readout": OneOf(("row", "column")),
    "mask": _NAME,
    "noise_std": Number(0, 1e15),
}
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
            text = beside.read_bytes()
        except (ValueError, OSError):
            raise InputError(f"{beside}: is no JSON; repair or remove it") from None
        entries = checked(json_object(text, str(beside)), _SCHEMA, str(beside))
        axes, spacing = entries.get("axes", ()), entries.get("spacing_mm")
        if axes and (len(set(axes)) < len(axes) or not {"row", "column"} <= set(axes)):
            raise InputError(f"{beside}: axes must list row, column and what else there is, once each")
        if spacing is not None and len(spacing) != 3:
            raise InputError(f"{beside}: spacing_mm must be three numbers, along columns, rows and slices")
        entries |= {key: tuple(entries[key]) for key in ("axes", "spacing_mm") if key in entries}
        entries["oversampling"] = max(entries.get("oversampling", 1.0), 1.0)
        return cls(beside, **entries)
