"""The dual-coupled sampler against the ADMM that it is without noise, and the noise that completes a spectrum."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from DiffusionMBIRLib.denoisers import SliceDenoiser
from DiffusionMBIRLib.operators import SliceDifference
from DiffusionMBIRLib.operators.space import Space
from DiffusionMBIRLib.priors.analytic import GaussianPrior
from DiffusionMBIRLib.samplers import dual
from DiffusionMBIRLib.samplers.noise import Noise
from DiffusionMBIRLib.samplers.schedules import geometric_sigmas, karras_sigmas, usual_relaxation
from DiffusionMBIRLib.samplers.spectrum import LEAST, completed, power, smoothed
from DiffusionMBIRLib.solvers.consistency import ZTVConsistency
from Testing.engine.sampling import SliceMatrix, seeded

# --- without noise: the ADMM of min 1/2 |y - A x|^2 + lam |D x|_1 - noise^2 ln p(v), x = v

SHAPE, PIXELS = (3, 4, 5), 20
NOISE, RHO = 0.2, 0.05


class Joint:
    """Random data of a random matrix, a Gaussian prior, and the ADMM of the joint problem as dense matrices."""

    def __init__(self, lam: float) -> None:
        self.lam = lam
        matrix = torch.randn(9, PIXELS, generator=seeded(1), dtype=torch.float64) / 6
        self.A = SliceMatrix(matrix, SHAPE)
        self.y = torch.randn(self.A.range.shape, generator=seeded(2), dtype=torch.float64)
        self.prior = GaussianPrior.smooth(SHAPE[1:], mean=0.4, deviation=0.3, length_px=0.8)
        self.start = torch.rand(SHAPE, generator=seeded(3), dtype=torch.float64)
        units = torch.eye(PIXELS, dtype=torch.float64).reshape(PIXELS, *SHAPE[1:])
        covariance = torch.fft.ifft2(torch.fft.fft2(units) * self.prior.spectrum).real.reshape(PIXELS, PIXELS)
        each = torch.eye(SHAPE[0], dtype=torch.float64)
        self.data = torch.kron(each, matrix)
        self.precision = torch.kron(each, torch.linalg.inv(covariance).contiguous())
        across = each[1:] - each[:-1]
        self.D = torch.kron(across, torch.eye(PIXELS, dtype=torch.float64))

    def sampled(self, sigmas: list[float], damping: float = 2.0, **options: float) -> Tensor:
        difference, cg_steps = SliceDifference(self.A.domain), 70 if self.lam else 12
        step = ZTVConsistency(
            self.A, self.y, difference=difference, rho=RHO, lam=self.lam, cg_steps=cg_steps, noise=NOISE
        )
        denoiser, noise = SliceDenoiser(self.prior, 9), Noise(self.A.domain, 4)
        options = {"damping": damping, "temperature": 0.0, **options}
        return dual.sample(denoiser, step, sigmas, self.start, noise, **options).flatten()

    def sweeps(self, sigmas: list[float], relaxation: float = 1.0) -> Tensor:
        """v of sweeps of ADMM with penalties RHO for z = D x and NOISE^2 / sigma^2 for v = x; p is the dual itself."""
        unit, split = torch.eye(self.data.shape[1], dtype=torch.float64), self.lam > 0
        across = RHO * self.D.T @ self.D if split else 0
        v, p, z = self.start.flatten(), torch.zeros(len(unit), dtype=torch.float64), self.D @ unit[0] * 0
        w = z.clone()
        for sigma in sigmas:
            penalty = (NOISE / sigma) ** 2
            right = self.data.T @ self.y.flatten() + penalty * v - p + (RHO * self.D.T @ (z - w) if split else 0)
            x = torch.linalg.solve(self.data.T @ self.data + penalty * unit + across, right)
            slope = self.D @ x + w
            z = slope.sign() * (slope.abs() - self.lam / RHO).clamp(min=0)
            w = slope - z
            x = relaxation * x + (1 - relaxation) * v
            pulled = NOISE**2 * self.precision @ torch.full_like(v, 0.4) + penalty * x + p
            v = torch.linalg.solve(NOISE**2 * self.precision + penalty * unit, pulled)
            p = p + penalty * (x - v)
        return v


@pytest.mark.parametrize("lam", [0.0, 0.02])
@pytest.mark.parametrize("sigmas", [[0.3], [0.3, 0.3], [0.4, 0.25, 0.2, 0.15]], ids=str)
@pytest.mark.parametrize("relaxation", [1.0, 1.6])
def test_levels_without_noise_are_sweeps_of_the_joint_admm(lam, sigmas, relaxation):
    joint = Joint(lam)
    found = joint.sampled(sigmas, relaxation=relaxation)
    assert torch.allclose(found, joint.sweeps(sigmas, relaxation), atol=1e-9)
    assert torch.allclose(found, joint.sweeps(sigmas)) == (relaxation == 1.0)


def test_antithetic_noise_leaves_a_denoiser_that_is_affine_as_without_noise():
    """The mean of D(a + n) and D(a - n) is D(a) there, whatever the noise."""
    joint, sigmas = Joint(0.02), [0.4, 0.25, 0.15]
    found = joint.sampled(sigmas, temperature=1.0, antithetic=True)
    assert torch.allclose(found, joint.sampled(sigmas), atol=1e-12)
    assert not torch.allclose(joint.sampled(sigmas, temperature=1.0), found, atol=1e-2)


def test_many_levels_without_noise_end_at_the_posterior_mean():
    joint = Joint(0.0)
    system = joint.data.T @ joint.data / NOISE**2 + joint.precision
    right = joint.data.T @ joint.y.flatten() / NOISE**2 + joint.precision @ torch.full((60,), 0.4, dtype=torch.float64)
    mean = torch.linalg.solve(system, right)
    assert torch.allclose(joint.sampled([0.3] * 100), mean, atol=1e-6)
    forgetful = joint.sampled([0.3 * 0.9**k for k in range(100)], damping=1e9)
    assert not torch.allclose(forgetful, mean, atol=1e-2)  # the dual is what leads there


# --- where the data do not depend on a voxel


@pytest.mark.parametrize("relaxation", [1.0, 1.6])
def test_unseen_voxels_follow_the_probability_flow_however_many_levels(relaxation):
    # Of a white prior N(m, d^2) the flow from v at sigma_0 ends at m + (v - m) sqrt((d^2 + end^2) / (d^2 + sigma_0^2)).
    joint, mean, deviation = Joint(0.0), 0.4, 0.3
    joint.prior = GaussianPrior(mean, deviation**2)
    joint.A.matrix[:, ::3] = 0
    unseen = (torch.arange(PIXELS) % 3 == 0).reshape(SHAPE[1:]).expand(SHAPE)
    first, last = 0.8, 0.02
    expected = mean + (joint.start - mean) * ((deviation**2 + last**2) / (deviation**2 + first**2)) ** 0.5

    def error(levels: int) -> float:
        found = joint.sampled(geometric_sigmas(last, first, levels), relaxation=relaxation, unseen=unseen)
        return float((found.reshape(SHAPE) - expected)[unseen].abs().max())

    few, many = error(40), error(160)
    assert many < 0.3 * few
    assert many < 0.01


# --- how far samples spread


@pytest.mark.parametrize(
    ("temperature", "variance"), [(0.7, (0.1, 0.25)), (1.0, (0.3, 0.5)), (2**0.5, (0.75, 1.0))], ids=str
)
def test_samples_spread_as_the_posterior_does_at_the_temperature_of_langevin_dynamics(temperature, variance):
    """Each slice is a draw: they share noisy data of a third of the pixels' number, and nothing couples them."""
    draws, side, noise = 300, 6, 0.1
    prior = GaussianPrior.smooth((side, side), mean=0.5, deviation=0.2, length_px=1.0)
    pixels = side * side
    matrix = torch.randn(12, pixels, generator=seeded(1), dtype=torch.float64)
    matrix /= torch.linalg.matrix_norm(matrix, 2)
    truth = prior.draw((1, 1, side, side), seeded(3)).flatten()
    y = matrix @ truth + noise * torch.randn(12, generator=seeded(5), dtype=torch.float64)
    units = torch.eye(pixels, dtype=torch.float64).reshape(pixels, side, side)
    covariance = torch.fft.ifft2(torch.fft.fft2(units) * prior.spectrum).real.reshape(pixels, pixels)
    gain = torch.linalg.inv(matrix @ covariance @ matrix.T + noise**2 * torch.eye(12)).T @ matrix @ covariance
    mean, spread = 0.5 + gain.T @ (y - 0.5 * matrix.sum(1)), covariance - gain.T @ matrix @ covariance
    A = SliceMatrix(matrix, (draws, side, side))
    step = ZTVConsistency(
        A, y.expand(draws, 12).clone(), difference=SliceDifference(A.domain), rho=0, lam=0, cg_steps=12, noise=noise
    )
    drawn = dual.sample(
        SliceDenoiser(prior, draws), step, karras_sigmas(0.01, 0.4, 20), torch.full(A.domain.shape, 0.5).double(),
        Noise(A.domain, 7), damping=2.0, temperature=temperature,
    ).reshape(draws, pixels)  # fmt: skip
    assert variance[0] < float(drawn.var(0).sum() / spread.diagonal().sum()) < variance[1]
    assert float((drawn.mean(0) - mean).norm() / mean.norm()) < 0.03


# --- the noise that completes a spectrum


def white(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return Space(shape, dtype).noise(seed)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("size", [(48, 24), (45, 9)])
def test_noise_has_the_variance_that_the_error_lacks(dtype, size):
    sigma, shape = 0.5, (400, *size)
    low = torch.fft.fftfreq(size[0], dtype=torch.float64)[:, None].abs() < 0.25
    gain = 0.9 * sigma * low.double().expand(size)
    error = torch.fft.ifft2(torch.fft.fft2(white(shape, 1, dtype)) * gain)
    error = error if dtype.is_complex else error.real  # the gain of a frequency is that of its negative
    still = torch.zeros(shape, dtype=dtype)
    added = completed(still, error, white(shape, 2, dtype), sigma)
    asked = (sigma**2 - smoothed(gain**2)).clamp(min=LEAST * sigma**2)
    assert torch.allclose(smoothed(power(added)), smoothed(asked), rtol=0.02, atol=0.02 * sigma**2)
    assert asked.min() < 0.3 * sigma**2 < 0.9 * sigma**2 < asked.max()


def test_an_error_above_the_level_is_given_next_to_nothing():
    shape, sigma = (30, 16, 16), 0.1
    x, error = white(shape, 3), 5 * sigma * white(shape, 4)
    added = completed(x, error, white(shape, 5), sigma) - x
    assert float(added.square().mean()) == pytest.approx(LEAST * sigma**2, rel=0.1)


def test_a_complex_error_in_both_parts_is_completed_as_a_real_one():
    shape, sigma = (6, 14, 12), 0.4
    error, noise = 0.7 * sigma * white(shape, 6), white(shape, 7)
    real = completed(torch.zeros(shape, dtype=torch.float64), error, noise.clone(), sigma)
    both = completed(
        torch.zeros(shape, dtype=torch.complex128), torch.complex(error, error), torch.complex(noise, 0 * noise), sigma
    )
    assert torch.allclose(both.real, real, atol=1e-12)
    assert float(both.imag.abs().max()) < 1e-12


def test_the_smallest_images_have_a_spectrum():
    for size in ((1, 1), (1, 5), (4, 3)):
        x = completed(white((2, *size), 8), white((2, *size), 9), white((2, *size), 10), 0.3)
        assert torch.isfinite(x).all()
        assert torch.allclose(smoothed(torch.ones(size)), torch.ones(size))


@pytest.mark.parametrize("shape", [(3, 6, 8), (2, 7, 9), (2, 6, 5)])
def test_half_a_spectrum_tells_the_whole_power(shape):
    """Of real volumes only half is transformed; the whole of the same volume as a complex one has its power in two
    parts.
    """
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(power(x), 2 * power(x.to(torch.complex128)), rtol=1e-12)


def test_fewer_views_are_relaxed_further():
    found = [usual_relaxation(views) for views in (0, 4, 8, 24, 60)]
    assert found[0] == 1.0  # k-space has none
    assert found[1] == found[2] > found[3] > found[4] > 1.0
