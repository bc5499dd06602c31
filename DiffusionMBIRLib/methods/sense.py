"""SENSE by conjugate gradient with Tikhonov regularisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .base import Method
from .run import Estimate, Run

if TYPE_CHECKING:
    from ..config import ReconSettings
    from ..problems import Problem


class SenseCG(Method):
    name: ClassVar[str] = "sense-cg"
    label: ClassVar[str] = "SENSE, conjugate gradient"
    slabs: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ("MR",)
    settings: ClassVar[tuple[str, ...]] = ("cg_iterations", "cg_lam")
    order: ClassVar[int] = 72

    def work(self, settings: ReconSettings) -> dict[str, tuple[str, float]]:
        return {self.name: ("step", settings.cg_iterations)}

    def run(self, problem: Problem, settings: ReconSettings, run: Run) -> Estimate:
        from .starts import sense

        return Estimate(sense(problem, settings))
