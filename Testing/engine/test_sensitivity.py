"""Coils: noise, compression and sensitivity maps."""

from __future__ import annotations

import numpy as np
import pytest
from DiffusionMBIRLib.scans import KSpace

from DiffusionMBIRLib import sensitivity
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.espirit import espirit_maps
from DiffusionMBIRLib.geometry import CartesianMRI, Grid
from DiffusionMBIRLib.sensitivity import centred_fft, centred_ifft, estimate_maps, root_sum_of_squares
from Testing.engine.kspace_files import COILS, COLUMNS, ROWS, coil_images, kspace_of

IMAGES = coil_images()
TRUE = IMAGES / np.maximum(root_sum_of_squares(IMAGES)[:, None], 1e-6)
METHODS = ["low-resolution", "espirit"]


def scan(images=IMAGES, lines=range(ROWS), noise=0.0) -> KSpace:
    generator = np.random.default_rng(0)
    mask = np.zeros((images.shape[-2], images.shape[-1]), bool)
    mask[list(lines)] = True
    data = kspace_of(images)
    data = data + noise * (generator.normal(size=data.shape) + 1j * generator.normal(size=data.shape))
    grid = Grid((len(images), *mask.shape))
    return KSpace((data * mask).astype(np.complex64), CartesianMRI(mask, images.shape[1]), grid)


def acs_lines(width=16, step=4):
    return [r for r in range(ROWS) if r % step == 0 or abs(r - ROWS // 2 + 0.5) < width / 2]


def inside(images=IMAGES) -> np.ndarray:
    rss = root_sum_of_squares(images)
    return rss > 0.3 * rss.max()


def test_transform_is_orthonormal_and_centred():
    x = np.random.default_rng(0).normal(size=(2, 7, 8)) + 0j
    np.testing.assert_allclose(centred_ifft(centred_fft(x)), x, atol=1e-12)
    assert np.linalg.norm(centred_fft(x)) == pytest.approx(np.linalg.norm(x))
    peak = np.abs(centred_fft(np.ones((7, 8), np.complex64)))
    assert np.unravel_index(peak.argmax(), peak.shape) == (3, 4)


@pytest.mark.parametrize("method", METHODS)
def test_maps_are_those_of_the_coils(method):
    kspace = scan(lines=acs_lines())
    maps = estimate_maps(kspace, method=method)
    assert maps.shape == kspace.data.shape
    assert maps.dtype == np.complex64
    total = (np.abs(maps) ** 2).sum(axis=1)
    assert total.max() <= 1 + 1e-5
    np.testing.assert_allclose(total[inside()], 1, atol=1e-5)
    # Up to a phase that all coils share, which no method can know.
    agreement = np.abs((maps.conj() * TRUE).sum(axis=1))[inside()]
    assert agreement.min() > (0.99 if method == "espirit" else 0.9)
    assert agreement.mean() > (0.999 if method == "espirit" else 0.99)


@pytest.mark.parametrize("method", METHODS)
def test_combined_image_explains_all_coils(method):
    """With maps from x4 data, the full data lie in the range of the SENSE model: nothing is folded."""
    maps = estimate_maps(scan(lines=acs_lines()), method=method)
    combined = (maps.conj() * IMAGES).sum(axis=1, keepdims=True)
    left = np.linalg.norm(((maps * combined) - IMAGES) * inside()[:, None]) / np.linalg.norm(IMAGES)
    assert left < (0.02 if method == "espirit" else 0.06)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("width", [14, 24])
def test_espirit_agrees_with_that_of_sigpy(width):
    app = pytest.importorskip("sigpy.mri.app")
    middle = kspace_of(IMAGES)[0, :, ROWS // 2 - width // 2 :, COLUMNS // 2 - width // 2 :][:, :width, :width]
    whole = np.zeros((COILS, 32, 36), np.complex64)
    whole[:, 16 - width // 2 :, 18 - width // 2 :][:, :width, :width] = middle
    with np.errstate(divide="ignore", invalid="ignore"):
        theirs = app.EspiritCalib(whole, calib_width=width, kernel_width=6, crop=0.8, show_pbar=False).run()
    theirs, ours = np.nan_to_num(theirs), espirit_maps(middle, (32, 36))
    seen = (np.abs(theirs).sum(axis=0) > 0) & (np.abs(ours).sum(axis=0) > 0)
    agreement = np.abs((theirs.conj() * ours).sum(axis=0))[seen]
    assert agreement.min() > 0.995
    assert np.median(agreement) > 0.99999
    assert seen.sum() > 0.98 * (np.abs(theirs).sum(axis=0) > 0).sum()


def test_maps_of_large_images_are_interpolated_exactly_enough():
    images = coil_images(1, COILS, 211, 130)  # more than the grid that they are worked out on, in odd ratios
    true = images / np.maximum(root_sum_of_squares(images)[:, None], 1e-6)
    mask = np.zeros((211, 130), bool)
    mask[::4] = mask[105 - 12 : 105 + 12] = True
    kspace = KSpace(kspace_of(images) * mask, CartesianMRI(mask, COILS), Grid((1, 211, 130)))
    maps = estimate_maps(kspace, method="espirit")
    agreement = np.abs((maps.conj() * true).sum(axis=1))[inside(images)]
    assert agreement.min() > 0.999


def test_phase_of_the_maps_is_smooth_and_the_same_in_all_slices():
    maps = estimate_maps(scan(), method="low-resolution")
    image = (maps.conj() * IMAGES).sum(axis=1)
    jump = np.abs(np.angle(image[:, 1:] * image[:, :-1].conj()))[inside()[:, 1:] & inside()[:, :-1]]
    assert jump.max() < 0.5
    between = np.abs(np.angle(image[1] * image[0].conj()))[inside()[0] & inside()[1]]
    assert np.median(between) < 0.05


def test_one_coil_needs_no_maps():
    maps = estimate_maps(scan(IMAGES[:, :1], lines=range(0, ROWS, 2)))
    np.testing.assert_array_equal(maps, 1)


def test_what_cannot_be_calibrated_is_refused():
    with pytest.raises(InputError, match="at least 8 x 8.*ACS lines"):
        estimate_maps(scan(lines=range(0, ROWS, 2)))
    with pytest.raises(InputError, match="use one of"):
        estimate_maps(scan(), method="best")


def test_empty_slice_gets_no_maps_and_harms_no_other():
    images = IMAGES.copy()
    images[1] = 0
    maps = estimate_maps(scan(images), method="espirit")
    assert np.isfinite(maps).all()
    assert not maps[1].any()
    assert maps[0].any()


# --- compression


def test_compression_keeps_the_energy_and_the_noise():
    many = np.concatenate([coil_images(coils=6), 0.5 * coil_images(coils=6)], axis=1)  # twice the same coils
    kspace = scan(many)
    fewer = sensitivity.compress_coils(kspace, 6)
    assert fewer.geometry.coils == 6
    assert np.linalg.norm(fewer.data) == pytest.approx(np.linalg.norm(kspace.data), rel=1e-4)
    assert sensitivity.compress_coils(kspace, 12) is kspace
    noise = scan(np.zeros_like(many) + 1e-9, noise=1.0)
    small = sensitivity.compress_coils(noise, 4)
    flat = small.data.transpose(1, 0, 2, 3).reshape(4, -1)
    np.testing.assert_allclose(flat @ flat.conj().T / flat.shape[1], 2 * np.eye(4), atol=0.15)
    with pytest.raises(InputError, match="at least 1"):
        sensitivity.compress_coils(kspace, 0)


def test_compression_takes_maps_along():
    from dataclasses import replace

    kspace = replace(scan(), maps=TRUE.astype(np.complex64))
    fewer = sensitivity.compress_coils(kspace, COILS - 1)
    images = centred_ifft(fewer.data)
    combined = (fewer.maps.conj() * images).sum(axis=1, keepdims=True)
    left = np.linalg.norm((fewer.maps * combined - images) * inside()[:, None]) / np.linalg.norm(images)
    assert left < 0.02


# --- noise


def test_whitening():
    generator = np.random.default_rng(5)
    mixing = generator.normal(size=(COILS, COILS)) + 1j * generator.normal(size=(COILS, COILS))

    def noise(n):
        return mixing @ (generator.normal(size=(COILS, n)) + 1j * generator.normal(size=(COILS, n)))

    data = noise(ROWS * COLUMNS).reshape(1, COILS, ROWS, COLUMNS)
    white = sensitivity.whiten(data, noise(20000))[0].reshape(COILS, -1)
    np.testing.assert_allclose(white @ white.conj().T / white.shape[1], np.eye(COILS), atol=0.12)
    assert np.std(white.real) == pytest.approx(sensitivity.WHITENED_STD, rel=0.03)
    with pytest.raises(InputError, match="coils x samples"):
        sensitivity.whiten(data, noise(100)[:2])
    with pytest.raises(InputError, match="at least"):
        sensitivity.whiten(data, noise(3))
    with pytest.raises(InputError, match="silent or a copy"):
        sensitivity.whiten(data, 0 * noise(100))


def test_noise_level_from_the_outermost_samples():
    assert sensitivity.noise_std_of(scan(noise=0.5)) == pytest.approx(0.5, rel=0.05)
    assert sensitivity.noise_std_of(scan(lines=acs_lines(), noise=0.5)) == pytest.approx(0.5, rel=0.08)
    assert sensitivity.noise_std_of(scan()) < 1e-3
    from dataclasses import replace

    assert sensitivity.noise_std_of(replace(scan(), noise_std=0.25)) == 0.25
