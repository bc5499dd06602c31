"""The published solvers: their quirks in small, and a replay of what was recorded with the code itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.operators import LinearOperator
from DiffusionMBIRLib.operators.masks import line_mask, point_mask
from DiffusionMBIRLib.priors.analytic import GaussianPrior
from DiffusionMBIRLib.priors.base import SliceDenoiser
from DiffusionMBIRLib.priors.networks import ddpm_sigmas
from DiffusionMBIRLib.samplers import published
from DiffusionMBIRLib.solvers.cg import conjugate_gradient
from DiffusionMBIRLib.solvers.consistency import ZTVConsistency
from DiffusionMBIRLib.solvers.published import PeriodicDifference, aliased_conjugate_gradient, final_step
from Testing.engine.helpers import body
from Testing.engine.published_operators import MaskedFourier, RotatingRadon, centred_fft, centred_ifft
from Testing.engine.vectors import SHARED, arrays, recorded

CLOSE = 1e-4


def off(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected| over the whole volume."""
    return float((found.reshape(expected.shape) - expected).norm() / expected.norm())


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def positive_definite(n: int) -> Tensor:
    factor = random(n, n, seed=5)
    return factor @ factor.T + torch.eye(n, dtype=torch.float64)


# --- the pieces


def test_the_last_slice_is_tied_to_the_first():
    D = PeriodicDifference((5, 3, 4), dtype=torch.float64)
    x, y = random(5, 3, 4), random(5, 3, 4, seed=1)
    assert torch.equal(D.forward(x)[4], x[0] - x[4])
    assert torch.equal(D.forward(x)[:4], x[1:] - x[:4])
    assert float((D.forward(x) * y).sum()) == pytest.approx(float((x * D.adjoint(y)).sum()), rel=1e-10)
    expected = y + 3 * D.adjoint(D.forward(x))
    assert torch.allclose(D.add_gram_to(y.clone(), x, 3.0), expected, atol=1e-12)
    assert torch.allclose(D.gram(x), D.adjoint(D.forward(x)), atol=1e-12)


def test_one_step_of_the_aliased_conjugate_gradient_is_right_and_two_are_not():
    system, rhs, start = positive_definite(12), random(12), random(12, seed=1)

    def solve(method, steps):
        return method(lambda v: system @ v, rhs, start, steps=steps)

    first = solve(aliased_conjugate_gradient, 1)
    assert torch.allclose(first, solve(conjugate_gradient, 1), atol=1e-10)
    residual = rhs - system @ first
    beta = residual.square().sum() / (rhs - system @ start).square().sum()
    direction = (1 + beta) * residual
    second = first + residual.square().sum() / (direction @ system @ direction) * direction
    assert torch.allclose(solve(aliased_conjugate_gradient, 2), second, atol=1e-10)
    assert not torch.allclose(second, solve(conjugate_gradient, 2), atol=1e-3)
    assert torch.equal(start, random(12, seed=1))
    assert torch.equal(aliased_conjugate_gradient(lambda v: v, rhs, rhs, steps=3), rhs)


def test_time_steps_and_their_cut_off_decimals():
    levels = published.mbir_levels(0.01, 378.0, 2000)
    assert levels[0][0] == pytest.approx(378, rel=1e-6)
    assert levels[-1] == pytest.approx((0.01, 0.01), rel=1e-5)
    # What the jumps would be if every step went from one level to the next.
    table = np.geomspace(378.0, 0.01, 2000)
    exact = np.sqrt(table**2 - np.append(table[1:], 0) ** 2)
    assert np.sum(np.abs(np.array(levels)[:, 1] / exact - 1) > 1e-3) == 137
    assert published.mbir_levels(0.01, 378.0, 1)[0][0] == pytest.approx(378)


def test_steps_of_ddpm():
    table = ddpm_sigmas()
    assert published.dds_sigmas(5) == [table[k] for k in (800, 600, 400, 200, 0)]
    assert len(published.dds_sigmas(30)) == 31  # 1000 // 30 = 33
    assert published.dds_sigmas(1) == [table[0]]
    assert (np.diff(published.dds_sigmas(100)) < 0).all()


@pytest.mark.parametrize(
    ("slices", "batch", "sizes"), [(6, 12, [6]), (12, 12, [6, 6]), (13, 12, [7, 6]), (24, 12, [8, 8, 8]), (1, 1, [1])]
)
def test_sub_batches(slices, batch, sizes):
    assert published.sub_batches(slices, batch) == sizes


def test_the_corrector_depends_on_the_sub_batch():
    prior = GaussianPrior(0.5, 0.04)
    x, noise = 0.5 + random(6, 4, 4) * torch.arange(1.0, 7.0)[:, None, None], random(6, 4, 4, seed=1)
    denoiser = SliceDenoiser(prior, 100)
    whole, halves = (published.correct(denoiser, x, 0.3, 0.16, noise, batch) for batch in (12, 6))
    assert not torch.allclose(whole, halves, atol=1e-3)
    alone = published.correct(denoiser, x[:3], 0.3, 0.16, noise[:3], 12)
    assert torch.allclose(halves[:3], alone, atol=1e-12)


class Diagonal(LinearOperator):
    """Every pixel weighed on its own."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__(tuple(weights.shape), tuple(weights.shape), device=torch.device("cpu"), dtype=weights.dtype)
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weights

    def adjoint(self, y: Tensor) -> Tensor:
        return y * self.weights


def test_the_final_step_meets_the_data_and_leaves_what_no_ray_meets():
    weights = random(2, 3, 3).abs() + 0.1
    weights[0, 0, 0] = 0
    A, truth, x = Diagonal(weights), random(2, 3, 3, seed=1), random(2, 3, 3, seed=2)
    out = final_step(A, A.forward(truth), x)
    assert torch.allclose(A.forward(out), A.forward(truth), atol=1e-12)
    assert out[0, 0, 0] == x[0, 0, 0]


# --- the switch


@pytest.fixture(scope="module")
def scan():
    return mbir.simulate(body((5, 24, 24)), views=12)


def reconstruct(scan, **changes):
    prior = GaussianPrior.smooth((24, 24), deviation=0.25, length_px=1.5)
    prior.sigma_min, prior.sigma_max = 0.01, 160.0
    settings = ReconSettings(**{"published": True, "steps": 25, "cg_steps": 1} | changes)
    return mbir.reconstruct(scan, prior=prior, settings=settings)


@pytest.mark.parametrize("method", ["mbir", "dds"])
def test_reconstruct_as_published(scan, method):
    first = reconstruct(scan, method=method)
    assert first.provenance["settings"]["published"] is True
    assert first.nfe == {"mbir": 50, "dds": 25}[method]
    assert np.isfinite(first.volume.array).all()
    for changes in ({}, {"start": "fbp"}, {"sigma_start": 3.0, "sigma_end": 0.02}):
        assert np.array_equal(first.volume.array, reconstruct(scan, method=method, **changes).volume.array)
    for others in ({"seed": 1}, {"published": False, "start": "noise"}):
        assert np.abs(first.volume.array - reconstruct(scan, method=method, **others).volume.array).max() > 1


def test_sub_batches_of_the_switch(scan):
    whole, split = (reconstruct(scan, method="mbir", slices_per_batch=n).volume.array for n in (0, 2))
    assert np.abs(whole - split).max() > 1
    whole, split = (reconstruct(scan, method="dds", slices_per_batch=n).volume.array for n in (0, 2))
    np.testing.assert_allclose(whole, split, atol=0.1)


def test_what_was_not_published_is_refused(scan):
    with pytest.raises(InputError, match="setting published: no code of mbir-slow"):
        reconstruct(scan, method="mbir-slow")
    low = GaussianPrior(0.5, 0.04, sigma_max=12.0)
    with pytest.raises(InputError, match=r"5 steps of dds begin at .* above the largest noise level .* 12"):
        mbir.reconstruct(scan, prior=low, settings=ReconSettings(published=True, steps=5))
    with pytest.raises(InputError, match="setting published: 'yes' is neither"):
        ReconSettings(published="yes")


# --- masks


def test_distinct_lines_are_as_many_as_asked_for():
    for seed in range(5):
        exact = line_mask(240, acceleration=2, centre_fraction=0.15, seed=seed, distinct=True)
        assert exact.sum() == 120
        assert exact[102:138].all()
        assert line_mask(240, acceleration=2, centre_fraction=0.15, seed=seed).sum() < 110
    assert line_mask(64, acceleration=4, centre_fraction=0.5).sum() == 32


def test_wrong_masks_are_named():
    with pytest.raises(InputError, match="mask 'spiral'"):
        line_mask(64, acceleration=4, centre_fraction=0.1, kind="spiral")
    with pytest.raises(InputError, match="distinct"):
        line_mask(64, acceleration=4, centre_fraction=0.1, kind="gaussian", distinct=True)
    with pytest.raises(InputError, match="acceleration"):
        line_mask(64, acceleration=0, centre_fraction=0.1)
    with pytest.raises(InputError, match="acceleration"):
        point_mask(64, acceleration=0)
    with pytest.raises(InputError, match="mask 'x'"):
        point_mask(64, acceleration=2, kind="x")


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


# --- replays


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
    assert off(A.gram(torch.ones(A.domain)), v[f"normconst{size}_v{views}"]) < CLOSE


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
    found = published.predict(Recorded(v["score_pred"]), v["x_in"][:, 0], sigma, jump, v["z_pred"][:, 0])
    assert off(found, v["x_pred"]) < CLOSE
    step = published.correct(Recorded(v["score_corr"]), v["x_pred"][:, 0], sigma, 0.16, v["z_corr"][:, 0], 12)
    assert off(step, v["x_corr"]) < CLOSE


CASES = {"tv_rho10_lam0.04": (10, 0.04), "tv_rho10_lam0.4": (10, 0.4), "tv_rho0.01_lam0.005": (0.01, 0.005)}


@recorded
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("solver", [conjugate_gradient, aliased_conjugate_gradient])
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


@pytest.fixture
def noise(monkeypatch):
    """Hands recorded noise to the samplers in place of random numbers."""

    def hand_out(sequence: Tensor) -> None:
        steps: Iterator[Tensor] = iter(sequence[:, :, 0])
        monkeypatch.setattr(published, "volume_noise", lambda like, generator: next(steps).clone())

    return hand_out


@recorded
@pytest.mark.parametrize("end_on_data", [True, False])
def test_a_whole_run_of_mbir(end_on_data, noise):
    v = arrays("mbir_fullrun_6x64x64_v8_N3")
    prior = mbir.load_prior(SHARED / "vectors" / "ncsnpp_tiny_img64.pth")
    noise(v["noise_sequence"])
    step = consistency(radon(), v["sino"][:, 0], rho=10, lam=0.04, solver=aliased_conjugate_gradient)
    levels = published.mbir_levels(prior.sigma_min, prior.sigma_max, int(v["N"]))
    found = published.sample_mbir(
        SliceDenoiser(prior, 6), step, levels, torch.Generator(), snr=float(v["snr"]), end_on_data=end_on_data
    )
    assert off(found, v[f"x_final_consistency_{end_on_data}"]) < CLOSE


@recorded
def test_the_schedule_of_ddpm():
    with np.load(SHARED / "vectors" / "dds_schedule.npz") as file:
        np.testing.assert_allclose(1 / (1 + ddpm_sigmas() ** 2), file["alpha"][1:], rtol=CLOSE)


@recorded
def test_a_whole_run_of_dds(noise):
    v = arrays("dds3d_fullrun_svct8_T5")
    prior = mbir.load_prior(SHARED / "vectors" / "dds_tiny_img64.pt", config={"head_channels": 32})
    noise(v["noise"])
    seen: list[tuple[Tensor, Tensor]] = []

    class Watched(ZTVConsistency):
        def __call__(self, x: Tensor) -> Tensor:
            seen.append((x.clone(), super().__call__(x)))
            return seen[-1][1]

    D = PeriodicDifference((6, 64, 64))
    step = Watched(radon(), v["sino"][:, 0], difference=D, rho=10, lam=0.04, cg_steps=5)
    sigmas = published.dds_sigmas(5)
    found = published.sample_dds(SliceDenoiser(prior, 6), step, sigmas, torch.Generator(), eta=0.85)
    for k, (denoised, consistent) in enumerate(seen):
        assert off(denoised, v["x0_tweedie"][k]) < CLOSE, k
        assert off(consistent, v["x0_after_cg"][k]) < CLOSE, k
    assert off(found, v["recon"]) < CLOSE
