"""The cubic spline through thick slices, and the nearest volume to it that has their means."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .base import Method
from .run import Estimate, Run

if TYPE_CHECKING:
    from ..config import ReconSettings
    from ..problems import Problem


class Spline(Method):
    name: ClassVar[str] = "spline"
    label: ClassVar[str] = "Cubic spline"
    takes: ClassVar[tuple[str, ...]] = ("slices",)
    volumes: ClassVar[int] = 3
    order: ClassVar[int] = 62
    way: ClassVar[str] = "spline"

    def run(self, problem: Problem, settings: ReconSettings, run: Run) -> Estimate:
        return Estimate(problem.analytic(self.way))


class ProjectedSpline(Spline):
    name: ClassVar[str] = "spline-projected"
    label: ClassVar[str] = "Cubic spline with the slices' means"
    order: ClassVar[int] = 61
    way: ClassVar[str] = "projected"
