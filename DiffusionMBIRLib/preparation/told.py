"""What the user knows of a scan, and which steps of its preparation are wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError

STEPS = {
    "bad_pixels": "pixels that are dead or stuck take their neighbour's value",
    "lost_views": "views without a beam or of something else are left out",
    "zingers": "single readings far too bright or dark take their neighbours' median",
    "rings": "what one pixel reads too much or too little in all views is taken off",
    "axis": "the column of the rotation axis is found from the views",
    "padding": "the grid reaches beyond the detector's view where the object does",
    "object": "what the format tells of the object's material and size bounds its values",
    "binning": "detector pixels are added up where views are too few for a fine grid",
    "water": "beam hardening is taken off as if the object were of one material like water",
}
_OFF_BY_DEFAULT = ("water",)
_WORDS = {"on": True, "off": False}


@dataclass(frozen=True)
class Told:
    """What the user knows of a scan: size of the detector's pixels, column of the rotation axis (0 is the first).

    prepare: steps of :data:`STEPS` that are to be switched, such as "rings=off, water=on".
    """

    pixel_mm: float | None = None
    axis: float | None = None
    prepare: str | None = None

    def __post_init__(self) -> None:
        if self.pixel_mm is not None and not 0 < self.pixel_mm < np.inf:
            raise InputError(f"pixel_mm must be a positive number of mm, not {self.pixel_mm}")
        if self.axis is not None and not np.isfinite(self.axis):
            raise InputError(f"axis must be a column of the detector, not {self.axis}")
        self._switched()

    def wants(self, step: str) -> bool:
        """Whether a step is wanted; each still acts only where the data call for it."""
        return self._switched().get(step, step not in _OFF_BY_DEFAULT)

    def _switched(self) -> dict[str, bool]:
        found = {}
        for part in (self.prepare or "").replace(",", " ").split():
            step, _, word = part.partition("=")
            if step not in STEPS or word not in _WORDS:
                raise InputError(f"prepare: {part!r} is not STEP=on or STEP=off with a step of {', '.join(STEPS)}")
            found[step] = _WORDS[word]
        return found
