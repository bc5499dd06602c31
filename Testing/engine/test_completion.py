"""Detectors that are narrower than the object: their rows are completed, of a disc exactly, and trusted little."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.geometry import ConeBeam, FanBeam, HelicalCone, ParallelBeam
from DiffusionMBIRLib.preparation.completion import TRUST, cut_sides, with_outer_columns
from DiffusionMBIRLib.preparation.rays import RayScan, measurement_of_rays
from DiffusionMBIRLib.preparation.told import Told
from Testing.engine.ray_files import expected
from Testing.engine.scans import told

DISC = np.array([(2.0, -1.5, 0.0, 24.0, 0.02)])
TURN = tuple(np.arange(90) * 4.0)
NARROW: dict[str, Any] = {
    "parallel": ParallelBeam(tuple(np.arange(90) * 2.0), 56, 0.6),
    "fan": FanBeam(TURN, 56, 0.9, 150.0, 225.0),
    "fan on an arc": FanBeam(TURN, 56, 0.9, 150.0, 225.0, arc=True),
    "short scan": FanBeam(tuple(np.arange(52) * 4.0), 56, 0.9, 150.0, 225.0),
    "half-fan": FanBeam(TURN, 44, 0.9, 150.0, 225.0, offset_mm=12.0),
}


@pytest.mark.parametrize("kind", NARROW)
@pytest.mark.parametrize("water", [None, 0.02])
def test_a_disc_goes_on_beyond_the_detector(kind, water):
    geometry = NARROW[kind]
    found = with_outer_columns(expected(geometry, DISC).astype(np.float32), geometry, water)
    assert found is not None
    truth = expected(found.geometry, DISC)
    assert found.line.shape == truth.shape
    assert np.abs(found.line - truth)[..., : found.added[0]].max(initial=0) < 0.15  # where it ends, of 0.96 at most
    assert np.sqrt(np.mean((found.line - truth) ** 2)) < 0.02
    assert found.reach_mm == pytest.approx(26.5, abs=1.5)
    kept = found.trust[0, 0] == 1
    assert kept.sum() == geometry.columns
    assert np.allclose(found.line[..., kept], expected(geometry, DISC), atol=1e-6)
    assert (found.trust[0, 0][~kept] == np.float32(TRUST)).all()


def test_rows_of_a_cone_are_completed_each_by_itself():
    cone = ConeBeam(TURN, 20, 56, 0.9, 0.9, 150.0, 225.0)
    ball = np.array([(2.0, -1.5, 0.0, 30.0, 0.02)])
    found = with_outer_columns(expected(cone, ball).astype(np.float32), cone)
    assert found is not None
    assert np.sqrt(np.mean((found.line - expected(found.geometry, ball)) ** 2)) < 0.04


def test_what_is_seen_whole_or_has_no_such_geometry_stays():
    whole = replace(NARROW["fan"], columns=112)
    assert cut_sides(expected(whole, DISC), whole) == (False, False)
    assert with_outer_columns(expected(whole, DISC).astype(np.float32), whole) is None
    assert cut_sides(expected(NARROW["half-fan"], DISC), NARROW["half-fan"]) == (False, True)
    helix = HelicalCone(TURN, 4, 56, 0.9, 0.9, 150.0, 225.0, travel_mm=4.0)
    assert with_outer_columns(np.ones((4, 90, 56), np.float32), helix) is None


def test_a_truncated_scan_is_nearly_as_good_as_a_whole_one():
    """Root mean square of the error that truncation adds within the field of view, over the disc's attenuation."""
    objects = np.concatenate([DISC, [(5.0, 4.0, 0.0, 4.0, 0.01), (-6.0, 2.0, 0.0, 3.0, -0.01)]])
    narrow = NARROW["fan"]
    whole = replace(narrow, columns=112)

    def scan_of(geometry, prepare=None):
        lines = expected(geometry, objects).swapaxes(0, 1).astype(np.float32)
        return measurement_of_rays(
            RayScan("scan", "simulated", lines, geometry, "lines", axis_known=True), Told(prepare=prepare)
        )

    cut, off = scan_of(narrow), scan_of(narrow, "padding=off")
    assert "columns on the left" in told(cut)
    assert "columns on the left" not in told(off)
    assert cut.grid.shape[2] * cut.grid.spacing_mm[0] > 2 * 26.0
    grid = off.grid
    middle = (np.arange(grid.shape[1]) - (grid.shape[1] - 1) / 2) * grid.spacing_mm[0]
    inside = np.hypot(middle, middle[:, None]) < 15.5
    settings = mbir.ReconSettings.preset("all-views")
    full, found, plain = (
        mbir.reconstruct(replace(scan, grid=grid), settings=settings).volume.array[0, inside]
        for scan in (scan_of(whole), cut, off)
    )
    added, before = (np.sqrt(np.mean((some - full) ** 2)) / 0.02 for some in (found, plain))
    assert added < 0.02
    assert before > 0.05
