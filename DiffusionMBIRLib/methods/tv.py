"""Isotropic total variation in three dimensions, by ADMM."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .base import Method
from .run import Estimate, Run

if TYPE_CHECKING:
    from ..config import ReconSettings
    from ..problems import Problem


class ADMMTV(Method):
    name: ClassVar[str] = "admm-tv"
    label: ClassVar[str] = "Total variation (ADMM-TV)"
    takes: ClassVar[tuple[str, ...]] = ("CT", "MR", "slices")
    settings: ClassVar[tuple[str, ...]] = ("tv_lam", "tv_sweeps")
    volumes: ClassVar[int] = 10
    order: ClassVar[int] = 40

    def work(self, settings: ReconSettings) -> dict[str, tuple[str, float]]:
        return {"ADMM-TV": ("sweep", settings.tv_sweeps)}

    def run(self, problem: Problem, settings: ReconSettings, run: Run) -> Estimate:
        from .starts import show_direct, total_variation

        show_direct(problem, run.monitor)
        return Estimate(total_variation(problem, settings.tv_lam, settings.tv_sweeps, run.monitor, run.checkpoint))
