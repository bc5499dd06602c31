"""Least squares by conjugate gradient, stopped early."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .base import Method
from .run import Estimate, Run

if TYPE_CHECKING:
    from ..config import ReconSettings
    from ..problems import Problem


class CGLS(Method):
    name: ClassVar[str] = "cgls"
    label: ClassVar[str] = "Least squares (CGLS)"
    takes: ClassVar[tuple[str, ...]] = ("CT",)
    settings: ClassVar[tuple[str, ...]] = ("cgls_iterations",)
    volumes: ClassVar[int] = 8
    order: ClassVar[int] = 56

    def work(self, settings: ReconSettings) -> dict[str, tuple[str, float]]:
        return {"CGLS": ("step", settings.cgls_iterations)}

    def run(self, problem: Problem, settings: ReconSettings, run: Run) -> Estimate:
        from ..solvers.cgls import cgls

        steps = settings.cgls_iterations
        return Estimate(cgls(problem.A, problem.y, iterations=steps, monitor=run.monitor, checkpoint=run.checkpoint))
