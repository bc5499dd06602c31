"""The strength of total variation that a CT scan itself calls for: by cross-validation on views that are left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..geometry import mixes_slices
from ..monitor import NoCheckpoint, Polled
from ..starts import part_for_strength
from .starts import coarse_to_fine

if TYPE_CHECKING:
    from ..monitor import Monitor
    from ..problems import Problem

STAGE = "TV strength"
PART = 5  # one of so many views is left out
LEAST_VIEWS = 2 * PART  # of fewer one that is left out lies too far from the others: all detail would count as noise
STRENGTHS = tuple(10 ** (k / 2) for k in range(-9, -3))  # 3e-5 to 1e-2
FIRST = 3  # of them, about which the search begins
TRIED = 4  # that it usually takes


def strength_of(problem: Problem, sweeps: int, grids: int, monitor: Monitor) -> tuple[float, str]:
    """The strength, of :data:`STRENGTHS`, with which the volume of four of five views tells the fifth best, and a line
    that says so; of very few views the middle one.

    A part of the volume is enough (:func:`..starts.part_for_strength`); on coarser grids strengths are smaller, as
    :func:`.starts.coarse_to_fine` has it.
    """
    make, views = problem.coarser, getattr(problem.scan.geometry, "views", 0)
    if make is None or views < LEAST_VIEWS:
        strength = STRENGTHS[FIRST]
        return strength, f"total variation of strength {strength:.2g}; {views} views are too few to leave some out"
    stacked = not mixes_slices(problem.scan.geometry)
    slices, by = part_for_strength(problem.grid.shape, stacked and problem.A.domain.slabs.size == 1)
    held = slices if stacked and problem.A.domain.slabs.size == 1 else slice(None)
    left_out = range(PART // 2, views, PART)
    seen, _ = make(sorted({*range(views)} - {*left_out}), by, 1, held)
    unseen, _ = make(left_out, by, 1, held)
    size, done = unseen.A.range.norm(unseen.y), 0

    def miss(strength: float) -> float:
        nonlocal done
        x = coarse_to_fine(seen, strength / by, sweeps, grids, Polled(monitor), NoCheckpoint())
        done += 1
        monitor.tick(STAGE, done, max(done, TRIED))
        return float(unseen.A.range.norm(unseen.A.forward(x) - unseen.y) / size) if size > 0 else 0.0

    strength = lowest(miss)
    return strength, f"total variation of strength {strength:.2g}, with which views that are left out are told best"


def lowest(miss: Callable[[float], float]) -> float:
    """The strength of least ``miss``, which has one valley: downhill from the first, each asked once."""
    known: dict[int, float] = {}

    def at(k: int) -> float:
        if k not in known:
            known[k] = miss(STRENGTHS[k])
        return known[k]

    here = FIRST
    while True:
        best = min((k for k in (here, here - 1, here + 1) if 0 <= k < len(STRENGTHS)), key=at)
        if best == here:
            return STRENGTHS[here]
        here = best
