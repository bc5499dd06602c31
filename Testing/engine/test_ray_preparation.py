"""Steps of the preparation of scans with a known geometry, on simulated scans with noise and the detector's faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.geometry import ConeBeam, FanBeam, ParallelBeam
from DiffusionMBIRLib.preparation.rays import RayScan, measurement_of_rays
from DiffusionMBIRLib.preparation.told import Told
from Testing.engine.ray_files import expected
from Testing.engine.scans import told

BALLS = np.array([(2.0, -3.0, 0.0, 18.0, 0.02), (-7.0, 6.0, 0.0, 5.0, 0.03), (5.0, 8.0, 1.0, 3.0, -0.015)])
WHOLE = tuple(np.arange(120) * 3.0)
FAN = FanBeam(WHOLE, 96, 0.9, 80.0, 120.0)
CONE = ConeBeam(WHOLE, 8, 96, 0.9, 0.9, 80.0, 120.0)
PHOTONS = 2e4


def counts_of(geometry, *, photons: float = PHOTONS, balls=BALLS) -> np.ndarray:
    """Noisy counts (views, rows, columns)."""
    lines = expected(geometry, balls).swapaxes(0, 1)
    return np.random.default_rng(0).poisson(photons * np.exp(-lines)).astype(np.float32)


def scan_of(geometry, counts, **known) -> RayScan:
    return RayScan("scan", "simulated", counts, geometry, "counts", white=PHOTONS, **known)


SHIFTED: dict[str, Any] = {
    "fan": replace(FAN, offset_mm=3.3),
    "fan on an arc": replace(FAN, arc=True, offset_mm=-2.9),
    "fan with few views": replace(FAN, angles_deg=tuple(np.arange(45) * 8.0), offset_mm=3.3),
    "short scan": replace(FAN, angles_deg=tuple(np.arange(80) * 3.0), offset_mm=1.7),
    "half-fan": replace(FAN, columns=64, offset_mm=18.3),
    "half-fan on an arc": replace(FAN, columns=64, offset_mm=-18.3, arc=True),
    "cone": replace(CONE, offset_mm=3.3),
    "half-fan cone": replace(CONE, columns=64, offset_mm=18.3),
    "curved cone": replace(CONE, arc=True, offset_mm=2.2, row_offset_mm=1.0),
    "parallel": ParallelBeam(tuple(np.arange(120) * 1.5), 96, 0.6, 2.3),
    "parallel, half acquisition": ParallelBeam(WHOLE, 64, 0.6, 12.2),
}


@pytest.mark.parametrize("kind", SHIFTED)
def test_the_axis_is_found_within_a_quarter_of_a_column(kind):
    truth = SHIFTED[kind]
    scan = measurement_of_rays(scan_of(replace(truth, offset_mm=0.0), counts_of(truth)), Told())
    found: Any = scan.geometry
    assert found.offset_mm == pytest.approx(truth.offset_mm, abs=0.25 * truth.pitch_mm)
    assert "rotation axis at column" in told(scan)


def test_an_axis_that_is_told_or_known_stays():
    truth = SHIFTED["fan"]
    other = replace(truth, offset_mm=0.0)
    scan = measurement_of_rays(scan_of(other, counts_of(truth)), Told(axis=40.0))
    moved: Any = scan.geometry
    assert moved.offset_mm == pytest.approx((47.5 - 40) * 0.9)
    known = measurement_of_rays(scan_of(other, counts_of(truth), axis_known=True), Told())
    assert known.geometry == other
    assert "by the views" in told(known)
    off = measurement_of_rays(scan_of(other, counts_of(truth)), Told(prepare="axis=off"))
    assert off.geometry == other


@pytest.mark.parametrize("known", [True, False])
def test_angles_that_run_backwards(known):
    counts = counts_of(FAN)
    turned = replace(FAN, angles_deg=tuple(-a for a in FAN.angles_deg))
    scan = measurement_of_rays(scan_of(turned, counts, sense_known=known), Told())
    assert "run the other way" in told(scan)
    assert scan.geometry.angles_deg == (turned if known else FAN).angles_deg


def test_what_the_detector_sees_is_the_grid():
    scan = measurement_of_rays(scan_of(SHIFTED["half-fan"], counts_of(SHIFTED["half-fan"])), Told())
    far = 80 * np.sin(np.arctan((32 * 0.9 + 18.3) / 120))
    assert abs(scan.grid.shape[2] - 2 * far / 0.6) < 1.1
    assert "widened" not in told(scan)


def test_an_object_that_is_cut_off_widens_the_grid():
    wide = np.array([(0.0, 0.0, 0.0, 30.0, 0.01), (4.0, 5.0, 0.0, 4.0, 0.02)])
    narrow = replace(FAN, columns=64)
    scan = measurement_of_rays(scan_of(narrow, counts_of(narrow, balls=wide)), Told())
    assert "widened" in told(scan)
    assert scan.grid.shape[2] > 1.4 * 64 * narrow.pitch_mm / scan.grid.spacing_mm[0] * 80 / 120
    kept = measurement_of_rays(scan_of(narrow, counts_of(narrow, balls=wide)), Told(prepare="padding=off"))
    assert kept.grid.shape[2] < scan.grid.shape[2]
    assert "cut off" in told(kept)


def test_a_long_object_makes_the_grid_higher():
    scan = measurement_of_rays(scan_of(CONE, counts_of(CONE)), Told())
    assert "slices at its ends" in told(scan)
    seen = 8 * 0.9 * 80 / 120
    assert scan.grid.shape[0] * scan.grid.spacing_mm[2] > seen + 2 * 0.9 * 4 * 32 / 120 * 80 / 120
    assert scan.grid.off_isocentre_mm == pytest.approx((0, 0, 0), abs=1e-6)


def test_rings_and_zingers_are_taken_off():
    clean = counts_of(FAN)
    faulty = clean.copy()
    gains = {20: 1.05, 45: 0.93, 70: 0.96}
    for column, gain in gains.items():
        faulty[:, :, column] *= gain
    rng = np.random.default_rng(1)
    faulty[rng.integers(0, 120, 12), 0, rng.integers(0, 96, 12)] = 6 * PHOTONS
    wanted = measurement_of_rays(scan_of(FAN, clean), Told()).data
    found = measurement_of_rays(scan_of(FAN, faulty), Told())
    columns = list(gains)
    left = np.abs(np.median(found.data[0][:, columns] - wanted[0][:, columns], axis=0))
    assert left.max() < 0.012
    assert np.abs(found.data - wanted).max() < 0.15
    kept = measurement_of_rays(scan_of(FAN, faulty), Told(prepare="rings=off, zingers=off"))
    assert np.abs(np.median(kept.data[0][:, columns] - wanted[0][:, columns], axis=0)).min() > 0.025
    assert "rings" in told(found)
    assert "rings" not in told(kept)


def test_flat_images_are_followed_in_time():
    lines = expected(FAN).swapaxes(0, 1)
    beam = PHOTONS * (1 + 0.3 * np.arange(120) / 120)[:, None, None]
    flats = np.stack([np.full((1, 96), PHOTONS), np.full((1, 96), 1.3 * PHOTONS)])
    known = {"flat": flats, "flat_at": (0.0, 120.0)}
    scan = RayScan("scan", "simulated", (beam * np.exp(-lines)).astype(np.float32), FAN, "counts", **known)
    np.testing.assert_allclose(measurement_of_rays(scan, Told()).data[0], lines[:, 0], atol=2e-4)


def test_beam_hardening_of_one_material():
    long = np.array([(0.0, 0.0, 0.0, 8.0, 0.04), (9.0, 0.0, 0.0, 8.0, 0.04), (-9.0, 0.0, 0.0, 8.0, 0.04)])
    lines = expected(ParallelBeam(tuple(np.arange(60) * 3.0), 96, 0.6), long).swapaxes(0, 1)
    hardened = lines - 0.12 * lines**2
    scan = RayScan("scan", "simulated", hardened.astype(np.float32), ParallelBeam(tuple(np.arange(60) * 3.0), 96, 0.6))
    plain = measurement_of_rays(scan, Told())
    mended = measurement_of_rays(scan, Told(prepare="water=on"))
    errors = [np.abs(s.data[0] - lines[:, 0]).max() / lines.max() for s in (plain, mended)]
    assert errors[1] < 0.35 * errors[0]
    assert "beam hardening" in told(mended)
    assert "beam hardening" not in told(plain)


def _as_lines(scan: RayScan) -> None:
    scan.kind, scan.white = "lines", None


BAD: dict[str, tuple[Callable[[RayScan], None], str]] = {
    "line integrals with a flat image": (lambda s: setattr(s, "counts", expected(FAN).swapaxes(0, 1)), "already"),
    "counts as line integrals": (_as_lines, "no line"),
    "fewer images than angles": (lambda s: setattr(s, "counts", s.counts[:100]), "120 angles for 100 images"),
    "another detector": (lambda s: setattr(s, "counts", s.counts[:, :, :90]), "the geometry says 1 x 96"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_told_in_one_line(kind):
    scan = scan_of(FAN, counts_of(FAN))
    BAD[kind][0](scan)
    with pytest.raises(mbir.InputError, match=BAD[kind][1]) as caught:
        measurement_of_rays(scan, Told())
    assert "\n" not in str(caught.value)


def test_wrong_units_and_a_missing_flat_are_told():
    metres = replace(FAN, pitch_mm=900.0, sod_mm=8e4, sdd_mm=1.2e5)
    scan = measurement_of_rays(scan_of(metres, counts_of(FAN)), Told())
    assert "are the lengths in mm" in told(scan)
    without = scan_of(FAN, counts_of(FAN))
    without.white = None
    guessed = measurement_of_rays(without, Told())
    assert "for want of a flat image" in told(guessed)
    assert np.abs(guessed.data - measurement_of_rays(scan_of(FAN, counts_of(FAN)), Told()).data).max() < 0.03


def test_line_integrals_taken_for_counts_are_told_without_a_flat_image_too():
    scan = scan_of(FAN, np.ascontiguousarray(expected(FAN).swapaxes(0, 1), np.float32))
    scan.white = None
    with pytest.raises(mbir.InputError, match="as of line integrals; say so"):
        measurement_of_rays(scan, Told())


@pytest.mark.parametrize("text", ["rings=maybe", "halos=off", "rings"])
def test_a_step_that_is_not_known(text):
    with pytest.raises(mbir.InputError, match="prepare"):
        Told(prepare=text)
