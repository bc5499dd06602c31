"""Averages of weights whose width is chosen after training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.training.averages import (
    Profile,
    RunningAverages,
    average_of,
    combination,
    gamma_of,
    overlap,
    snapshots,
)


def profile(t: np.ndarray, of: Profile) -> np.ndarray:
    return np.where(t <= of.step, (of.gamma + 1) * t**of.gamma / float(of.step) ** (of.gamma + 1), 0.0)


@pytest.mark.parametrize("width", [0.02, 0.05, 0.1, 0.25])
def test_a_width_is_the_relative_standard_deviation(width):
    t = (np.arange(200_000) + 0.5) / 200_000
    density = profile(t, Profile(1, gamma_of(width)))
    mean = (t * density).mean()
    assert density.mean() == pytest.approx(1, rel=1e-4)
    assert np.sqrt((t**2 * density).mean() - mean**2) == pytest.approx(width, rel=1e-3)


@pytest.mark.parametrize("width", [0.0, -0.1, 0.3])
def test_widths_that_no_profile_has_are_named(width):
    with pytest.raises(InputError, match="between 0 and 0.28"):
        gamma_of(width)


def test_overlaps_are_integrals_of_products():
    t = (np.arange(400_000) + 0.5) / 400_000 * 40
    for first, second in ((Profile(40, 3.0), Profile(25, 9.0)), (Profile(10, 17.0), Profile(10, 2.0))):
        expected = (profile(t, first) * profile(t, second)).sum() * (t[1] - t[0])
        assert overlap(first, second) == pytest.approx(expected, rel=1e-4)
        assert overlap(first, second) == overlap(second, first)


def test_a_kept_profile_is_found_again():
    kept = [Profile(step, gamma) for step in (100, 200, 300) for gamma in (6.9, 17.0)]
    np.testing.assert_allclose(combination(kept, kept[4]), np.eye(6)[4], atol=1e-6)
    assert combination(kept, Profile(300, gamma_of(0.12))).sum() == pytest.approx(1, abs=0.05)


def wandering(steps: int) -> np.ndarray:
    """A path that settles, with noise on it: (steps, 4)."""
    noise = np.random.default_rng(0).normal(size=(steps, 4))
    return np.exp(-np.arange(steps) / 150)[:, None] * np.array([1.0, -2.0, 3.0, 0.5]) + 0.3 * noise


@pytest.mark.parametrize("width", [0.04, 0.07, 0.12, 0.2])
def test_averages_of_other_widths_come_out_of_snapshots(tmp_path, width):
    """They are what would have been averaged all along."""
    path, network = wandering(400), torch.nn.Linear(4, 1, bias=False)
    averages, gamma, expected = RunningAverages(network), gamma_of(width), np.zeros(4)
    for step, weights in enumerate(path, start=1):
        with torch.no_grad():
            network.weight.copy_(torch.from_numpy(weights)[None])
        averages.update(network, step)
        expected += (1 - (1 - 1 / step) ** (gamma + 1)) * (weights - expected)
        if step % 25 == 0:
            averages.keep(tmp_path / "kept", step)
    files = snapshots(tmp_path / "kept", until=400)
    assert list(files) == list(range(25, 401, 25))
    found = average_of(files, width)["weight"][0].numpy()
    error = np.abs(found - expected).max()
    assert error < 0.03
    assert error < 0.2 * np.abs(path[-1] - expected).max()
    assert list(snapshots(tmp_path / "kept", until=60)) == [25, 50]


def test_running_averages_go_on_from_a_state():
    network = torch.nn.Linear(3, 2)
    first, second = RunningAverages(network), RunningAverages(torch.nn.Linear(3, 2))
    first.update(network, 1)
    second.load(first.state())
    assert all(torch.equal(a[k], b[k]) for a, b in zip(first.state(), second.state(), strict=True) for k in a)
    with pytest.raises(ValueError, match="shorter"):
        second.load(first.state()[:1])
