"""mbir and dds as their published code does it, where the setting ``published`` asks for it to the letter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .diffusion import Draw, require_level

if TYPE_CHECKING:
    from torch import Tensor


def draw_dds(draw: Draw) -> Tensor:
    """A volume by the code of DDS, which mended its conjugate gradient."""
    from ..samplers import published
    from ..solvers.cg import descend

    s = draw.settings
    sigmas = published.dds_sigmas(s.steps)
    require_level(draw.prior, sigmas[0], f"setting published: {s.steps} steps of dds begin at")
    return published.sample_dds(
        draw.denoiser,
        _data_step(draw, descend),
        sigmas,
        draw.noise,
        eta=s.eta,
        monitor=draw.run.monitor,
        checkpoint=draw.checkpoint,
    )


def draw_mbir(draw: Draw) -> Tensor:
    """A volume by the code of Algorithm 1."""
    from ..samplers import published
    from ..solvers.cg import descend
    from ..solvers.published import aliased_descend

    s, does = draw.settings, draw.problem.as_published
    return published.sample_mbir(
        draw.denoiser,
        _data_step(draw, aliased_descend if "aliased" in does else descend),
        published.mbir_levels(draw.prior.sigma_min, draw.prior.sigma_max, s.steps),
        draw.noise,
        snr=s.snr,
        slices_per_batch=s.slices_per_batch or published.SLICES_PER_BATCH,
        end_on_data="ends-on-data" in does,
        monitor=draw.run.monitor,
        checkpoint=draw.checkpoint,
    )


def _data_step(draw: Draw, solver: Any) -> Any:
    from ..solvers.consistency import ZTVConsistency
    from ..solvers.published import PeriodicDifference

    s, problem = draw.settings, draw.problem
    return ZTVConsistency(
        problem.A,
        problem.y,
        difference=PeriodicDifference(problem.A.domain),
        rho=s.rho,
        lam=s.lam,
        cg_steps=s.cg_steps,
        sweeps=s.sweeps or 1,
        solver=solver,
        poll=draw.run.monitor.poll,
    )
