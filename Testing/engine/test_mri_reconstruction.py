"""MRI from simulation to volume: every method, what must not change a result, and what is told to the user."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.denoisers import SliceDenoiser
from DiffusionMBIRLib.denoisers.complex import PartsDenoiser, PhaseDenoiser
from DiffusionMBIRLib.errors import Cancelled
from DiffusionMBIRLib.geometry import CartesianMRI
from DiffusionMBIRLib.methods import DIFFUSION_METHODS, SUPERVISED_METHODS, methods_for
from DiffusionMBIRLib.models import MR_VALUE
from DiffusionMBIRLib.operators.space import Space
from DiffusionMBIRLib.priors.analytic import GaussianPrior
from DiffusionMBIRLib.problems.complex_images import noise_of
from DiffusionMBIRLib.problems.mr import Images
from DiffusionMBIRLib.scans import KSpace
from DiffusionMBIRLib.simulation.mr import smooth_phase
from DiffusionMBIRLib.solvers.sense import middle_of
from DiffusionMBIRLib.tasks import MR_TASK
from Testing.engine.mri import complex_image, head, known_maps, scan, settings, small_prior, two_channel_prior
from Testing.engine.test_reconstruction import Keeper, StopAt


@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m in methods_for(MR_TASK) if m not in SUPERVISED_METHODS])
@pytest.mark.parametrize("coils", [1, 4])
def test_every_method_returns_magnitudes_on_the_inputs_geometry(method, coils):
    if method == "espirit-l1":
        pytest.importorskip("sigpy")
    kspace = scan(coils=coils, noise=0.0)
    kspace = known_maps(kspace) if coils > 1 else kspace
    result = mbir.reconstruct(kspace, prior=small_prior(), settings=settings(method=method))
    assert result.volume.grid == head().grid
    assert result.volume.unit == ""
    assert result.volume.array.dtype == np.float32
    assert (result.nfe > 0) == (method in DIFFUSION_METHODS)
    figures = mbir.evaluate(result.volume, mbir.truth_for(head()))
    assert figures["axial"]["psnr"] > 18
    assert result.provenance["measurement"]["settings"]["coils"] == coils


def test_fully_sampled_data_give_the_volume_back():
    kspace = known_maps(scan(acceleration=1, acs=1.0, noise=0.0))
    result = mbir.reconstruct(kspace, settings=settings(method="sense-cg", cg_lam=0.0))
    np.testing.assert_allclose(result.volume.array, head().array, atol=0.01)
    assert result.residual < 1e-5


def test_measured_data_without_a_noise_level_are_softened_by_their_own():
    told = scan()
    untold = replace(told, noise_std=0.0, provenance={})
    assert told.noise_std < noise_of(untold) < 1.6 * told.noise_std  # what is left of the object adds to it
    assert noise_of(replace(told, noise_std=0.0)) == 0.0  # simulated


def test_many_coils_become_few():
    kspace = scan(coils=8, noise=0.0)
    with torch.inference_mode():
        problems = [
            Images.of(kspace, settings(method="sense-cg", virtual_coils=n), torch.device("cpu")) for n in (5, 0)
        ]
    assert [problem.A.range.shape[1] for problem in problems] == [5, 8]
    few, all_of_them = (
        mbir.reconstruct(kspace, settings=settings(method="sense-cg", virtual_coils=n)).volume.array for n in (5, 0)
    )
    assert np.abs(few - all_of_them).mean() < 0.05 * all_of_them.mean()


def test_coils_below_the_noise_are_left_out_line_by_line_without_loss():
    kspace = known_maps(scan(coils=8))
    images, coils = [], []
    for n in (12, 0):  # 0: all are kept
        chosen = settings(method="dds", virtual_coils=n)
        with torch.inference_mode():
            coils.append(Images.of(kspace, chosen, torch.device("cpu")).A.range.shape[1])
        images.append(complex_image(kspace, small_prior(), method="dds", virtual_coils=n))
    assert coils[0] < coils[1] == 8
    truth = np.abs(head().array) / np.percentile(head().array, 99.5)
    errors = [np.abs(np.abs(image) - truth)[truth > 0.1].mean() for image in images]
    assert errors[0] < 1.02 * errors[1]
    assert np.abs(images[0] - images[1]).mean() < 0.2 * errors[1]


def test_published_preset_runs_from_noise_to_volume():
    small = head((2, 32, 24))
    kspace = mbir.simulate(small, task=MR_TASK, acs=0.15)
    figures = []
    for changes in ({"steps": 20}, {"method": "zero-filled"}):
        result = mbir.reconstruct(kspace, settings=ReconSettings.preset("published-mri", **changes))
        judged = mbir.evaluate(result.volume, mbir.truth_for(small))
        figures.append(judged["coronal"]["psnr"] + judged["sagittal"]["psnr"])
    assert figures[0] > figures[1] + 6


def test_where_no_coil_sees_the_problem_says_so():
    kspace = known_maps(scan())
    assert kspace.maps is not None
    maps = kspace.maps.copy()
    maps[1:3, :, :6] = 0
    blind = (maps == 0).all(1)

    def unseen(kspace):
        with torch.inference_mode():
            return Images.of(kspace, settings(method="dual"), torch.device("cpu")).problem().unseen

    assert unseen(kspace) is None
    assert unseen(scan(coils=1)) is None
    assert np.array_equal(unseen(replace(kspace, maps=maps)), np.broadcast_to(blind, kspace.grid.shape))


# --- what must not change a result


@pytest.mark.parametrize("method", ["dds", "mbir", "admm-tv", "sense-cg"])
def test_the_order_of_the_coils_does_not_matter(method):
    kspace = known_maps(scan())
    assert kspace.maps is not None
    order = [2, 0, 3, 1]
    turned = replace(kspace, data=kspace.data[:, order], maps=kspace.maps[:, order])
    one, other = (complex_image(k, small_prior(), method=method) for k in (kspace, turned))
    np.testing.assert_allclose(one, other, atol=2e-4)


@pytest.mark.parametrize("method", ["admm-tv", "sense-cg", "zero-filled"])
def test_a_global_phase_turns_the_result(method):
    kspace = known_maps(scan())
    turn = np.complex64(np.exp(1.1j))
    one, other = (complex_image(k, None, method=method) for k in (kspace, replace(kspace, data=kspace.data * turn)))
    np.testing.assert_allclose(one * turn, other, atol=1e-4)


def test_with_the_phase_taken_out_a_global_phase_turns_each_denoised_volume():
    volume = torch.randn(2, 16, 16, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    phase = torch.linspace(-3, 3, 512).reshape(2, 16, 16)
    denoiser = SliceDenoiser(small_prior(), 4)
    turn = torch.polar(torch.tensor(1.0), torch.tensor(0.7))
    one = PhaseDenoiser(denoiser, phase, 0.1)(volume, 0.3)
    other = PhaseDenoiser(denoiser, phase + 0.7, 0.1)(volume * turn, 0.3)
    assert torch.allclose(one * turn, other, atol=1e-5)
    assert denoiser.counter.evaluations == 2


def test_a_real_image_stays_real():
    """Without phase, and with symmetric sampling, nothing makes the volume complex."""
    mask = np.zeros(head().grid.in_plane, bool)
    mask[:, 4:21] = mask[:, 1] = mask[:, 23] = True  # symmetric around the middle, 12
    made = mbir.simulate(head(), task=MR_TASK, mask=mask)
    image = complex_image(made, small_prior(), complex_prior="phase")
    truth = head().array
    inside = truth > 0.3 * truth.max()
    assert np.abs(image.imag[inside]).max() < 0.05 * np.abs(image[inside]).max()


def test_scaled_data_give_the_scaled_result():
    kspace = known_maps(scan())
    louder = replace(kspace, data=kspace.data * 1000, noise_std=kspace.noise_std * 1000)
    one, other = (mbir.reconstruct(k, prior=small_prior(), settings=settings()) for k in (kspace, louder))
    np.testing.assert_allclose(other.volume.array, one.volume.array * 1000, rtol=2e-3, atol=50)


@pytest.mark.parametrize("method", ["dds", "score-mri"])
def test_the_seed_decides_and_the_sub_batch_does_not(method):
    kspace, prior = scan(coils=1), small_prior()

    def run(**changes):
        return mbir.reconstruct(kspace, prior=prior, settings=settings(method=method, **changes)).volume.array

    first = run(seed=3)
    np.testing.assert_array_equal(run(seed=3), first)
    np.testing.assert_allclose(run(seed=3, slices_per_batch=1), first, atol=0.1)
    assert np.abs(run(seed=4) - first).max() > 1


@pytest.mark.parametrize(
    ("changes", "moments"),
    [
        ({}, (1, 2)),
        ({"samples": 2, "start": "admm-tv"}, (3, 6, 9)),
        ({"complex_prior": "real-imaginary"}, (1,)),
        ({"method": "mbir"}, (1, 3)),
        ({"method": "score-mri"}, (2,)),
        ({"method": "admm-tv"}, (1, 4)),
        ({"method": "mbir", "published": True}, (1,)),
    ],
)
def test_a_run_that_was_ended_goes_on_to_the_same_volume(changes, moments):
    kspace, prior, chosen = known_maps(scan()), small_prior(sigma_max=200.0), settings(**changes)
    whole = mbir.reconstruct(kspace, prior=prior, settings=chosen)
    for moment in moments:
        keeper, rest = Keeper(), StopAt(-1)
        with pytest.raises(Cancelled):
            mbir.reconstruct(kspace, prior=prior, settings=chosen, monitor=StopAt(moment), checkpoint=keeper)
        assert not any(t.is_complex() for state in keeper.states.values() for t in state.values())
        again = mbir.reconstruct(kspace, prior=prior, settings=chosen, monitor=rest, checkpoint=keeper)
        np.testing.assert_array_equal(again.volume.array, whole.volume.array)
        ticks = StopAt(-1)
        mbir.reconstruct(kspace, prior=prior, settings=chosen, monitor=ticks)
        assert len(rest.stages) <= len(ticks.stages) - moment + 1


# --- complex volumes and priors


def test_the_three_ways_are_what_they_say():
    x = torch.randn(2, 16, 16, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    prior, sigma, phase = small_prior(), 0.4, torch.full((2, 16, 16), 0.6)
    parts = PartsDenoiser(SliceDenoiser(prior, 8))(x, sigma)
    assert torch.equal(parts.real, SliceDenoiser(prior, 8)(x.real.clone(), sigma))
    assert torch.equal(parts.imag, SliceDenoiser(prior, 8)(x.imag.clone(), sigma))
    turned = x * np.exp(-0.6j)
    phased = PhaseDenoiser(SliceDenoiser(prior, 8), phase, 0.3)(x, sigma) * np.exp(-0.6j)
    assert torch.allclose(phased.real, SliceDenoiser(prior, 8)(turned.real.clone(), sigma), atol=1e-5)
    assert torch.allclose(phased.imag, turned.imag * 0.09 / (0.09 + 0.16), atol=1e-6)
    both = two_channel_prior()
    expected = both.denoise(torch.stack((x.real, x.imag), 1), sigma)
    assert torch.equal(torch.view_as_real(SliceDenoiser(both, 8)(x, sigma)).permute(0, 3, 1, 2), expected)


def test_samples_have_the_posterior_mean_of_a_complex_gaussian():
    """A white Gaussian prior on both parts: the data give every sampled mode, the prior's mean every other."""
    mean, deviation = 0.4, 0.1
    prior = GaussianPrior(mean, deviation**2, value=MR_VALUE)
    kspace = mbir.simulate(head((64, 16, 12)), task=MR_TASK, acceleration=2, acs=0.4)
    same = np.repeat(kspace.data[30:31], 64, axis=0)  # one slice, drawn 64 times
    kspace = replace(kspace, data=same)
    changes = {
        "method": "dds",
        "steps": 60,
        "sigma_start": 8.0,
        "sigma_end": 0.002,
        "lam": 0.0,
        "complex_prior": "real-imaginary",
    }
    drawn = complex_image(kspace, prior, start="noise", eta=0.85, **changes)
    problem = Images.of(kspace, settings(method="sense-cg"), torch.device("cpu"))
    scale = problem.unit
    axes = (-2, -1)
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(drawn, axes), norm="ortho"), axes)
    mask = kspace.geometry.mask
    np.testing.assert_allclose(spectrum[:, mask] * scale, same[:, 0][:, mask], atol=2e-3 * np.abs(same).max())
    flat = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(np.full(mask.shape, mean * (1 + 1j))), norm="ortho"))
    free = spectrum[:, ~mask]
    standard_error = deviation * np.sqrt(2 / 64)
    assert np.abs(free.mean(0) - flat[~mask]).max() < 5 * standard_error
    assert 0.5 < np.var(free, axis=0).mean() / (2 * deviation**2) < 1.2


def test_softening_is_the_written_equation():
    from DiffusionMBIRLib.operators import CartesianFourier, SliceDifference
    from DiffusionMBIRLib.solvers.consistency import ZTVConsistency

    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(6, 5, generator=generator) < 0.5
    A = CartesianFourier(mask, (2, 6, 5), dtype=torch.complex128)
    x, truth = (torch.randn(2, 6, 5, dtype=torch.complex128, generator=generator) for _ in range(2))
    y = A.forward(truth)
    difference = SliceDifference(Space((2, 6, 5), torch.complex128))
    step = ZTVConsistency(A, y, difference=difference, rho=0.0, lam=0.0, cg_steps=30, noise=0.06)
    pull = (0.06 / 0.2) ** 2
    # Each Fourier coefficient by itself: (M + pull) c = M y + pull c0.
    spectrum = torch.where(mask, (y[:, 0] + pull * full(x)) / (1 + pull), full(x))
    assert torch.allclose(full(step(x, 0.2)), spectrum, atol=1e-10)
    assert torch.allclose(A.forward(step(x)), y, atol=1e-10)


def full(x):
    from DiffusionMBIRLib.operators.fourier import fft2c

    return fft2c(x)


def test_complex_total_variation_shrinks_magnitudes():
    from DiffusionMBIRLib.solvers.consistency import soft

    x = torch.tensor([3 + 4j, 0.1 + 0.1j, -2.0 + 0j])
    assert torch.allclose(soft(x, 1.0), torch.tensor([2.4 + 3.2j, 0.0, -1.0 + 0j]))


# --- the middle of k-space


def test_the_middle_is_symmetric_and_tapered():
    mask = np.zeros((20, 24), bool)
    mask[:, 8:16] = True  # one line more below the centre, 12, than above it
    data = np.ones((1, 2, 20, 24), np.complex64)
    plain, tapered = (middle_of(data, CartesianMRI(mask, 2), tapered=t)[0, 0] for t in (False, True))
    assert np.flatnonzero(plain[10]).tolist() == list(range(9, 16))
    assert np.flatnonzero(tapered[10]).tolist() == list(range(9, 16))
    assert np.flatnonzero(plain[:, 12]).tolist() == list(range(1, 20))
    assert np.flatnonzero(tapered[:, 12]).tolist() == list(range(4, 17))
    np.testing.assert_allclose(tapered[10, 9:16].real, np.cos(np.pi * np.arange(-3, 4) / 8), atol=1e-6)
    for window in (plain, tapered):
        image = np.fft.ifft2(np.fft.ifftshift(window))
        assert np.abs(image.imag).max() < 1e-7 * np.abs(image).max()


def test_the_phase_and_what_it_leaves_are_measured():
    """A known smooth phase and no noise: most of it is found, and what is not is measured as it is."""
    volume = head((3, 64, 48))
    kspace = mbir.simulate(volume, task=MR_TASK, acceleration=2, acs=0.4, phase=True, seed=2)
    assert isinstance(kspace, KSpace)
    problem = Images.of(kspace, settings(method="sense-cg"), torch.device("cpu"))
    truth = torch.from_numpy(volume.array.astype(np.float32) * np.exp(1j * smooth_phase(volume.grid, 2)) / problem.unit)
    phase = problem.phase()
    left = (truth * torch.polar(torch.ones_like(phase), -phase)).imag.square().mean().sqrt()
    assert float(left) < 0.05 * float(truth.abs().square().mean().sqrt())
    assert problem._remainder(phase) == pytest.approx(float(left), rel=0.3)
    assert problem.unit == pytest.approx(np.percentile(volume.array, 99.5), rel=0.05)
