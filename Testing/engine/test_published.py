"""The published solvers in small: their quirks, and whole runs beside plain ones that use none of our pieces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.denoisers import SliceDenoiser
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.operators import LinearOperator
from DiffusionMBIRLib.operators.masks import line_mask, point_mask
from DiffusionMBIRLib.operators.space import Space
from DiffusionMBIRLib.priors.analytic import GaussianPrior
from DiffusionMBIRLib.priors.networks import ddpm_sigmas
from DiffusionMBIRLib.samplers import published
from DiffusionMBIRLib.solvers.cg import conjugate_gradient
from DiffusionMBIRLib.solvers.consistency import ZTVConsistency
from DiffusionMBIRLib.solvers.published import PeriodicDifference, aliased_conjugate_gradient, final_step
from Testing.engine.helpers import body
from Testing.engine.published_operators import handed_out, off


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def positive_definite(n: int) -> Tensor:
    factor = random(n, n, seed=5)
    return factor @ factor.T + torch.eye(n, dtype=torch.float64)


# --- the pieces


def test_the_last_slice_is_tied_to_the_first():
    D = PeriodicDifference(Space((5, 3, 4), torch.float64))
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
    whole, halves = (published.correct_sub_batches(denoiser, x, 0.3, 0.16, noise, batch) for batch in (12, 6))
    assert not torch.allclose(whole, halves, atol=1e-3)
    alone = published.correct_sub_batches(denoiser, x[:3], 0.3, 0.16, noise[:3], 12)
    assert torch.allclose(halves[:3], alone, atol=1e-12)


class Diagonal(LinearOperator):
    """Every pixel weighed on its own."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__(*2 * [Space(tuple(weights.shape), weights.dtype)])
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
        mbir.reconstruct(scan, prior=low, settings=ReconSettings(method="dds", published=True, steps=5))
    with pytest.raises(InputError, match="setting published: 'yes' is neither"):
        ReconSettings(published="yes")


# --- whole runs beside plain ones, in small


class Plain:
    """A volume of independent pixels, its noise, and the published ADMM step written out without any of our solvers."""

    def __init__(self) -> None:
        self.slices = 4
        self.A = Diagonal(random(self.slices, 3, 3, seed=3).abs() + 0.2)
        self.y = self.A.forward(random(self.slices, 3, 3, seed=4))
        self.noise = random(40, self.slices, 3, 3, seed=5)
        self.prior = GaussianPrior(0.3, 0.09, sigma_min=0.01, sigma_max=200.0)
        self.z = self.w = torch.zeros(self.slices, 3, 3, dtype=torch.float64)
        self.rho, self.lam = 0.5, 0.02

    def consistency(self, cg_steps: int) -> ZTVConsistency:
        D = PeriodicDifference(self.A.domain)
        return ZTVConsistency(self.A, self.y, difference=D, rho=self.rho, lam=self.lam, cg_steps=cg_steps)

    def admm(self, x: Tensor, steps: int) -> Tensor:
        def difference(v: Tensor) -> Tensor:
            return torch.cat([v[1:], v[:1]]) - v

        def transposed(v: Tensor) -> Tensor:
            return torch.cat([v[-1:], v[:-1]]) - v

        def system(v: Tensor) -> Tensor:
            return self.A.weights**2 * v + self.rho * transposed(difference(v))

        residual = self.A.weights * self.y + self.rho * transposed(self.z - self.w) - system(x)
        direction = residual
        for _ in range(steps):
            length = (residual**2).sum() / (direction * system(direction)).sum()
            x, last = x + length * direction, residual
            residual = residual - length * system(direction)
            direction = residual + (residual**2).sum() / (last**2).sum() * direction
        shifted = difference(x) + self.w
        self.z = shifted.sign() * (shifted.abs() - self.lam / self.rho).clamp_min(0)
        self.w = shifted - self.z
        return x


def test_a_run_of_mbir_beside_a_plain_one():
    plain, count, snr = Plain(), 6, 0.16
    levels = published.mbir_levels(0.01, 50.0, count)
    denoiser = SliceDenoiser(plain.prior, 9)
    found = published.sample_mbir(
        denoiser, plain.consistency(1), levels, handed_out(plain.noise), snr=snr, slices_per_batch=3, end_on_data=False
    )
    draws = iter(plain.noise)
    x = next(draws) * levels[0][0]
    for sigma, jump in levels:
        x = x + jump**2 * (plain.prior.denoise(x, sigma) - x) / sigma**2 + jump * next(draws)
        score, fresh = (plain.prior.denoise(x, sigma) - x) / sigma**2, next(draws)
        for half in (slice(0, 2), slice(2, 4)):  # 4 slices in sub-batches of 3: 4 // 3 + 1 pieces
            sizes = [t[half].flatten(1).norm(dim=1).mean() for t in (fresh, score)]
            step = 2 * (snr * sizes[0] / sizes[1]) ** 2
            x[half] = x[half] + step * score[half] + (2 * step) ** 0.5 * fresh[half]
        x = plain.admm(x, 1)
    # Levels are float32, as published; the operator's type decides that of the volume.
    assert off(found, x) < 1e-6


def test_a_run_of_dds_beside_a_plain_one_in_its_own_convention():
    """The published run keeps x at variance 1; ours divides it by sqrt(abar)."""
    plain, eta = Plain(), 0.85
    denoiser = SliceDenoiser(plain.prior, 9)
    sigmas = published.dds_sigmas(5)
    found = published.sample_dds(denoiser, plain.consistency(3), sigmas, handed_out(plain.noise), eta=eta)
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    draws = iter(plain.noise)
    x = next(draws)
    for step, following in ((800, 600), (600, 400), (400, 200), (200, 0), (0, -1)):
        scale, level = kept[step] ** 0.5, ((1 - kept[step]) / kept[step]) ** 0.5
        eps = (x / scale - plain.prior.denoise(x / scale, level)) / level
        clean = plain.admm((x - (1 - kept[step]) ** 0.5 * eps) / scale, 3)
        x = clean
        if following > 0:
            spread = (1 - kept[following]) ** 0.5
            x = kept[following] ** 0.5 * clean + spread * (eta * next(draws) + (1 - eta**2) ** 0.5 * eps)
    assert off(found, clean) < 1e-9


# --- masks


def test_distinct_lines_are_as_many_as_asked_for():
    for seed in range(5):
        exact = line_mask(240, acceleration=2, centre_fraction=0.15, seed=seed, distinct=True)
        assert exact.sum() == 120
        assert exact[102:138].all()
    assert line_mask(64, acceleration=4, centre_fraction=0.5).sum() == 32


def test_lines_with_replacement_are_those_of_the_published_code():
    counts = [line_mask(240, acceleration=2, centre_fraction=0.15, seed=seed).sum() for seed in (0, 1, 42)]
    assert counts == [96, 96, 91]


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
