"""Isotropic total variation in three dimensions, by ADMM."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .base import Method
from .run import Estimate, Run

if TYPE_CHECKING:
    from ..config import ReconSettings
    from ..problems import Problem


_COARSER = 0.4  # of the work on a grid, what the next coarser one takes: twice the sweeps, a quarter of the pixels


class ADMMTV(Method):
    name: ClassVar[str] = "admm-tv"
    label: ClassVar[str] = "Total variation (ADMM-TV)"
    slabs: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ("CT", "MR", "slices")
    settings: ClassVar[tuple[str, ...]] = ("tv_lam", "tv_sweeps", "tv_grids")
    volumes: ClassVar[int] = 10
    order: ClassVar[int] = 40

    def work(self, settings: ReconSettings) -> dict[str, tuple[str, float]]:
        return {"ADMM-TV": ("sweep", settings.tv_sweeps * (1 + _COARSER * (settings.tv_grids - 1)))}

    def run(self, problem: Problem, settings: ReconSettings, run: Run) -> Estimate:
        from .starts import coarse_to_fine, show_direct

        show_direct(problem, run.monitor)
        lam, sweeps = settings.tv_lam, settings.tv_sweeps
        return Estimate(coarse_to_fine(problem, lam, sweeps, settings.tv_grids, run.monitor, run.checkpoint))
