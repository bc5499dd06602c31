"""PSNR and SSIM against scikit-image, planes, grids and bad input."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy.stats import t as student

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import Grid
from DiffusionMBIRLib.metrics import _student_interval, evaluate, per_plane, psnr, ssim, uncertainty, uncertainty_text
from DiffusionMBIRLib.volume import Volume


def pair(shape: tuple[int, ...], seed: int = 0, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.normal(size=shape).cumsum(axis=-1).cumsum(axis=-2) + offset
    return truth + generator.normal(size=shape), truth


def volume(array: np.ndarray, spacing_mm=(1.0, 1.0, 1.0), name: str = "v", **options) -> Volume:
    return Volume(array, Grid(array.shape, spacing_mm, **options), name=name)


@pytest.mark.parametrize("shape", [(64, 64), (11, 11), (33, 47), (12, 90)])
@pytest.mark.parametrize("offset", [0.0, -1000.0])
def test_matches_scikit_image(shape, offset):
    skimage = pytest.importorskip("skimage.metrics")
    image, truth = pair(shape, offset=offset)
    extent = float(np.ptp(truth))
    expected = skimage.structural_similarity(
        truth, image, data_range=extent, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(image, truth, extent) == pytest.approx(expected, abs=1e-8)
    assert psnr(image, truth, extent) == pytest.approx(
        skimage.peak_signal_noise_ratio(truth, image, data_range=extent), abs=1e-9
    )


def test_planes_match_scikit_image():
    skimage = pytest.importorskip("skimage.metrics")
    image, truth = pair((14, 20, 26))
    result = per_plane(image.astype(np.float32), truth.astype(np.float32))
    extent = result["data_range"]
    assert extent == pytest.approx(np.ptp(truth.astype(np.float32)))
    for axis, plane in enumerate(("axial", "coronal", "sagittal")):
        slices = [(np.take(truth, k, axis), np.take(image, k, axis)) for k in range(truth.shape[axis])]
        levels = [skimage.peak_signal_noise_ratio(t, i, data_range=extent) for t, i in slices]
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        similar = [skimage.structural_similarity(t, i, data_range=extent, **options) for t, i in slices]
        assert result[plane]["psnr"] == pytest.approx(np.mean(levels), abs=1e-5)
        assert result[plane]["ssim"] == pytest.approx(np.mean(similar), abs=1e-6)


def test_known_values_without_scikit_image():
    truth = np.zeros((16, 16))
    assert psnr(truth + 0.1, truth, 1.0) == pytest.approx(20.0)
    # Without variance only the luminance term is left: C1 / (0.1^2 + C1).
    assert ssim(truth + 0.1, truth, 1.0) == pytest.approx(1e-4 / (0.01 + 1e-4))
    assert ssim(truth, truth, 1.0) == 1.0
    assert psnr(truth, truth, 1.0) == math.inf


def test_invariances():
    image, truth = pair((20, 24))
    extent = float(np.ptp(truth))
    assert ssim(truth, image, extent) == pytest.approx(ssim(image, truth, extent), abs=1e-12)
    assert ssim(image.T, truth.T, extent) == pytest.approx(ssim(image, truth, extent), abs=1e-12)
    assert ssim(3 * image, 3 * truth, 3 * extent) == pytest.approx(ssim(image, truth, extent), abs=1e-12)
    assert psnr(3 * image + 7, 3 * truth + 7, 3 * extent) == pytest.approx(psnr(image, truth, extent), abs=1e-9)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (5, 40), (10, 10)])
def test_sides_shorter_than_the_window(shape):
    image, truth = pair(shape)
    assert ssim(truth, truth, 1.0) == pytest.approx(1.0)
    assert -1 <= ssim(image, truth, 1.0) < 1


def test_slices_without_error_do_not_flatter():
    image, truth = pair((4, 16, 16))
    extent = float(np.ptp(truth))
    expected = np.mean([psnr(image[k], truth[k], extent) for k in (1, 2, 3)])
    image[0] = truth[0]
    result = per_plane(image, truth, data_range=extent)
    assert result["axial"]["psnr"] == pytest.approx(expected)
    assert per_plane(truth, truth)["sagittal"] == {"psnr": math.inf, "ssim": pytest.approx(1.0)}


def test_inputs_are_not_changed_and_integers_work():
    image, truth = (np.round(100 * a).astype(np.int16) for a in pair((3, 12, 12)))
    before = image.copy()
    assert per_plane(image, truth)["axial"]["psnr"] > 0
    assert np.array_equal(image, before)


def test_bad_input_is_named():
    a = np.zeros((4, 4))
    with pytest.raises(InputError, match=r"\(4, 4\).*\(4, 5\)"):
        psnr(a, np.zeros((4, 5)), 1.0)
    with pytest.raises(InputError, match="image: 1 of 16"):
        ssim(np.where(np.eye(4, k=3) > 0, np.nan, a), a, 1.0)
    with pytest.raises(InputError, match="truth: 1 of 64"):
        per_plane(np.zeros((4, 4, 4)), np.where(np.arange(64).reshape(4, 4, 4) == 5, np.inf, 0.0))
    with pytest.raises(InputError, match="data_range"):
        psnr(a, a, 0.0)
    with pytest.raises(InputError, match="one value everywhere"):
        per_plane(np.zeros((4, 4, 4)), np.zeros((4, 4, 4)))
    with pytest.raises(InputError, match="two axes"):
        ssim(np.zeros((4, 4, 4)), np.zeros((4, 4, 4)), 1.0)
    with pytest.raises(InputError, match="2 axes"):
        per_plane(a, a)
    with pytest.raises(InputError, match="empty"):
        psnr(np.zeros((0, 3)), np.zeros((0, 3)), 1.0)


def test_speed_on_the_benchmark_size():
    image, truth = pair((48, 128, 128))
    started = time.thread_time()
    per_plane(image, truth)
    assert time.thread_time() - started < 5  # about half a second; the bound leaves room for a busy machine


def test_evaluate_on_the_same_grid_in_another_axis_order():
    image, truth = pair((12, 16, 20))
    plain = evaluate(volume(image), volume(truth))
    assert plain["reference"] == "as is"
    assert len(plain.pop("remarks")) == 2  # noise about zero claims to be HU
    assert plain == per_plane(image, truth) | {"reference": "as is"}
    # The same truth, stored with its slices upside down.
    flipped = volume(truth[::-1].copy(), origin_mm=(0, 0, 11), direction=(1, 0, 0, 0, 1, 0, 0, 0, -1))
    assert {**evaluate(volume(image), flipped), "remarks": []} == {**plain, "remarks": []}


def test_evaluate_averages_a_finer_reference():
    _, truth = pair((3, 24, 36))
    fine = volume(truth.astype(np.float32), (0.5, 0.5, 2.0))
    coarse = fine.coarsened(3)
    result = evaluate(Volume(coarse.array + 1, coarse.grid), fine)
    assert result["reference"] == "block mean x3"
    assert result["axial"]["psnr"] == pytest.approx(20 * math.log10(result["data_range"]), abs=1e-3)


def test_evaluate_resamples_another_grid():
    ramp = np.broadcast_to(np.arange(15.0) * 2, (4, 15, 15)).copy()
    reference = volume(ramp, (2.0, 2.0, 1.0), origin_mm=(1.0, 1.0, 0.0))
    here = np.broadcast_to(np.arange(10) * 3 + 0.5, (4, 10, 10)).copy()
    recon = volume(here, (3.0, 3.0, 1.0), origin_mm=(1.5, 1.5, 0.0))
    result = evaluate(recon, reference)
    assert result["reference"] == "resampled"
    assert result["axial"]["psnr"] > 100


def test_evaluate_refuses_other_regions_and_units():
    image, truth = pair((4, 16, 16))
    with pytest.raises(InputError, match=r"recon.nrrd has 16 x 16 x 4 voxels of 1 x 1 x 1 mm.*apart"):
        evaluate(volume(image, name="recon.nrrd"), volume(truth, (1.0, 1.0, 2.0)))
    with pytest.raises(InputError, match="unit"):
        evaluate(volume(image), Volume(truth, Grid(truth.shape), unit="1/mm"))


def test_uncertainty_of_a_posterior_that_is_right_and_of_one_that_is_not():
    generator = np.random.default_rng(0)
    shape, samples = (20, 40, 40), 5
    spread = generator.uniform(5.0, 50.0, shape)
    centre = generator.uniform(500.0, 1000.0, shape)
    truth = volume(centre + spread * generator.normal(size=shape))
    draws = centre + spread * generator.normal(size=(samples, *shape))
    mean = volume(draws.mean(0))
    estimated = uncertainty(mean, volume(draws.std(0, ddof=1)), truth, samples=samples)
    assert estimated["coverage_68"] == pytest.approx(0.68, abs=0.01)
    assert estimated["coverage_95"] == pytest.approx(0.95, abs=0.005)
    found = uncertainty(mean, volume(spread), truth, samples=samples)
    assert found["deviation"] == pytest.approx(found["error"], rel=0.02)
    # |error| = spread |n|: correlation of u and u |n| for u uniform in [5, 50]
    u = np.linspace(5.0, 50.0, 10001)
    expected = np.sqrt(2 / np.pi) * u.std() / np.sqrt((u**2).mean() - 2 / np.pi * u.mean() ** 2)
    assert found["correlation"] == pytest.approx(expected, abs=0.02)
    half = uncertainty(mean, volume(draws.std(0, ddof=1) / 2), truth, samples=samples)
    assert half["coverage_95"] < 0.8
    assert "68 % are expected" in uncertainty_text(found)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 30, 999, 5000])
def test_intervals_of_few_samples_are_students(freedom):
    for share in (0.5, 0.68, 0.95):
        assert _student_interval(share, freedom) == pytest.approx(student.ppf((1 + share) / 2, freedom), rel=2e-3)


def test_uncertainty_counts_the_object_alone():
    truth = np.full((4, 20, 20), -1000.0)
    truth[:, 5:15, 5:15] = 0.0
    mean = truth + np.where(truth == 0.0, 30.0, 0.0)
    found = uncertainty(volume(mean), volume(np.full(truth.shape, 20.0)), volume(truth), samples=10**9)
    assert (found["coverage_68"], found["coverage_95"]) == (0.0, 1.0)
    assert found["error"] == pytest.approx(30.0)
    assert math.isnan(found["correlation"])
