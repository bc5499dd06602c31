"""What was recorded with the published code, replayed with our own pieces; skipped where the recordings are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.denoisers import SliceDenoiser
from DiffusionMBIRLib.operators import LinearOperator
from DiffusionMBIRLib.operators.masks import line_mask, point_mask
from DiffusionMBIRLib.operators.space import Space
from DiffusionMBIRLib.priors.networks import ddpm_sigmas
from DiffusionMBIRLib.samplers import published
from DiffusionMBIRLib.samplers.predictor_corrector import predict
from DiffusionMBIRLib.solvers.cg import conjugate_gradient, descend
from DiffusionMBIRLib.solvers.consistency import ZTVConsistency
from DiffusionMBIRLib.solvers.published import (
    PeriodicDifference,
    aliased_conjugate_gradient,
    aliased_descend,
    final_step,
)
from Testing.engine.published_operators import (
    MaskedFourier,
    RotatingRadon,
    centred_fft,
    centred_ifft,
    handed_out,
    off,
)
from Testing.engine.vectors import SHARED, arrays, recorded

CLOSE = 1e-4


@recorded
def test_recorded_masks():
    expected = arrays("masks")
    for seed in (0, 1, 42):
        found = line_mask(240, acceleration=2, centre_fraction=0.15, seed=seed)
        assert np.array_equal(found, expected[f"uniform1d_240_a2_c0.15_seed{seed}"])
    for kind in ("uniform", "gaussian"):
        found = line_mask(320, acceleration=4, centre_fraction=0.08, kind=kind)
        assert np.array_equal(found, expected[f"{kind}1d_320_a4_c0.08_seed0"])
    assert np.array_equal(point_mask(128, acceleration=8), expected["gaussian2d_128_a8_c0.08_seed0"])
    uniform = point_mask(128, acceleration=8, kind="uniform")
    assert np.array_equal(uniform, expected["uniformrandom2d_128_a8_c0.08_seed0"])


class Recorded(SliceDenoiser):
    """The mean that belongs to a recorded score."""

    def __init__(self, score: Tensor) -> None:
        self.score = score[:, 0]

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return torch.add(x, self.score, alpha=sigma**2)


def consistency(A: LinearOperator, y: Tensor, *, rho: float, lam: float, **options) -> ZTVConsistency:
    options = {"cg_steps": 1} | options
    return ZTVConsistency(A, y, difference=PeriodicDifference(A.domain), rho=rho, lam=lam, **options)


def radon(slices: int = 6) -> RotatingRadon:
    return RotatingRadon(64, torch.arange(8) * 180 / 8, slices)


@recorded
@pytest.mark.parametrize("size", [63, 64])
@pytest.mark.parametrize("views", [8, 180])
def test_the_rebuilt_operator(size, views):
    v = arrays("radon_64")
    A = RotatingRadon(size, torch.arange(views) * 180 / views, 1)
    assert off(A.forward(v[f"img{size}"][0]), v[f"A{size}_v{views}"]) < CLOSE
    assert off(A.adjoint(v[f"A{size}_v{views}"][0]), v[f"AT{size}_v{views}"]) < CLOSE
    assert off(A.gram(torch.ones(A.domain.shape)), v[f"normconst{size}_v{views}"]) < CLOSE


@recorded
def test_the_rebuilt_fourier_transform():
    v = arrays("fft_convention")
    assert off(torch.view_as_real(centred_fft(v["x"])), torch.view_as_real(v["fft2"])) < CLOSE
    assert off(centred_ifft(v["fft2"]).real, v["ifft2_real"]) < CLOSE


@recorded
def test_levels_are_the_recorded_ones():
    v = arrays("mbir_iteration_6x64x64_v8")
    told, jumps = (torch.tensor(n) for n in zip(*published.mbir_levels(0.01, 378.0, 2000), strict=True))
    assert off(told, 0.01 * 37800 ** v["timesteps_N2000_eps1e-10"]) < 1e-6
    table, index = v["discrete_sigmas_N2000"].double(), v["index_used_N2000"]
    below = torch.where(index > 0, table[index - 1], 0.0)
    assert torch.allclose(jumps.double(), (table[index].square() - below.square()).sqrt(), rtol=1e-4)
    k = int(v["step_index"])
    assert float(told[k]) == pytest.approx(float(v["label_sigma"]), rel=1e-5)
    assert float(jumps[k]) == pytest.approx(float(v["G"][0]), rel=1e-4)


@recorded
def test_predictor_and_corrector():
    v = arrays("mbir_iteration_6x64x64_v8")
    sigma, jump = published.mbir_levels(0.01, 378.0, 2000)[int(v["step_index"])]
    found = predict(Recorded(v["score_pred"]), v["x_in"][:, 0], sigma, jump, v["z_pred"][:, 0])
    assert off(found, v["x_pred"]) < CLOSE
    step = published.correct_sub_batches(
        Recorded(v["score_corr"]), v["x_pred"][:, 0], sigma, 0.16, v["z_corr"][:, 0], 12
    )
    assert off(step, v["x_corr"]) < CLOSE


CASES = {"tv_rho10_lam0.04": (10, 0.04), "tv_rho10_lam0.4": (10, 0.4), "tv_rho0.01_lam0.005": (0.01, 0.005)}


@recorded
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("solver", [descend, aliased_descend])
def test_two_admm_calls_for_ct(name, solver):
    """With one step a call, our own conjugate gradient gives the published result, too."""
    v = arrays("mbir_iteration_6x64x64_v8")
    rho, lam = CASES[name]
    check_calls(consistency(radon(), v["sino_v8"][:, 0], rho=rho, lam=lam, solver=solver), v, name)


def check_calls(step: ZTVConsistency, v: dict[str, Tensor], name: str) -> None:
    for call in (1, 2):
        x = step(v[f"{name}_x_in{call}"][:, 0])
        assert step.z is not None
        assert step.w is not None
        assert off(x, v[f"{name}_x_out{call}"]) < CLOSE
        assert off(step.z, v[f"{name}_z{call}"]) < CLOSE
        assert off(step.w, v[f"{name}_w{call}"]) < CLOSE


@recorded
def test_without_total_variation():
    v = arrays("mbir_iteration_6x64x64_v8")
    step = consistency(radon(), v["sino_v8"][:, 0], rho=0.0, lam=0.0)
    for call in (1, 2):
        assert off(step(v[f"notv_x_in{call}"][:, 0]), v[f"notv_x_out{call}"]) < CLOSE


@recorded
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
@pytest.mark.parametrize("kind", ["officialCG_aliased", "trueCG"])
def test_conjugate_gradient_over_several_steps(kind, steps):
    v = arrays("mbir_iteration_6x64x64_v8")
    step = consistency(radon(), v["sino_v8"][:, 0], rho=10, lam=0.04)
    assert off(step._system(v["tv_rho10_lam0.04_x_in2"][:, 0]), v["A_cg_of_xb_rho10"]) < CLOSE
    solver = aliased_conjugate_gradient if kind.startswith("official") else conjugate_gradient
    found = solver(step._system, v["ATy"][:, 0], v["tv_rho10_lam0.04_x_in2"][:, 0], steps=steps)
    assert off(found, v[f"{kind}_n{steps}"]) < CLOSE


@recorded
def test_the_recorded_final_step():
    v = arrays("mbir_iteration_6x64x64_v8")
    assert off(final_step(radon(), v["sino_v8"][:, 0], v["kaczmarz_in"][:, 0]), v["kaczmarz_out"]) < CLOSE


@recorded
@pytest.mark.parametrize(("name", "rho", "lam"), [("rho0.01_lam0.005", 0.01, 0.005), ("rho1_lam0.05", 1, 0.05)])
def test_two_admm_calls_for_mri(name, rho, lam):
    v = arrays("mri_admm_6x64x64")
    A = MaskedFourier(v["mask"][0, 0], 6)
    measured = v["kspace_under"][:, 0]
    assert off(A.adjoint(measured), v["ATy"]) < CLOSE
    check_calls(consistency(A, measured, rho=rho, lam=lam), v, name)


@pytest.mark.slow
@recorded
@pytest.mark.parametrize("end_on_data", [True, False])
def test_a_whole_run_of_mbir(end_on_data):
    v = arrays("mbir_fullrun_6x64x64_v8_N3")
    prior = mbir.load_prior(SHARED / "vectors" / "ncsnpp_tiny_img64.pth")
    noise = handed_out(v["noise_sequence"][:, :, 0])
    step = consistency(radon(), v["sino"][:, 0], rho=10, lam=0.04, solver=aliased_descend)
    levels = published.mbir_levels(prior.sigma_min, prior.sigma_max, int(v["N"]))
    found = published.sample_mbir(
        SliceDenoiser(prior, 6), step, levels, noise, snr=float(v["snr"]), end_on_data=end_on_data
    )
    assert off(found, v[f"x_final_consistency_{end_on_data}"]) < CLOSE


@recorded
def test_the_schedule_of_ddpm():
    with np.load(SHARED / "vectors" / "dds_schedule.npz") as file:
        np.testing.assert_allclose(1 / (1 + ddpm_sigmas() ** 2), file["alpha"][1:], rtol=CLOSE)


@pytest.mark.slow
@recorded
def test_a_whole_run_of_dds():
    v = arrays("dds3d_fullrun_svct8_T5")
    prior = mbir.load_prior(SHARED / "vectors" / "dds_tiny_img64.pt")
    noise = handed_out(v["noise"][:, :, 0])
    seen: list[tuple[Tensor, Tensor]] = []

    class Watched(ZTVConsistency):
        def __call__(self, x: Tensor, sigma: float | None = None) -> Tensor:
            seen.append((x.clone(), super().__call__(x, sigma)))
            return seen[-1][1]

    D = PeriodicDifference(Space((6, 64, 64)))
    step = Watched(radon(), v["sino"][:, 0], difference=D, rho=10, lam=0.04, cg_steps=5)
    sigmas = published.dds_sigmas(5)
    found = published.sample_dds(SliceDenoiser(prior, 6), step, sigmas, noise, eta=0.85)
    for k, (denoised, consistent) in enumerate(seen):
        assert off(denoised, v["x0_tweedie"][k]) < CLOSE, k
        assert off(consistent, v["x0_after_cg"][k]) < CLOSE, k
    assert off(found, v["recon"]) < CLOSE
