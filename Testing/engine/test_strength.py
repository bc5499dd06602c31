"""Strength of total variation that a scan itself calls for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.estimate import stages
from DiffusionMBIRLib.geometry import ConeBeam, Grid, ParallelBeam
from DiffusionMBIRLib.methods.strength import LEAST_VIEWS, STRENGTHS, lowest
from DiffusionMBIRLib.rates import Pace
from DiffusionMBIRLib.scans import Measurement
from DiffusionMBIRLib.starts import part_for_strength
from Testing.engine.ray_files import expected

BALLS = np.array([(0, 0, 0, 12, 0.02), (-4, 3, 0, 3, 0.02), (5, -2, 0, 4, -0.01)], dtype=float)
SETTINGS = mbir.ReconSettings.preset("object", tv_sweeps=40, tv_grids=1)


def scan_of(views: int, noise: float, slices: int = 1) -> Measurement:
    beam = ParallelBeam(tuple(np.arange(views) * 180.0 / views), 32, 1.0)
    line = np.repeat(expected(beam, BALLS)[:1], slices, axis=0)
    line += noise * np.random.default_rng(5).standard_normal(line.shape)
    return Measurement(line.astype(np.float32), beam, Grid((slices, 32, 32)), unit="1/mm", mu_water_per_mm=0.02)


def truth(parts: int = 4) -> np.ndarray:
    x = (np.arange(32 * parts) - (32 * parts - 1) / 2) / parts
    fine = sum(mu * (np.hypot(x - bx, x[:, None] - by) < radius) for bx, by, _, radius, mu in BALLS)
    return fine.reshape(32, parts, 32, parts).mean(axis=(1, 3))


@pytest.mark.parametrize("valley", range(len(STRENGTHS)))
def test_the_valley_is_found_and_no_strength_is_asked_twice(valley):
    asked = []

    def miss(strength: float) -> float:
        asked.append(strength)
        return abs(STRENGTHS.index(strength) - valley)

    assert lowest(miss) == STRENGTHS[valley]
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("noise", [0.005, 0.02])
def test_views_that_are_left_out_choose_what_is_near_the_truth(noise):
    scan, true = scan_of(30, noise), truth()

    def error(found: mbir.Reconstruction) -> float:
        return float(np.sqrt(np.mean((found.volume.array[0] - true) ** 2)))

    chosen = mbir.reconstruct(scan, settings=SETTINGS)
    told = next(line for line in chosen.provenance["remarks"] if "views that are left out" in line)
    strength = min(STRENGTHS, key=lambda s: abs(s - float(told.split()[4].rstrip(","))))
    fixed = {s: mbir.reconstruct(scan, settings=replace(SETTINGS, tv_lam=s)) for s in STRENGTHS}
    np.testing.assert_array_equal(chosen.volume.array, fixed[strength].volume.array)
    assert error(chosen) < 1.1 * min(map(error, fixed.values()))
    assert max(map(error, fixed.values())) > 1.5 * error(chosen)  # it matters


def test_few_views_take_the_middle_strength_and_say_so():
    found = mbir.reconstruct(scan_of(LEAST_VIEWS - 1, 0.01), settings=SETTINGS)
    assert any("too few to leave some out" in line for line in found.provenance["remarks"])


def test_a_cone_chooses_too():
    beam = ConeBeam(tuple(np.arange(12) * 30.0), 8, 32, 1.5, 1.5, 100.0, 150.0)
    line = expected(beam, BALLS).astype(np.float32)
    scan = Measurement(line, beam, Grid((8, 32, 32)), unit="1/mm", mu_water_per_mm=0.02)
    found = mbir.reconstruct(scan, settings=replace(SETTINGS, tv_sweeps=2))
    assert any("views that are left out" in line for line in found.provenance["remarks"])


def test_a_part_of_a_large_volume_is_enough_and_the_estimate_knows():
    assert part_for_strength((100, 64, 64), stacked=True) == (slice(46, 54), 1)
    assert part_for_strength((2, 640, 640), stacked=True) == (slice(0, 2), 2)
    assert part_for_strength((150, 146, 146), stacked=False) == (slice(0, 150), 2)
    assert part_for_strength((4, 1001, 1001), stacked=True) == (slice(0, 4), 1)  # cannot be halved

    def seconds(tv_lam: float) -> dict[str, float]:
        settings = replace(SETTINGS, tv_lam=tv_lam)
        return stages((80, 256, 256), settings, "sparse-view-ct", pace=Pace(solver=1.0), views=30)

    chosen, given = seconds(0.0), seconds(1e-3)
    assert chosen.pop("TV strength") == pytest.approx(0.32 * given["ADMM-TV"])
    assert chosen == given
