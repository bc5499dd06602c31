"""Scaled half-widths hold what they say of people who were not there; their model learns a known spread."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
import torch

from DiffusionMBIRLib.uncertainty.calibrate import KnownRun, models_of
from DiffusionMBIRLib.uncertainty.conformal import CLASSES, Covered, held, held_of_others, level, scales
from DiffusionMBIRLib.uncertainty.refine import Voxels, trained
from DiffusionMBIRLib.uncertainty.scale import FEATURES, Sums, features_at
from DiffusionMBIRLib.uncertainty.signals import NAMES
from DiffusionMBIRLib.uncertainty.table import Kind, whole_share


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


def test_people_who_weigh_more_decide():
    """Of two kinds of people, half-widths of the one twice too wide: the weights tell for whom they hold."""
    seen, others = ([person(k + 50 * n, (1.0 / n, 1.0 / n)) for k in range(8)] for n in (2, 1))
    weights = [0.0] * 8 + [1.0] * 8
    assert scales([*seen, *others], 0.95, weights) == scales(others, 0.95)
    between = scales([*seen, *others], 0.95, [0.25] * 8 + [1.0] * 8)
    assert scales([*seen, *others], 0.95) < between < scales(others, 0.95)


def test_of_people_left_out_the_share_is_held_that_is_asked_for():
    """Where the class is rare of which a person's errors are misjudged, a share of each class is less than of all."""
    people = []
    for seed in range(14):
        generator = np.random.default_rng(seed)
        kinds = (generator.uniform(size=4000) < (0.9 if seed % 2 else 0.1)).astype(int)
        own = np.where(kinds == seed % 2, 1.0, 1.2)
        people.append(Covered.of(np.abs(generator.normal(size=4000)) * own, np.ones(4000), kinds, 2))
    names, weights = [str(k) for k in range(14)], [1.0] * 14
    for share in (0.9, 0.95):
        plainly = held_of_others(people, names, share, weights)
        asked = level(people, names, share, weights)
        found = held_of_others(people, names, asked, weights)
        assert plainly is not None
        assert found is not None
        assert plainly - share > 0.01
        assert abs(found - share) < 0.001
    assert held_of_others(people[:2], ["one", "one"], 0.9, [1.0, 1.0]) is None
    assert level(people[:2], ["one", "one"], 0.9, [1.0, 1.0]) == 0.9


def test_a_person_of_several_volumes_is_left_out_with_all_of_them():
    one, other = (Covered.of(np.full(500, size), np.ones(500), np.zeros(500, int), 1) for size in (1.0, 4.0))
    assert held_of_others([one, one, other], ["a", "a", "b"], 0.9, [1.0] * 3) == pytest.approx(2 / 3)
    assert held_of_others([one, one, other], ["a", "b", "c"], 0.9, [1.0] * 3) == pytest.approx(2 / 3)
    assert held_of_others([one, other, other], ["a", "b", "b"], 0.9, [1.0] * 3) == pytest.approx(1 / 3)


def test_a_class_that_nobody_has_is_not_taken_for_sure():
    few = Covered.of(np.ones(500), np.ones(500), np.zeros(500, int), 3)
    many = Covered.of(np.full(500, 4.0), np.ones(500), np.ones(500, int), 3)
    factors = scales([few, many], 0.95)
    assert factors[2] == max(factors[:2])
    assert factors[1] >= 4 > factors[0] >= 1


def test_classes_are_those_of_the_values():
    classes = CLASSES["CT"]
    assert [classes.names[k] for k in classes.of(np.array([-1000.0, -600.0, 40.0, 900.0]))] == list(classes.names)


def known(seed: int, spread_of) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Signals, absolute errors and classes, where the second signal tells how far errors spread."""
    generator = torch.Generator().manual_seed(seed)
    maps = 0.02 * torch.randn(2, len(NAMES), 48, 48, generator=generator)
    coarse = torch.rand(2, 1, 4, 4, generator=generator)
    spread = 0.01 + 0.2 * torch.nn.functional.interpolate(coarse, size=48, mode="bilinear")[:, 0] ** 2
    maps[:, 2] = spread
    kinds = (torch.rand(2, 48, 48, generator=generator) < 0.5).long()
    error = (torch.randn(2, 48, 48, generator=generator) * spread_of(spread, kinds)).abs()
    return maps, error, kinds


def sums_of(seed: int, spread_of=lambda spread, kinds: spread) -> Sums:
    return Sums.of(*known(seed, spread_of), CLASSES["CT"])


def test_features_are_those_that_are_counted():
    maps = torch.randn(2, len(NAMES), 37, 50, generator=torch.Generator().manual_seed(0))
    features = features_at(maps)
    assert features.shape == (2, FEATURES, 37, 50)
    assert features.isfinite().all()
    assert (features[:, -1] == 1).all()
    assert torch.allclose(features_at(maps.flip(-1)), features.flip(-1), atol=1e-5)


def test_the_model_learns_a_spread_that_a_signal_tells():
    scale = reduce(Sums.__add__, map(sums_of, range(6))).solved()
    maps, error, kinds = known(7, lambda spread, kinds: spread)
    sizes = scale(maps, kinds)
    told = torch.corrcoef(torch.stack([sizes.log().flatten(), maps[:, 2].log().flatten()]))[0, 1]
    assert told > 0.9
    factor = torch.quantile(error / sizes, 0.95)
    constant = torch.quantile(error, 0.95)
    assert (factor * sizes).mean() < 0.8 * constant


def test_a_model_without_a_person_is_that_of_the_others():
    people = list(map(sums_of, range(5)))
    others = reduce(Sums.__add__, people[1:]).solved()
    without = (reduce(Sums.__add__, people) - people[0]).solved()
    assert torch.allclose(without.coefficients, others.coefficients, atol=1e-4)


def test_classes_have_their_own_sizes_and_one_that_nobody_has_those_of_all():
    wide = [sums_of(k, lambda spread, kinds: spread * (1 + 3 * kinds)) for k in range(5)]
    scale = reduce(Sums.__add__, wide).solved()
    maps, _, kinds = known(9, lambda spread, kinds: spread)
    ratio = scale(maps, torch.ones_like(kinds)) / scale(maps, torch.zeros_like(kinds))
    assert abs(float(ratio.log().mean().exp()) / 4 - 1) < 0.25
    between = scale(maps, torch.full_like(kinds, 3))
    assert (between.mean() > scale(maps, torch.zeros_like(kinds)).mean()).item()
    assert (between.mean() < scale(maps, torch.ones_like(kinds)).mean()).item()


def test_many_coils_have_a_model_of_their_own():
    """Their errors follow another signal than those of one coil; people left out of both are told by both."""
    runs = []
    for seed in range(3):
        for coils in (1, 2):
            maps, error, kinds = known(seed, lambda spread, kinds: spread)
            if coils > 1:
                maps[:, [2, 4]] = maps[:, [4, 2]]
            kind = Kind("compressed-sensing-mri", "cartesian-mri", 0.5, 0.0, coils)
            runs.append(KnownRun(str(seed), kind, maps, error, kinds, []))
    scale, without = models_of(runs, CLASSES["MR"])
    assert scale.coefficients.shape == (2, 4, FEATURES)
    for run in runs[:2]:
        for model in (scale, without[run.person]):
            spread = run.maps[:, 2 if run.kind.coils == 1 else 4]
            right, wrong = (
                torch.corrcoef(torch.stack([model(run.maps, run.kinds, n).log().flatten(), spread.log().flatten()]))[
                    0, 1
                ]
                for n in (run.kind.coils, 3 - run.kind.coils)
            )
            assert right > 0.9 > 0.5 > wrong
    alone, _ = models_of(runs[1::2], CLASSES["MR"])
    assert torch.allclose(alone.coefficients[0], scale.coefficients[1])


def test_a_network_corrects_what_a_log_linear_model_misses():
    """Errors that are large in the middle of a signal's range: no slope tells them.  It is the same when made again."""
    generator = torch.Generator().manual_seed(0)

    def voxels(person: int) -> tuple[Voxels, torch.Tensor]:
        inputs = torch.randn(3000, 5, generator=generator)
        size = 0.02 * torch.exp(1.5 - inputs[:, 1].square())
        error = (torch.randn(3000, generator=generator) * size).abs()
        return Voxels(inputs, torch.full((3000,), np.log(0.02)), error, 1.0), size

    runs = [voxels(k)[0] for k in range(8)]
    refinement = trained(runs)
    new, size = voxels(9)
    told = torch.corrcoef(torch.stack([refinement(new.inputs), size.log()]))[0, 1]
    assert told > 0.75
    again = trained(runs).tensors()
    assert all(torch.equal(value, again[name]) for name, value in refinement.tensors().items())


def test_a_person_is_judged_by_a_model_that_had_not_seen_them():
    runs = []
    for seed in range(3):
        maps, error, kinds = known(seed, lambda spread, kinds: spread)
        runs.append(KnownRun(str(seed), Kind("t", "g", 8.0), maps, error * (1 + 9 * (seed == 2)), kinds, []))
    whole, without = models_of(runs, CLASSES["CT"])
    others, _ = models_of(runs[:2], CLASSES["CT"])
    assert torch.allclose(without["2"].coefficients, others.coefficients, atol=1e-4)
    sizes = [model(runs[2].maps, runs[2].kinds, 1, 8.0) for model in (without["2"], others, whole)]
    assert torch.allclose(sizes[0], sizes[1], rtol=1e-3)
    assert sizes[2].mean() > 1.2 * sizes[1].mean()


def test_masks_of_a_line_more_or_less_are_of_one_kind():
    assert {whole_share(n / 256) for n in (63, 64, 65)} == {0.25}
    assert whole_share(128 / 256) == 0.5
    assert whole_share(1.0) == 1.0
    assert whole_share(86 / 256) == pytest.approx(1 / 3, rel=0.02)
