"""Wavelet sparsity with coil maps, by SigPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .base import Method
from .run import Estimate, Run

if TYPE_CHECKING:
    from ..config import ReconSettings
    from ..problems import Problem


class EspiritL1(Method):
    name: ClassVar[str] = "espirit-l1"
    label: ClassVar[str] = "Wavelets with coil maps (ESPIRiT-L1)"
    takes: ClassVar[tuple[str, ...]] = ("MR",)
    settings: ClassVar[tuple[str, ...]] = ("l1_lam",)
    order: ClassVar[int] = 71

    def work(self, settings: ReconSettings) -> dict[str, tuple[str, float]]:
        return {self.name: ("step", settings.cg_iterations)}

    def run(self, problem: Problem, settings: ReconSettings, run: Run) -> Estimate:
        from ..problems.mr import operator_of
        from ..problems.trajectory import wavelets
        from ..scans import KSpace, TrajectoryKSpace
        from ..solvers.sense import espirit_l1

        assert isinstance(problem.scan, KSpace)
        if isinstance(problem.scan, TrajectoryKSpace):
            return Estimate(wavelets(problem, lam=settings.l1_lam))
        A = operator_of(problem.scan, problem.A.device)  # with all coils, not with combinations of them
        return Estimate(espirit_l1(problem.scan.data / problem.unit, A, lam=settings.l1_lam))
