"""Supervised baselines of Cartesian MRI: networks trained for zero-filled images, alone or by turns with k-space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import InputError
from ..geometry import CartesianMRI
from .base import OF_NETWORKS, Method
from .run import Estimate, Run

if TYPE_CHECKING:
    import torch

    from ..config import ReconSettings
    from ..models import ModelCard
    from ..problems import Problem
    from ..scans import Scan


class UNet(Method):
    name: ClassVar[str] = "unet"
    label: ClassVar[str] = "U-Net (supervised)"
    takes: ClassVar[tuple[str, ...]] = ("MR",)
    settings: ClassVar[tuple[str, ...]] = OF_NETWORKS
    network: ClassVar[str] = "supervised"
    order: ClassVar[int] = 203
    networks: ClassVar[int] = 1

    def evaluations(self, settings: ReconSettings, task: str, views: int) -> int:
        return self.networks

    def work(self, settings: ReconSettings) -> dict[str, tuple[str, float]]:
        """The adjoint, and after each network the data again where there are several."""
        return {self.name: ("step", 1 if self.networks == 1 else 1 + self.networks)}

    def load(
        self, settings: ReconSettings, network: Any, scan: Scan, device: torch.device
    ) -> tuple[Any, ModelCard | None]:
        from ..supervised.methods import load_network

        if not isinstance(scan.geometry, CartesianMRI):
            raise InputError(f"setting method: {self.name!r} was trained for Cartesian k-space; use admm-tv or dual")
        chosen = settings.prior if network is None else network
        loaded = load_network(chosen, self.name, scan.task, device=device, precision=settings.precision)
        return loaded, loaded.card

    def run(self, problem: Problem, settings: ReconSettings, run: Run) -> Estimate:
        from ..supervised.methods import SliceRestorer
        from ..supervised.two_domains import restore_images
        from .diffusion import slices_per_batch

        batch = slices_per_batch(settings, problem.grid.in_plane, run.network.device)
        restorer = SliceRestorer(run.network, batch, counter=run.counter, poll=run.monitor.poll)
        sampled = float(problem.scan.geometry.mask.mean())  # type: ignore[attr-defined]
        return Estimate(restore_images(restorer, problem.A, problem.y, sampled=sampled, monitor=run.monitor))


class DuDoRNet(UNet):
    name: ClassVar[str] = "dudornet"
    label: ClassVar[str] = "DuDoRNet (supervised)"
    order: ClassVar[int] = 204
    networks: ClassVar[int] = 10
