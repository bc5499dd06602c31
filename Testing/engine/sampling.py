"""What tests of samplers run on: operators and scans that are small, a small network, and those who watch a run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from DiffusionMBIRLib.denoisers import SliceDenoiser
from DiffusionMBIRLib.errors import Cancelled
from DiffusionMBIRLib.geometry import Grid, ParallelBeam, view_angles
from DiffusionMBIRLib.models import ModelCard
from DiffusionMBIRLib.monitor import Silent
from DiffusionMBIRLib.operators import LinearOperator, SliceDifference, projector
from DiffusionMBIRLib.operators.space import Space
from DiffusionMBIRLib.priors.analytic import GaussianPrior
from DiffusionMBIRLib.priors.base import Prior
from DiffusionMBIRLib.priors.checkpoints import CompactPrior
from DiffusionMBIRLib.priors.compact import CompactConfig, CompactUNet
from DiffusionMBIRLib.samplers.noise import Noise
from DiffusionMBIRLib.samplers.schedules import karras_sigmas
from DiffusionMBIRLib.solvers.consistency import ZTVConsistency

Sampler = Callable[..., Tensor]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class SliceMatrix(LinearOperator):
    """One matrix (measurements, pixels) for every slice of a stack."""

    def __init__(self, matrix: Tensor, domain: tuple[int, int, int]) -> None:
        super().__init__(Space(domain, matrix.dtype), Space((domain[0], len(matrix)), matrix.dtype))
        self.matrix = matrix

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], -1) @ self.matrix.T

    def adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.matrix).reshape(self.domain.shape)


class NoData:
    """A consistency step of a scan without views."""

    misfit = 0.0

    def state(self) -> dict[str, Tensor]:
        return {}

    def residual(self, x: Tensor) -> float:
        return 0.0

    def reset(self) -> None:
        return None

    def __call__(self, x: Tensor, sigma: float | None = None) -> Tensor:
        return x.clone()


class Scan:
    """A scan of a random stack and what a sampler needs for it."""

    def __init__(self, shape: tuple[int, int, int] = (5, 12, 11), views: int = 6, lam: float = 1e-4) -> None:
        self.shape, self.lam = shape, lam
        grid = Grid(shape)
        A = projector(ParallelBeam.covering(grid, view_angles(views)), grid)
        self.A = A.scaled(1 / A.norm())
        self.prior: Prior = GaussianPrior.smooth(shape[1:], length_px=1.5)
        truth = GaussianPrior.smooth(shape[1:], length_px=1.5).draw((shape[0], 1, *shape[1:]), seeded(11))
        self.truth = truth[:, 0].float()
        self.y = self.A @ self.truth
        self.sigmas = karras_sigmas(0.01, 2.0, 8)

    def consistency(self, kind: type[ZTVConsistency] = ZTVConsistency, **options) -> ZTVConsistency:
        chosen = {"rho": 0.025, "lam": self.lam, "cg_steps": 5, **options}
        return kind(self.A, self.y, difference=SliceDifference(self.A.domain), **chosen)

    def run(
        self, sampler: Sampler, *, seed: int = 0, batch: int = 100, prior: Prior | None = None, **options
    ) -> Tensor:
        denoiser = SliceDenoiser(prior or self.prior, batch)
        start = torch.zeros(self.shape)
        return sampler(denoiser, self.consistency(), self.sigmas, start, Noise(self.A.domain, seed), **options)


def network(seed: int = 0) -> CompactPrior:
    """A small network in float32 whose zero-initialised layers hold numbers, so that every path counts."""
    torch.manual_seed(seed)
    config = CompactConfig(widths=(8, 16), blocks=1, embedding=16)
    unet = CompactUNet(config)
    with torch.no_grad():
        for parameter in unet.parameters():
            if not parameter.any():
                parameter.normal_(std=0.05)
    return CompactPrior(unet, ModelCard(id="small", modality="CT", network=config.to_dict()), precision=torch.float32)


class Recorder(Silent):
    def __init__(self, stop_at: int = 0) -> None:
        self.ticks: list[tuple[str, int, int]] = []
        self.previews: list[int] = []
        self.stop_at = stop_at

    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        assert metrics["sigma"] > 0
        self.ticks.append((stage, done, total))
        if done == self.stop_at:
            raise Cancelled("enough")

    def preview(self, estimate: Callable[[], Tensor], step: int) -> None:
        assert torch.isfinite(estimate()).all()
        self.previews.append(step)


class Keeper:
    """Keeps the newest state of each stage, as a file would: copies, with the layout that they had."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, Tensor]] = {}

    def load(self, stage: str) -> dict[str, Tensor] | None:
        state = self.states.get(stage)
        return {name: value.clone() for name, value in state.items()} if state else None

    def save(self, stage: str, state: dict[str, Tensor]) -> None:
        self.states[stage] = {name: value.clone() for name, value in state.items()}
