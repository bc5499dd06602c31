"""Supervised baselines of CT: filtered back-projection, a network trained for it, and between its stages the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from .base import OF_NETWORKS, Method
from .run import Estimate, Run

if TYPE_CHECKING:
    import torch

    from ..config import ReconSettings
    from ..models import ModelCard
    from ..problems import Problem
    from ..scans import Scan


class FBPConvNet(Method):
    name: ClassVar[str] = "fbpconvnet"
    label: ClassVar[str] = "FBPConvNet (supervised)"
    takes: ClassVar[tuple[str, ...]] = ("CT",)
    settings: ClassVar[tuple[str, ...]] = OF_NETWORKS
    network: ClassVar[str] = "supervised"
    slice_by_slice: ClassVar[bool] = True
    order: ClassVar[int] = 200
    stages: ClassVar[int] = 1

    def evaluations(self, settings: ReconSettings, task: str, views: int) -> int:
        return self.stages

    def work(self, settings: ReconSettings) -> dict[str, tuple[str, float]]:
        """Between stages the data again."""
        return {self.name: ("sweep", 1 if self.stages == 1 else 10)}

    def load(
        self, settings: ReconSettings, network: Any, scan: Scan, device: torch.device
    ) -> tuple[Any, ModelCard | None]:
        from ..supervised.methods import load_network

        chosen = settings.prior if network is None else network
        loaded = load_network(chosen, self.name, scan.task, device=device, precision=settings.precision)
        return loaded, loaded.card

    def run(self, problem: Problem, settings: ReconSettings, run: Run) -> Estimate:
        from ..supervised.methods import SliceRestorer, restore_volume
        from ..supervised.networks import condition
        from .diffusion import slices_per_batch

        batch = slices_per_batch(settings, problem.grid.in_plane, run.network.device)
        restorer = SliceRestorer(run.network, batch, counter=run.counter, poll=run.monitor.poll)
        told = condition(problem.scan.geometry.angles_deg, problem.scan.task)  # type: ignore[attr-defined]
        first = problem.analytic("ramp")
        return Estimate(restore_volume(restorer, problem.A, problem.y, first, condition=told, monitor=run.monitor))


class Lahiri(FBPConvNet):
    name: ClassVar[str] = "lahiri"
    label: ClassVar[str] = "Lahiri et al. (supervised)"
    order: ClassVar[int] = 201
    stages: ClassVar[int] = 2


class Zhang(FBPConvNet):
    name: ClassVar[str] = "zhang"
    label: ClassVar[str] = "Zhang et al. (supervised)"
    order: ClassVar[int] = 202
