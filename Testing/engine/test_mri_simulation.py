"""Simulated MRI, and what is told to a user whose input does not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import CartesianMRI
from DiffusionMBIRLib.methods import methods_for, starts_for
from DiffusionMBIRLib.models import ValueScale
from DiffusionMBIRLib.simulation.mr import coil_maps
from DiffusionMBIRLib.tasks import MR_TASK
from Testing.engine.mri import head, known_maps, scan, settings, small_prior, two_channel_prior


def test_simulated_noise_is_what_was_asked_for():
    clean, noisy = scan(noise=0.0), scan(noise=0.02)
    difference = (noisy.data - clean.data)[..., noisy.geometry.mask]
    std = 0.02 * np.percentile(head().array, 99.5)
    assert noisy.noise_std == pytest.approx(std)
    for part in (difference.real, difference.imag):
        assert part.std() == pytest.approx(std, rel=0.02)
    assert noisy.maps is None
    np.testing.assert_array_equal(scan(noise=0.02).data, noisy.data)


@pytest.mark.parametrize("coils", [2, 8])
def test_simulated_coils_have_unit_power_and_differ(coils):
    maps = coil_maps(head().grid, coils)
    np.testing.assert_allclose(np.sum(np.abs(maps) ** 2, axis=1), 1, atol=1e-5)
    matrix = maps.transpose(1, 0, 2, 3).reshape(coils, -1)
    assert np.linalg.matrix_rank(matrix @ matrix.conj().T, tol=1e-3) == coils


# --- what is told to the user


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views": 8}, "setting views is for CT only"),
        ({"coarsen": 2}, "setting coarsen is for CT only"),
        ({"photons": 1e5}, "setting photons is for CT only"),
        (
            {"task": "sparse-view-ct", "acceleration": 2},
            "setting acceleration is for MR only, not for the task sparse-view-ct",
        ),
        ({"coils": 0}, "setting coils: 0 lies outside 1 to 64"),
        ({"noise": -1.0}, "setting noise: -1.0 lies outside"),
        ({"mask": "spiral"}, "setting mask: 'spiral' is not one of"),
        ({"seed": -1}, "seed must be zero or positive"),
    ],
)
def test_simulations_out_of_range_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        mbir.simulate(head(), **{"task": MR_TASK} | changes)


def test_volumes_that_are_no_magnitudes_are_named():
    with pytest.raises(InputError, match="head: holds values down to -1000; MRI is simulated from magnitudes"):
        mbir.simulate(replace(head(), array=head().array - 1000), task=MR_TASK)
    with pytest.raises(InputError, match="zero everywhere"):
        mbir.simulate(replace(head(), array=0 * head().array), task=MR_TASK)
    with pytest.raises(InputError, match="coarsen is for CT only"):
        mbir.truth_for(head(), 2)


@pytest.mark.parametrize(
    ("changes", "card", "message"),
    [
        (
            {"method": "fbp"},
            {},
            "setting method: 'fbp' does not fit the task compressed-sensing-mri; use one of dual, dds",
        ),
        ({"start": "fbp"}, {}, "setting start: 'fbp' does not fit the task"),
        ({}, {"modality": "CT"}, "prior 'small' is for CT, the measurement is MR"),
        ({}, {"value": ValueScale()}, "prior 'small' counts values in 'HU', MR images need 'p99.5'"),
        (
            {"complex_prior": "two-channel"},
            {},
            "complex_prior: 'two-channel' does not fit prior 'small' with 1 channel",
        ),
        ({"method": "score-mri", "published": True}, {}, "no code of score-mri was published"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes, card, message):
    with pytest.raises(InputError, match=message):
        mbir.reconstruct(scan(coils=1), prior=small_prior(**card), settings=settings(**changes))


def test_a_two_channel_prior_is_used_as_such():
    result = mbir.reconstruct(known_maps(scan()), prior=two_channel_prior(), settings=settings())
    assert result.nfe == 3
    with pytest.raises(InputError, match="'phase' does not fit prior 'gaussian' with 2 channel"):
        mbir.reconstruct(scan(coils=1), prior=two_channel_prior(), settings=settings(complex_prior="phase"))


def test_a_scan_without_a_middle_has_no_phase_to_take_out():
    mask = np.zeros(head().grid.in_plane, bool)
    mask[:, ::2] = True
    kspace = mbir.simulate(head(), task=MR_TASK, mask=mask)
    with pytest.raises(InputError, match="complex_prior real-imaginary"):
        mbir.reconstruct(kspace, prior=small_prior(), settings=settings(complex_prior="phase"))
    assert mbir.reconstruct(kspace, prior=small_prior(), settings=settings(complex_prior="real-imaginary")).nfe == 6


def test_a_method_that_needs_sigpy_says_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sigpy.mri.app", None)
    with pytest.raises(InputError, match=r"espirit-l1 needs sigpy; install it with: .*diffusionmbir\[mri\]"):
        mbir.reconstruct(scan(coils=1), settings=settings(method="espirit-l1"))


def test_each_task_has_its_methods_and_starts():
    assert "fbp" not in methods_for(MR_TASK)
    assert "score-mri" not in methods_for("sparse-view-ct")
    assert "fbp" not in starts_for(MR_TASK)
    assert CartesianMRI(scan().geometry.mask).acs[0] == 32
