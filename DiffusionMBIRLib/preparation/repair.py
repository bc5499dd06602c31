"""What can be set right before the rotation axis is known: zingers, and a first look for rings."""

from __future__ import annotations

import numpy as np

from .rings import Rings
from .told import Told
from .zingers import without_zingers


def repaired(
    line: np.ndarray, angles_deg: np.ndarray, told: Told, remarks: list[str]
) -> tuple[np.ndarray, Rings | None]:
    """Line integrals (views, rows, columns) without zingers, as (rows, views, columns), and the rings in them, where
    they are to be taken off.
    """
    if told.wants("zingers"):
        line, zingers = without_zingers(line, angles_deg)
        if zingers:
            remarks.append(f"{zingers} zingers (single readings far too bright or dark) take their neighbours' median")
    rings = Rings.of(line, angles_deg) if told.wants("rings") else None
    return np.ascontiguousarray(line.swapaxes(0, 1)), rings
