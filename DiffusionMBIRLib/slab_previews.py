"""Previews of a volume that lies in slabs: coarse where it is large, but for its three middle planes.

The monitor of the first process says whether it wants to see one, all others take part then, and what they hand over
has a bound.  A volume that is shown by its middle slices, as viewers do at first, is shown as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from .coarsening import between, factors_within
from .monitor import Silent

if TYPE_CHECKING:
    from .monitor import Monitor
    from .operators.slabs import Slabs, SlabsOfProcesses
    from .volume import Volume

COARSE_BYTES = 4 << 20  # of the volume, as it is if that is enough
PLANES_BYTES = 16 << 20  # of its middle planes, which are left out where they are larger
_EXCHANGE = "previews"


def wants_previews(monitor: Monitor, slabs: Slabs) -> bool:
    """Whether the first process's monitor ever looks at one: so all know whether they are to be asked."""
    return slabs.agreed(type(monitor).preview is not Silent.preview)


def preview_of_slabs(
    monitor: Monitor,
    slabs: SlabsOfProcesses,
    part: Callable[[], np.ndarray],
    whole: Callable[[np.ndarray], Volume],
    step: int,
) -> None:
    """Offer a preview; called by all processes alike.

    part: makes the slab of this process (slices, rows, columns), float32.  whole: makes the user's volume of an array.
    """
    if slabs.rank > 0:
        if slabs.agreed(False):
            _gathered(slabs, part())
        return
    asked: list[bool] = []

    @cache
    def estimate() -> Volume:
        asked.append(slabs.agreed(True))
        array = _gathered(slabs, part())
        assert array is not None
        return whole(array)

    try:
        monitor.preview(estimate, step)
    finally:
        if not asked:
            slabs.agreed(False)


def _gathered(slabs: SlabsOfProcesses, part: np.ndarray) -> np.ndarray | None:
    """The volume for a preview in the first process, None in the others."""
    slices, (rows, columns) = slabs.in_all(len(part)), part.shape[1:]
    shape = (slices, rows, columns)
    ends = slabs.bounds
    factors = factors_within(shape, COARSE_BYTES / part.itemsize)
    along, across, over = factors
    first, middle = slabs.mine(slices).start, slices // 2
    thin = part[-first % along :: along, ::across, ::over]
    coarse = slabs.gathered(thin, [-(-end // along) for end in ends], _EXCHANGE)
    volume = None if coarse is None else between(coarse, shape, factors)
    if factors == (1, 1, 1) or part.itemsize * (rows * columns + slices * (rows + columns)) > PLANES_BYTES:
        return volume
    upright = slabs.gathered(np.concatenate([part[:, rows // 2], part[:, :, columns // 2]], axis=1), None, _EXCHANGE)
    own = part[middle - first : middle - first + 1] if 0 <= middle - first < len(part) else part[:0]
    flat = slabs.gathered(own, [int(end > middle) for end in ends], _EXCHANGE)
    if volume is not None and upright is not None and flat is not None:
        volume[middle] = flat[0]
        volume[:, rows // 2], volume[:, :, columns // 2] = upright[:, :columns], upright[:, columns:]
    return volume
