"""Scaled half-widths hold what they say of people who were not there; their network learns a known spread."""

from __future__ import annotations

import numpy as np
import torch

from DiffusionMBIRLib.uncertainty.conformal import CLASSES, Covered, held, scales
from DiffusionMBIRLib.uncertainty.fit import KnownRun, fit_network
from DiffusionMBIRLib.uncertainty.network import SHARES, ErrorNet


def person(seed: int, misjudged: tuple[float, float]) -> Covered:
    """Gaussian errors whose half-width is misjudged by a factor a class, and by one of the person's own."""
    generator = np.random.default_rng(seed)
    kinds = generator.integers(0, 2, 4000)
    width = generator.uniform(1, 5, 4000)
    own = generator.uniform(0.8, 1.2)
    error = np.abs(generator.normal(size=4000)) * width * own * np.array(misjudged)[kinds]
    return Covered.of(error, width, kinds, 2)


def test_factors_undo_what_was_misjudged_and_hold_for_others():
    misjudged = (0.5, 3.0)
    known = [person(k, misjudged) for k in range(12)]
    others = [person(100 + k, misjudged) for k in range(40)]
    for share, gaussian in ((0.9, 1.645), (0.95, 1.96)):
        factors = scales(known, share)
        assert np.allclose(np.array(factors) / misjudged, gaussian, rtol=0.12)
        mean = np.mean([held(one, factors) for one in others], axis=0)
        assert np.all(mean > share - 0.005)
        assert np.all(mean < share + 0.03)


def test_a_class_that_nobody_has_is_not_taken_for_sure():
    few = Covered.of(np.ones(500), np.ones(500), np.zeros(500, int), 3)
    many = Covered.of(np.full(500, 4.0), np.ones(500), np.ones(500, int), 3)
    factors = scales([few, many], 0.95)
    assert factors[2] == max(factors[:2])
    assert factors[1] >= 4 > factors[0] >= 1


def test_classes_are_those_of_the_values():
    classes = CLASSES["CT"]
    assert [classes.names[k] for k in classes.of(np.array([-1000.0, -600.0, 40.0, 900.0]))] == list(classes.names)


def test_half_widths_of_any_size_grow_with_the_share():
    maps = torch.randn(2, 5, 37, 50, generator=torch.Generator().manual_seed(0))
    widths = ErrorNet()(maps)
    assert widths.shape == (2, len(SHARES), 37, 50)
    assert (widths[:, 1] > widths[:, 0]).all()
    assert (widths > 0).all()


def test_the_network_learns_a_spread_that_a_signal_tells():
    generator = torch.Generator().manual_seed(1)

    def run(number: int) -> KnownRun:
        maps = 0.02 * torch.randn(2, 5, 48, 48, generator=generator)
        spread = torch.nn.functional.interpolate(torch.rand(2, 1, 3, 3, generator=generator), size=48, mode="bilinear")[
            :, 0
        ]
        maps[:, 2] = 0.01 + 0.2 * spread**2
        error = (torch.randn(2, 48, 48, generator=generator) * maps[:, 2]).abs()
        return KnownRun(f"p{number}", maps, error)

    runs = [run(k) for k in range(6)]
    network = fit_network(runs[:5], steps=300, size=24)
    with torch.inference_mode():
        widths, new = network(runs[5].maps), runs[5]
    for k, share in enumerate(SHARES):
        assert abs(float((new.error <= widths[:, k]).float().mean()) - share) < 0.04
    told = torch.corrcoef(torch.stack([widths[:, 1].flatten(), new.maps[:, 2].flatten()]))[0, 1]
    assert told > 0.8
