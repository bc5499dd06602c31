"""Isotropic total variation in three dimensions, by ADMM."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .base import Method
from .run import Estimate, Run

if TYPE_CHECKING:
    from ..config import ReconSettings
    from ..problems import Problem


_COARSER = 0.4  # of the work on a grid, what the next coarser one takes: twice the sweeps, a quarter of the pixels
_TRIED = 4 * 0.8  # strengths that are usually tried, from four of five views


class ADMMTV(Method):
    name: ClassVar[str] = "admm-tv"
    label: ClassVar[str] = "Total variation (ADMM-TV)"
    slabs: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ("CT", "MR", "slices")
    settings: ClassVar[tuple[str, ...]] = ("tv_lam", "tv_sweeps", "tv_grids")
    volumes: ClassVar[int] = 10
    order: ClassVar[int] = 40

    def work(self, settings: ReconSettings) -> dict[str, tuple[str, float]]:
        sweeps = settings.tv_sweeps * (1 + _COARSER * (settings.tv_grids - 1))
        looked_for = {"TV strength": ("sweep for strength", _TRIED * sweeps)} if settings.tv_lam == 0 else {}
        return looked_for | {"ADMM-TV": ("sweep", sweeps)}

    def run(self, problem: Problem, settings: ReconSettings, run: Run) -> Estimate:
        from .starts import coarse_to_fine, show_direct
        from .strength import strength_of

        show_direct(problem, run.monitor)
        lam, sweeps, grids, why = settings.tv_lam, settings.tv_sweeps, settings.tv_grids, ""
        if lam == 0 and problem.scan.KIND == "ct":
            lam, why = strength_of(problem, sweeps, grids, run.monitor)
        volume = coarse_to_fine(problem, lam, sweeps, grids, run.monitor, run.checkpoint)
        return Estimate(volume, remarks=(why,) if why else ())
