"""What the engine told of a file (``diffusionmbir info --json``), as the panel shows it.  Needs no Qt, no scene."""

from __future__ import annotations

from typing import Any

from . import texts
from .texts import _

Shape = tuple[int, int, int]


def shape_of(found: dict[str, Any]) -> Shape:
    """(slices, rows, columns) of the grid to reconstruct on; k-space tells its slices and its matrix."""
    numbers = found.get("grid") or found.get("shape") or [found["slices"], *found["matrix"]]
    slices, rows, columns = (int(n) for n in numbers)
    return slices, rows, columns


def line_of(found: dict[str, Any], shape: Shape) -> str:
    spacing = " x ".join(f"{s:.3g}" for s in found["spacing_mm"])
    parts = [texts.word(found["task"])] if "task" in found else [_("Volume file")]
    if "views" in found:
        parts.append(texts.word(found["geometry"]))
    parts.append(_("{shape}, {spacing} mm").format(shape=texts.shape(shape), spacing=spacing))
    if found.get("views"):
        parts.append(_("{count} views").format(count=found["views"]))
    if found.get("coils"):
        parts.append(_("coils: {count}").format(count=found["coils"]))
    if found.get("readouts"):
        parts.append(_("{pattern}, {count} readouts").format(pattern=found["pattern"], count=found["readouts"]))
    if found.get("acceleration"):
        parts.append(_("acceleration {factor}").format(factor=f"{found['acceleration']:g}"))
    guessed = [_("guessed: {what}").format(what=", ".join(map(str, found["guessed"])))] if found.get("guessed") else []
    return "; ".join([", ".join(parts), *guessed, *map(str, found.get("remarks", ()))])
