"""The attenuation that most of an object has: what stands for 0 HU where there is no water."""

from __future__ import annotations

import numpy as np

from ..geometry import Grid, RayGeometry
from .field_of_view import pixel_mm

_OBJECT = 0.2  # of a profile's maximum


def typical_attenuation(line: np.ndarray, geometry: RayGeometry, grid: Grid | None) -> float:
    """Mean attenuation in 1/mm over a disc as wide as the object.  line: (rows, views, columns).

    Of a detector of many rows: the rows that see most.  1 where nothing attenuates.
    """
    pixel = pixel_mm(geometry)[0]
    mass = line.mean(axis=(1, 2), dtype=np.float64)
    rows = np.flatnonzero(mass >= 0.5 * mass.max()) if mass.max() > 0 else np.arange(len(mass))
    profiles = line[rows].mean(axis=0, dtype=np.float64)
    across = np.count_nonzero(profiles > _OBJECT * profiles.max(axis=1, keepdims=True), axis=1)
    wide = float(np.median(across)) * pixel
    value = float(np.median(profiles.sum(axis=1))) * pixel / (np.pi / 4 * wide**2) if wide else 0.0
    return value if value > 0 else 1.0
