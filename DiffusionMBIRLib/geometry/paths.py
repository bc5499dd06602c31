"""Paths through k-space that scanners take: radial, spiral and echo-planar, in cycles per field of view.

All give float64 (readouts, samples, 2), x (along columns) first.  Needs numpy only.
"""

from __future__ import annotations

import math
import re

import numpy as np

from ..errors import InputError

GOLDEN_RATIO = (1 + math.sqrt(5)) / 2
GOLDEN_DEG = 180 / GOLDEN_RATIO  # 111.246..., Winkelmann et al. 2007
FULL_SPIRAL_ARMS = 48  # with which an arm of the usual number of turns samples a disc completely
_SPACING = 0.7  # cycles from sample to sample of a spiral, below 1 as for twofold oversampling elsewhere


def spoke_angles(spokes: int, order: str = "golden", *, circle: float = math.pi) -> np.ndarray:
    """Angles of the spokes in radians.

    order: "golden" (180 degrees over the golden ratio), "tiny-N" (180 / (golden ratio + N - 1), Wundrak et al. 2015),
    "uniform" (over ``circle``) or a number of degrees from one to the next.  A circle of 2 pi doubles golden steps, as
    for centre-out spokes.  Raises InputError for another order.
    """
    if spokes < 1:
        raise InputError(f"a radial scan needs one spoke at least, not {spokes}")
    if order == "uniform":
        return np.arange(spokes) * (circle / spokes)
    tiny = re.fullmatch(r"tiny-([1-9]\d{0,2})", order)
    if order == "golden":
        step = circle / GOLDEN_RATIO
    elif tiny:
        step = circle / (GOLDEN_RATIO + int(tiny[1]) - 1)
    else:
        try:
            step = math.radians(float(order))
        except ValueError:
            step = math.nan
        if not math.isfinite(step):
            raise InputError(f"angles {order!r}: use golden, tiny-N (such as tiny-7), uniform, or degrees a spoke")
    return np.arange(spokes) * step


def radial(
    angles: np.ndarray,
    samples: int,
    oversampling: float = 2.0,
    *,
    centre: float | None = None,
    centre_out: bool = False,
) -> np.ndarray:
    """Straight spokes of evenly spaced samples, 1 / oversampling cycles apart.

    centre: the sample of the lowest frequency, by default samples // 2, and 0 of centre-out spokes.
    """
    middle = centre if centre is not None else 0 if centre_out else samples // 2
    along = (np.arange(samples) - middle) / oversampling
    directions = np.stack([np.cos(angles), np.sin(angles)], -1)
    return np.asarray(along[None, :, None] * directions[:, None], np.float64)


def spiral(arms: int, extent: float, *, turns: float | None = None, samples: int | None = None) -> np.ndarray:
    """Interleaved Archimedean spirals of evenly spaced samples, from the centre to ``extent`` cycles.

    turns: of each arm, by default as many as sample the disc completely with ``FULL_SPIRAL_ARMS``.
    Raises InputError for fewer than one arm.
    """
    if arms < 1:
        raise InputError(f"a spiral scan needs one arm at least, not {arms}")
    turns = extent / FULL_SPIRAL_ARMS if turns is None else turns
    fine = np.linspace(0, 1, 20001)
    speed = extent * np.sqrt(1 + (2 * math.pi * turns * fine) ** 2)
    length = np.concatenate([[0], np.cumsum((speed[1:] + speed[:-1]) / 2 * np.diff(fine))])
    samples = samples or max(2, math.ceil(length[-1] / _SPACING))
    share = np.interp(np.linspace(0, length[-1], samples), length, fine)
    phase = 2 * math.pi * (turns * share + np.arange(arms)[:, None] / arms)
    return np.stack([extent * share * np.cos(phase), extent * share * np.sin(phase)], -1)


def echo_planar(lines: np.ndarray, path: np.ndarray, backwards: np.ndarray) -> np.ndarray:
    """Lines of a zigzag whose samples lie at ``path`` along x, as of readouts on the ramps of their gradient.

    lines: y of each readout.  backwards: which ones run from the other side.
    """
    along = np.where(np.asarray(backwards)[:, None], path[::-1], path)
    return np.stack([along, np.broadcast_to(np.asarray(lines, np.float64)[:, None], along.shape)], -1)
