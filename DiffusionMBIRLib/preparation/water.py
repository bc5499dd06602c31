"""Beam hardening of objects of one material: thick parts let more through than their attenuation says."""

from __future__ import annotations

import numpy as np

from ..geometry import RayGeometry

_STEPS = np.linspace(0.0, 0.4, 41)  # strength of the square term at the largest line integral
_LEAST_GAIN = 1e-3


def water_known(known: bool) -> dict[str, str]:
    """What the provenance of a measured scan tells: without it the object is no patient, as far as the file says."""
    return {"water": "known" if known else "not known"}


def without_beam_hardening(line: np.ndarray, geometry: RayGeometry, remarks: list[str]) -> np.ndarray:
    """Line integrals p (rows, views, columns) as p + c p^2, with the c that makes the views' total attenuation most
    alike: that of an object does not depend on the side that it is seen from.

    Exact for parallel beams; with a fan for what lies near the axis.
    """
    largest = float(np.percentile(line, 99.9))
    if largest <= 0 or geometry.views < 8:
        return line
    plain, square = line.mean(axis=(0, 2), dtype=np.float64), (line.astype(np.float64) ** 2).mean(axis=(0, 2))
    spread = [float(np.std(total) / np.mean(total)) for total in (plain + s / largest * square for s in _STEPS)]
    best = int(np.argmin(spread))
    if spread[best] > (1 - _LEAST_GAIN) * spread[0]:
        remarks.append("beam hardening: no correction makes the views more alike")
        return line
    strength = float(_STEPS[best])
    remarks.append(
        f"beam hardening as of one material: line integrals raised by up to {strength:.0%}, by which the spread of the "
        f"views' total attenuation falls from {spread[0]:.2%} to {spread[best]:.2%}"
    )
    return np.asarray(line + np.float32(strength / largest) * line**2)
