"""Delays of the gradients of a radial scan: how far its samples lie off the places that its angles say.

A gradient that comes late by S samples has moved k by S steps less.  With Sx and Sy on its axes and Sxy between them a
spoke at angle a is shifted along itself by Sx cos^2 a + Sy sin^2 a + 2 Sxy sin a cos a (Rosenzweig et al. 2019,
arXiv 1805.04334).  They are found as those under which the samples around the centre, where spokes cross, fit one image
of each coil: least squares with the image eliminated (Kaufman 1975).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError

Delays = tuple[float, float, float]

_CYCLES = 8.0  # radius of the middle that is looked at
_GRID = 24  # pixels along each axis of the image that it is fitted by
_MOST_READOUTS, _MOST_IMAGES = 48, 8
_RIDGE = 1e-3
_STEPS = 8
_EPSILON = 0.02  # samples
_LARGEST = 3.0  # samples; beyond, what was found is none
_GAIN = 0.98  # of the residual that must be left at most for delays to be applied


@dataclass(frozen=True)
class FoundDelays:
    """delays in samples; the relative residual around the centre without and with them; whether they are worth it."""

    delays: Delays
    before: float
    after: float
    used: bool


def parsed_delays(text: str) -> Delays | None:
    """None of "auto", zeros of "off", else the three numbers.  Raises InputError for anything else."""
    if text in ("auto", ""):
        return None
    if text == "off":
        return 0.0, 0.0, 0.0
    try:
        x, y, xy = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"delays {text!r}: use auto, off or three numbers of samples, SX,SY,SXY") from None
    if not np.isfinite([x, y, xy]).all():
        raise InputError(f"delays {text!r} are not finite")
    return x, y, xy


def delayed(points: np.ndarray, delays: Delays) -> np.ndarray:
    """The points (readouts, samples, 2) that gradients late by ``delays`` samples have reached."""
    x, y, xy = delays
    if not (x or y or xy):
        return points
    return np.asarray(points - np.gradient(points, axis=1) @ np.array([[x, xy], [xy, y]]))


def estimate_delays(points: np.ndarray, data: np.ndarray) -> FoundDelays | None:
    """Of points in cycles per field of view and data (slices, coils, readouts, samples); None of too few samples."""
    chosen = np.unique(np.linspace(0, len(points) - 1, min(len(points), _MOST_READOUTS)).astype(int))
    near = np.hypot(points[chosen, :, 0], points[chosen, :, 1]) <= _CYCLES
    images = data[:, :, chosen][..., near].reshape(-1, int(near.sum()))
    if images.shape[1] < 2 * np.pi * _CYCLES**2:
        return None
    strongest = np.argsort(-np.abs(images).sum(axis=1))[:_MOST_IMAGES]
    y = images[strongest].T.astype(np.complex128)
    size = np.linalg.norm(y)
    delays = np.zeros(3)
    best, first = np.zeros(3), 0.0
    least = np.inf
    for step in range(_STEPS):
        model = _waves(points[chosen], near, delays)
        hermitian = model.conj().T @ model
        hermitian += np.eye(len(hermitian)) * (_RIDGE * np.trace(hermitian).real / len(hermitian))
        solve = np.linalg.inv(hermitian) @ model.conj().T
        image = solve @ y
        off = y - model @ image
        residual = float(np.linalg.norm(off) / size)
        first = residual if step == 0 else first
        if residual < least:
            least, best = residual, delays.copy()
        slopes = []
        for k in range(3):
            ahead, behind = delays.copy(), delays.copy()
            ahead[k] += _EPSILON
            behind[k] -= _EPSILON
            change = (_waves(points[chosen], near, ahead) - _waves(points[chosen], near, behind)) @ image
            change /= 2 * _EPSILON
            slopes.append((change - model @ (solve @ change)).reshape(-1))
        jacobian = np.stack(slopes, 1)
        normal = (jacobian.conj().T @ jacobian).real
        way = np.linalg.solve(normal + 1e-9 * np.trace(normal) * np.eye(3), (jacobian.conj().T @ off.reshape(-1)).real)
        delays = delays + np.clip(way, -1, 1)
        if np.abs(way).max() < 1e-3 or np.abs(delays).max() > _LARGEST:
            break
    x, down, cross = (float(v) for v in best)
    return FoundDelays((x, down, cross), first, least, least < _GAIN * first)


def _waves(points: np.ndarray, near: np.ndarray, delays: np.ndarray) -> np.ndarray:
    """exp(-2 pi i k r) of the chosen samples (samples, pixels)."""
    moved = delayed(points, (float(delays[0]), float(delays[1]), float(delays[2])))[near]
    places = (np.arange(_GRID) - _GRID // 2) * (-2 * np.pi / _GRID)
    across, down = (np.exp(1j * moved[:, axis, None] * places) for axis in (0, 1))
    return (down[:, :, None] * across[:, None, :]).reshape(len(moved), -1)
