"""Lines that run to and fro: the delay and the phase between them, without which ghosts lie half a field of view off.

A gradient that comes late by s samples moves forward and reversed lines apart, and the receiver may turn reversed ones
by a phase.  A ghost spreads the object's energy over more pixels, so that both are found where the sum of magnitudes of
the image is least (as Clare 2008 does with its entropy).
"""

from __future__ import annotations

import numpy as np

from .delays import delayed, parsed_delays

_LARGEST = 2.0  # samples
_COARSE, _TURNS = 0.1, 12  # to begin with; half a turn more would move the object by half its field of view
_FINER = 4  # times that the search is narrowed


def aligned_echoes(
    data: np.ndarray, points: np.ndarray, delays: str, remarks: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Data (slices, coils, lines, samples) and points (lines, samples, 2) in cycles per field of view without either.

    delays: as of the user: "off" and given numbers are obeyed.  What was found goes into the remarks.
    """
    backwards = points[:, -1, 0] < points[:, 0, 0]
    if not backwards.any() or backwards.all():
        return data, points
    given = parsed_delays(delays)
    if given is not None and not any(given):
        return data, points
    middle = data[len(data) // 2]
    order = np.argsort(points[:, 0, 1], kind="stable")
    lines, paths, reverse = middle[:, order], points[order][..., 0], backwards[order]
    before = _spread(lines, paths, reverse, 0.0, 0.0)
    if given is not None:
        delay, turn = given[0], _best_turn(lines, paths, reverse, given[0])
    else:
        delay, turn = _found(lines, paths, reverse)
    after = _spread(lines, paths, reverse, delay, turn)
    how = "were found" if given is None else "are taken out"
    remarks.append(
        f"lines to and fro: a delay of {delay:.3f} samples and a phase of {np.degrees(turn):.1f} degrees between them "
        f"{how}; the image's spread is {after / before:.3f} of that before"
    )
    turned = data * np.where(backwards, np.exp(-1j * turn), 1)[:, None].astype(np.complex64)
    return turned, delayed(points, (delay, 0.0, 0.0))


def _found(lines: np.ndarray, paths: np.ndarray, reverse: np.ndarray) -> tuple[float, float]:
    centre, width = (0.0, 0.0), (_LARGEST, np.pi / 2)
    steps = (int(2 * _LARGEST / _COARSE) + 1, _TURNS + 1)
    for _ in range(_FINER):
        delays, turns = (np.linspace(c - w, c + w, n) for c, w, n in zip(centre, width, steps, strict=True))
        costs = [[_spread(lines, paths, reverse, d, t) for t in turns] for d in delays]
        at = np.unravel_index(int(np.argmin(costs)), (len(delays), len(turns)))
        centre = float(delays[at[0]]), float(turns[at[1]])
        width = (1.5 * (delays[1] - delays[0]), 1.5 * (turns[1] - turns[0]))
        steps = (7, 7)
    return centre


def _best_turn(lines: np.ndarray, paths: np.ndarray, reverse: np.ndarray, delay: float) -> float:
    turns = np.linspace(-np.pi / 2, np.pi / 2, 91)
    return float(turns[np.argmin([_spread(lines, paths, reverse, delay, float(t)) for t in turns])])


def _spread(lines: np.ndarray, paths: np.ndarray, reverse: np.ndarray, delay: float, turn: float) -> float:
    """The sum of magnitudes of the image over the root of its energy; lines (coils, lines, samples)."""
    size = max(16, 2 * int(np.abs(paths).max()))
    places = (np.arange(size) - size // 2) * (2j * np.pi / size)
    profiles = np.zeros((*lines.shape[:2], size), complex)
    for way in (False, True):
        chosen = reverse == way
        path = paths[chosen][0]
        step = np.gradient(path)
        waves = np.exp((path - delay * step)[:, None] * places) * np.abs(step)[:, None]
        profiles[:, chosen] = lines[:, chosen] @ waves * (np.exp(-1j * turn) if way else 1)
    image = np.fft.ifft(np.fft.ifftshift(profiles, axes=1), axis=1)
    return float(np.abs(image).sum() / np.linalg.norm(image))
