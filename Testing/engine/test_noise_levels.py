"""The noise that samplers draw, and the levels that they go down."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.operators.space import Space
from DiffusionMBIRLib.samplers.noise import PREDICTOR, START, Noise
from DiffusionMBIRLib.samplers.schedules import geometric_sigmas, karras_sigmas


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_shared_noise_turns_from_one_image_to_the_next(dtype):
    span, n = 4, 10
    noise = Noise(Space((n, 100, 100), dtype), 0, span=span)(1)
    parts = 2 if dtype.is_complex else 1
    products = torch.einsum("arc,brc->ab", noise, noise.conj()).real / (parts * 1e4)
    for a in range(n):
        for b in range(n):
            # cos t and sin t of the two images on each side; images further away have nothing in common
            weights = torch.zeros(2, n)
            for row, k in enumerate((a, b)):
                angle = math.pi / 2 * (k % span) / span
                weights[row, k // span] += math.cos(angle)
                weights[row, k // span + 1] += math.sin(angle)
            assert float(products[a, b]) == pytest.approx(float(weights[0] @ weights[1]), abs=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("span", [1, 3])
def test_a_slab_draws_what_the_whole_volume_draws(dtype, span):
    whole = Noise(Space((7, 4, 5), dtype, slices_last=not dtype.is_complex), 3, sample=2, span=span)
    for first, slices in ((0, 3), (2, 4), (6, 1)):
        slab = Noise(Space((slices, 4, 5), dtype, first_slice=first), 3, sample=2, span=span)
        assert torch.equal(slab(9), whole(9)[first : first + slices])


def test_every_draw_is_another_and_the_same_again():
    space = Space((3, 40, 50))
    draws = {
        (seed, sample, level, purpose): Noise(space, seed, sample)(level, purpose)
        for seed in (0, 1, 2**40)
        for sample in (0, 1)
        for level in (0, 1)
        for purpose in (START, PREDICTOR)
    }
    for key, noise in draws.items():
        seed, sample, level, purpose = key
        assert torch.equal(noise, Noise(space, seed, sample)(level, purpose))
    flat = torch.stack([noise[k].flatten() for noise in draws.values() for k in range(3)])
    correlation = flat @ flat.T / flat.shape[1]
    assert float((correlation - torch.eye(len(flat))).abs().max()) < 0.15  # 5.5 standard errors of 2000 pixels or less
    assert space.noise(0).shape == (3, 40, 50)


# --- schedules

SCHEDULES = {"karras": karras_sigmas, "geometric": geometric_sigmas}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("levels", [2, 3, 30, 2000])
def test_schedules_fall_from_end_to_end(schedule, levels):
    sigmas = schedule(0.01, 80.0, levels)
    assert len(sigmas) == levels
    assert sigmas[0] == pytest.approx(80.0, rel=1e-12)
    assert sigmas[-1] == pytest.approx(0.01, rel=1e-9)
    assert all(later < earlier for earlier, later in pairwise(sigmas))
    assert schedule(0.01, 80.0, 1) == [80.0]


def test_schedules_have_their_spacing():
    ratios = [later / earlier for earlier, later in pairwise(geometric_sigmas(0.01, 378.0, 50))]
    assert max(ratios) - min(ratios) < 1e-9
    roots = [sigma ** (1 / 7) for sigma in karras_sigmas(0.01, 10.0, 20)]
    steps = [earlier - later for earlier, later in pairwise(roots)]
    assert max(steps) - min(steps) < 1e-9
    assert karras_sigmas(1.0, 3.0, 3, rho=1.0) == pytest.approx([3.0, 2.0, 1.0])


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_schedules_refuse_what_has_no_meaning(schedule):
    for low, high in ((0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (math.nan, 1.0)):
        with pytest.raises(InputError, match="0 < sigma_min <= sigma_max"):
            schedule(low, high, 5)
    with pytest.raises(InputError, match="levels must be at least 1, not 0"):
        schedule(0.1, 1.0, 0)
    assert schedule(0.5, 0.5, 3) == pytest.approx([0.5, 0.5, 0.5])
