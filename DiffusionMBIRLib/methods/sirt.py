"""Simultaneous iterative reconstruction."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .base import Method
from .run import Estimate, Run

if TYPE_CHECKING:
    from ..config import ReconSettings
    from ..problems import Problem


class SIRT(Method):
    name: ClassVar[str] = "sirt"
    label: ClassVar[str] = "SIRT"
    slabs: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ("CT",)
    settings: ClassVar[tuple[str, ...]] = ("sirt_iterations",)
    volumes: ClassVar[int] = 8
    order: ClassVar[int] = 50

    def work(self, settings: ReconSettings) -> dict[str, tuple[str, float]]:
        return {"SIRT": ("sirt", settings.sirt_iterations)}

    def run(self, problem: Problem, settings: ReconSettings, run: Run) -> Estimate:
        from ..solvers.classic import sirt
        from .starts import show_direct

        show_direct(problem, run.monitor)
        steps = settings.sirt_iterations
        volume = sirt(
            problem.A,
            problem.y,
            iterations=steps,
            floor=problem.least,
            ceiling=problem.most,
            monitor=run.monitor,
            checkpoint=run.checkpoint,
        )
        return Estimate(volume)
