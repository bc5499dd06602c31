"""Are the values of a CT volume Hounsfield units?  One question for the panel, the command line and Python."""

from __future__ import annotations

from .volume import Volume

AIR_BELOW_HU = -200.0  # the lowest value of nearly every scan is that of air, -1000
_NARROWEST = 10.0


def doubt(low: float, high: float) -> str:
    """Why values from ``low`` to ``high`` are hardly HU, in one line; '' for values that may be."""
    if high - low < _NARROWEST:
        return f"values from {low:.4g} to {high:.4g} are hardly Hounsfield units (air -1000, water 0): are these HU?"
    if low >= AIR_BELOW_HU:
        return f"no values below {AIR_BELOW_HU:g}: are these HU? Their lowest is {low:.4g}, air is -1000"
    return ""


def doubt_of(volume: Volume) -> str:
    """The same of a volume; '' for one that does not claim to be CT."""
    if volume.unit != "HU" or volume.metadata.get("modality", "CT").upper() not in ("CT", ""):
        return ""
    return doubt(float(volume.array.min()), float(volume.array.max()))


def remarks_on(volume: Volume) -> list[str]:
    """What the user should know of a volume: repairs of its reader, and that it is hardly in HU."""
    said = volume.metadata.get("remarks", "")
    return [line for line in (said, doubt_of(volume)) if line]
