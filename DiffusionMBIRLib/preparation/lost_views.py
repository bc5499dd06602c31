"""Views that show something else: no beam, no object, a frame that was lost."""

from __future__ import annotations

import numpy as np

_DARKER = 3.0  # line integrals above the usual, where a view lets most through
_OPAQUE = 6.5  # a line integral that no beam comes through
_OF_MASS = 0.25  # of the usual total attenuation
_DEVIATIONS = 8.0  # of the scatter against neighbouring views
_AROUND = 3  # views to each side
_FEWEST_VIEWS = 8


def lost_views(line: np.ndarray) -> np.ndarray:
    """Which views of line integrals (views, rows, columns) are lost, bool.

    No beam: even the least attenuated part is opaque.  Else the total attenuation leaps away from the neighbouring
    views' and back, which a turning object's does not.
    """
    views = len(line)
    clear = np.array([np.percentile(view, 5) for view in line])
    lost: np.ndarray = clear > min(np.median(clear) + _DARKER, _OPAQUE)
    if views < _FEWEST_VIEWS:
        return lost
    mass = line.mean(axis=(1, 2), dtype=np.float64)
    kept = np.flatnonzero(~lost)
    padded = np.pad(mass[kept], _AROUND, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _AROUND + 1)
    leap = np.abs(mass[kept] - np.median(windows, axis=1))
    usual = float(np.median(np.abs(mass[kept])))
    lost[kept] = leap > max(_OF_MASS * usual, _DEVIATIONS * 1.4826 * float(np.median(leap)))
    return lost
