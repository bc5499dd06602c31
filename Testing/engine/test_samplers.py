"""Samplers against a prior whose posterior is known in closed form, and what every run must keep to."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from DiffusionMBIRLib.denoisers import SliceDenoiser
from DiffusionMBIRLib.errors import Cancelled, EngineError
from DiffusionMBIRLib.operators import SliceDifference
from DiffusionMBIRLib.operators.space import Space
from DiffusionMBIRLib.priors.analytic import GaussianPrior
from DiffusionMBIRLib.samplers import dds, dual, predictor_corrector
from DiffusionMBIRLib.samplers.noise import CORRECTOR, PREDICTOR, START, Noise
from DiffusionMBIRLib.samplers.schedules import geometric_sigmas, karras_sigmas
from DiffusionMBIRLib.solvers.consistency import ZTVConsistency
from Testing.engine.sampling import Keeper, NoData, Recorder, Sampler, Scan, SliceMatrix, network, seeded

SAMPLERS: dict[str, Sampler] = {
    "dds": partial(dds.sample, eta=0.85),
    "dual": partial(dual.sample, damping=0.5),
    "dual, two": partial(dual.sample, damping=0.5, relaxation=1.6, antithetic=True),
    "mbir": predictor_corrector.sample,
    "mbir-slow": partial(predictor_corrector.sample, share_variables=False),
}


# --- the posterior in closed form

IN_PLANE = (6, 5)
PIXELS = 30
DRAWS = 600


def measured_pixels() -> Tensor:
    return torch.eye(PIXELS, dtype=torch.float64)[::3]


def mixtures() -> Tensor:
    """Ten orthonormal combinations of all pixels."""
    noise = torch.randn(PIXELS, 10, generator=seeded(4), dtype=torch.float64)
    return torch.linalg.qr(noise)[0].T


def posterior(prior: GaussianPrior, matrix: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of x ~ N(mean, C) given matrix x = y exactly."""
    units = torch.eye(PIXELS, dtype=torch.float64).reshape(PIXELS, *IN_PLANE)
    covariance = torch.fft.ifft2(torch.fft.fft2(units) * prior.spectrum).real.reshape(PIXELS, PIXELS)
    mean = prior.mean.expand(IN_PLANE).reshape(-1)
    gain = covariance @ matrix.T @ torch.linalg.inv(matrix @ covariance @ matrix.T)
    return mean + gain @ (y - matrix @ mean), covariance - gain @ matrix @ covariance


EXACT: dict[str, tuple[Sampler, list[float], tuple[float, float]]] = {
    # name: sampler, schedule, bounds on the variance over that of the posterior.  Fresh noise narrows dds' spread, the
    # corrector's finite steps widen mbir's.
    "dds, no fresh noise": (partial(dds.sample, eta=0.0), karras_sigmas(0.002, 10.0, 300), (0.9, 1.1)),
    "dds": (partial(dds.sample, eta=0.85), karras_sigmas(0.002, 10.0, 300), (0.65, 0.9)),
    "mbir": (predictor_corrector.sample, geometric_sigmas(0.002, 10.0, 800), (0.95, 1.25)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("matrix", [measured_pixels(), mixtures()], ids=["measured pixels", "mixtures"])
def test_samples_have_the_posterior_mean_and_spread(name, matrix):
    """Each slice is a draw: they share the data, and nothing couples them."""
    sampler, sigmas, bounds = EXACT[name]
    prior = GaussianPrior.smooth(IN_PLANE, mean=0.4, deviation=0.2, length_px=0.8)
    truth = prior.draw((1, 1, *IN_PLANE), seeded(0)).reshape(-1)
    mean, covariance = posterior(prior, matrix, matrix @ truth)
    A = SliceMatrix(matrix, (DRAWS, *IN_PLANE))
    difference = SliceDifference(A.domain)
    y = (matrix @ truth).expand(A.range.shape).clone()
    consistency = ZTVConsistency(A, y, difference=difference, rho=0.0, lam=0.0, cg_steps=4)
    start = torch.zeros(A.domain.shape, dtype=torch.float64)
    drawn = sampler(SliceDenoiser(prior, DRAWS), consistency, sigmas, start, Noise(A.domain, 1)).reshape(DRAWS, -1)
    error = torch.linalg.vector_norm(drawn.mean(0) - mean) / math.sqrt(PIXELS)
    assert float(error) < 0.08 * 0.2  # of the prior's standard deviation; the prior's own mean is 0.7 of it away
    assert bounds[0] < float(drawn.var(0).sum() / covariance.diagonal().sum()) < bounds[1]
    assert torch.allclose(drawn @ matrix.T, y, atol=1e-9)


# --- the updates, written out


def white_runs(sampler: Sampler, sigmas: list[float]) -> tuple[Tensor, GaussianPrior, Noise]:
    """A run without data, its prior, and the noise that it drew."""
    prior, start = GaussianPrior(0.3, 0.04), torch.zeros(2, 4, 3, dtype=torch.float64)
    noise = Noise(Space(start.shape, start.dtype), 5)
    return sampler(SliceDenoiser(prior, 9), NoData(), sigmas, start, noise), prior, noise


def test_dds_is_the_written_update():
    eta, sigmas = 0.6, [2.0, 0.9, 0.5, 0.1]
    result, prior, noise = white_runs(partial(dds.sample, eta=eta), sigmas)
    x = sigmas[0] * noise(0, START)
    for k, (sigma, lower) in enumerate(pairwise(sigmas), start=1):
        clean = prior.denoise(x, sigma)
        seen = (x - clean) / sigma
        x = clean + lower * (math.sqrt(1 - eta**2) * seen + eta * noise(k))
    assert torch.allclose(result, prior.denoise(x, sigmas[-1]), atol=1e-12)


def test_extrapolation_adds_to_what_each_level_changed():
    share, sigmas = 0.4, [2.0, 0.9, 0.5, 0.1]
    result, prior, noise = white_runs(partial(dds.sample, eta=1.0, extrapolation=share), sigmas)
    x, last = sigmas[0] * noise(0, START), None
    for k, (sigma, lower) in enumerate([*pairwise(sigmas), (sigmas[-1], 0.0)], start=1):
        denoised = prior.denoise(x, sigma)
        clean = denoised if last is None else denoised + share * (denoised - last)
        x, last = clean + lower * noise(k) if lower else clean, denoised
    assert torch.allclose(result, x, atol=1e-12)


def test_mbir_is_the_written_update():
    snr, sigmas = 0.2, [2.0, 0.9, 0.5, 0.1]
    result, prior, noise = white_runs(partial(predictor_corrector.sample, snr=snr), sigmas)

    def score(x: Tensor, sigma: float) -> Tensor:
        return (prior.denoise(x, sigma) - x) / sigma**2

    x = sigmas[0] * noise(0, START)
    for k, (sigma, lower) in enumerate([*pairwise(sigmas), (sigmas[-1], sigmas[-1])]):
        if lower < sigma:
            step = sigma**2 - lower**2
            x = x + step * score(x, sigma) + math.sqrt(step) * noise(k, PREDICTOR)
        ascent, fresh = score(x, lower), noise(k, CORRECTOR)
        for n in range(len(x)):  # the corrector's step is each slice's own
            size = 2 * (snr * fresh[n].norm() / ascent[n].norm()) ** 2
            x[n] = x[n] + size * ascent[n] + (2 * size).sqrt() * fresh[n]
    assert torch.allclose(result, prior.denoise(x, sigmas[-1]), atol=1e-12)


# --- runs on a scan


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_result_fits_noiseless_data(name):
    scan = Scan(lam=0.0)
    consistency = scan.consistency(cg_steps=25)
    x = SAMPLERS[name](
        SliceDenoiser(scan.prior, 9), consistency, scan.sigmas, torch.zeros(scan.shape), Noise(scan.A.domain, 0)
    )
    ends_on_denoised = name.startswith("dual")
    assert consistency.residual(x) < (0.02 if ends_on_denoised else 1e-3)
    assert consistency.residual(torch.zeros_like(x)) == pytest.approx(1.0)
    coupled = Scan(lam=1e-4)
    assert coupled.consistency().residual(coupled.run(SAMPLERS[name])) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_seed_is_the_result(name):
    scan = Scan()
    first = scan.run(SAMPLERS[name], seed=3)
    assert torch.equal(scan.run(SAMPLERS[name], seed=3), first)
    # Noise and its negative cancel in the toy's affine prior: the mean of all that fits, whatever the seed.
    assert torch.allclose(scan.run(SAMPLERS[name], seed=4), first, atol=1e-3) == (name == "dual, two")


@pytest.mark.parametrize("name", SAMPLERS)
def test_sub_batches_change_nothing(name):
    scan, prior = Scan(), network()
    white = GaussianPrior(0.5, 0.04)
    for batch in (1, 3):
        assert torch.equal(scan.run(SAMPLERS[name], batch=batch, prior=white), scan.run(SAMPLERS[name], prior=white))
        few, all_at_once = (scan.run(SAMPLERS[name], batch=n, prior=prior) for n in (batch, 100))
        assert torch.allclose(few, all_at_once, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 7, 9), (3, 13, 6), (2, 1, 5)])
def test_any_size_runs(name, shape):
    scan = Scan(shape)
    for prior in (scan.prior, network()):
        x = scan.run(SAMPLERS[name], prior=prior)
        assert x.shape == shape
        assert torch.isfinite(x).all()


@pytest.mark.parametrize(
    ("name", "evaluations"),
    [("dds", 8), ("dual", 8), ("dual, two", 16), ("mbir", 16), ("mbir-slow", 16)],
)
def test_evaluations_are_those_promised(name, evaluations):
    scan = Scan()
    denoiser = SliceDenoiser(scan.prior, 2)
    SAMPLERS[name](denoiser, scan.consistency(), scan.sigmas, torch.zeros(scan.shape), Noise(scan.A.domain, 0))
    assert denoiser.counter.evaluations == evaluations


@pytest.mark.parametrize("name", SAMPLERS)
def test_arguments_are_left_alone(name):
    scan = Scan()
    start = torch.rand(scan.shape)
    kept, sigmas = start.clone(), list(scan.sigmas)
    SAMPLERS[name](SliceDenoiser(scan.prior, 9), scan.consistency(), sigmas, start, Noise(scan.A.domain, 0))
    assert torch.equal(start, kept)
    assert sigmas == scan.sigmas


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_warm_start_keeps_what_the_data_do_not_show(name):
    """At a low first level the result stays by its start, where from noise it is the prior's."""
    scan = Scan(views=2, lam=0.0)
    low = karras_sigmas(0.01, 0.02, 4)
    x = SAMPLERS[name](SliceDenoiser(scan.prior, 9), scan.consistency(), low, scan.truth, Noise(scan.A.domain, 0))
    cold = scan.run(SAMPLERS[name])
    assert float((x - scan.truth).square().mean()) < 0.1 * float((cold - scan.truth).square().mean())


# --- memory that runs out


class Limited:
    """A prior that has memory for a few slices at once."""

    def __init__(self, most: int, error: type[BaseException] = torch.OutOfMemoryError) -> None:
        self.prior, self.most, self.error = GaussianPrior(0.5, 0.04), most, error
        self.card, self.sigma_min, self.sigma_max = self.prior.card, self.prior.sigma_min, self.prior.sigma_max
        self.slices = 0

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        if len(x) > self.most:
            raise self.error("CUDA out of memory")
        self.slices += len(x)
        return self.prior.denoise(x, sigma)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
@pytest.mark.parametrize("name", ["dds", "dual", "mbir"])
def test_a_sub_batch_that_does_not_fit_is_halved(name, error):
    scan, limited = Scan((7, 6, 6)), Limited(2, error)
    expected = scan.run(SAMPLERS[name], prior=limited.prior)
    denoiser = SliceDenoiser(limited, 7)
    x = SAMPLERS[name](denoiser, scan.consistency(), scan.sigmas, torch.zeros(scan.shape), Noise(scan.A.domain, 0))
    assert torch.equal(x, expected)
    assert denoiser.slices_per_batch <= 2
    assert limited.slices == 7 * denoiser.counter.evaluations  # nothing was computed twice


@pytest.mark.parametrize("name", ["dds", "dual", "mbir"])
def test_one_slice_that_does_not_fit_ends_the_run(name):
    with pytest.raises(EngineError, match="no memory for one slice of 6 x 6"):
        Scan((3, 6, 6)).run(SAMPLERS[name], prior=Limited(0))


def test_other_errors_of_a_prior_pass_through():
    class Broken(Limited):
        def denoise(self, x: Tensor, sigma: float) -> Tensor:
            raise RuntimeError("weights do not fit")

    with pytest.raises(RuntimeError, match="weights do not fit"):
        Scan((3, 6, 6)).run(SAMPLERS["dds"], prior=Broken(1))


# --- monitors and variables


@pytest.mark.parametrize(("name", "steps"), [("dds", 8), ("dual", 8), ("mbir", 9), ("mbir-slow", 9)])
def test_a_monitor_sees_every_step_and_may_end_the_run(name, steps):
    scan, watcher = Scan(), Recorder()
    x = scan.run(SAMPLERS[name], monitor=watcher)
    assert watcher.ticks == [("diffusion", k + 1, steps) for k in range(steps)]
    assert watcher.previews == list(range(1, steps + 1))
    assert torch.equal(x, scan.run(SAMPLERS[name]))
    impatient = Recorder(stop_at=3)
    with pytest.raises(Cancelled, match="enough"):
        scan.run(SAMPLERS[name], monitor=impatient)
    assert len(impatient.ticks) == 3


class Counting(ZTVConsistency):
    """Notes at each call whether it starts with the variables of an earlier one."""

    def __call__(self, x: Tensor, sigma: float | None = None) -> Tensor:
        self.carried = [*getattr(self, "carried", []), self.w is not None]
        return super().__call__(x, sigma)


@pytest.mark.parametrize("name", SAMPLERS)
def test_only_the_slow_algorithm_starts_each_step_afresh(name):
    scan = Scan(lam=1e-3)
    consistency = scan.consistency(Counting)
    SAMPLERS[name](
        SliceDenoiser(scan.prior, 9), consistency, scan.sigmas, torch.zeros(scan.shape), Noise(scan.A.domain, 0)
    )
    assert isinstance(consistency, Counting)
    later = name != "mbir-slow"
    assert consistency.carried == [False] + [later] * (len(consistency.carried) - 1)
    assert len(consistency.carried) == len(scan.sigmas) + name.startswith("mbir")


# --- states


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("stop_at", [1, 5])
def test_a_run_that_was_ended_goes_on_to_the_same_volume(name, stop_at):
    whole = Scan().run(SAMPLERS[name])
    keeper = Keeper()
    with pytest.raises(Cancelled):
        Scan().run(SAMPLERS[name], monitor=Recorder(stop_at), checkpoint=keeper)
    assert int(keeper.states["diffusion"]["done"]) == stop_at
    rest = Recorder()
    again = Scan().run(SAMPLERS[name], monitor=rest, checkpoint=keeper)
    assert torch.equal(again, whole)
    assert rest.ticks[0][1] == stop_at + 1
