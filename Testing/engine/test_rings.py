"""Offsets of a detector's pixels: found beside each other too, not taken for edges, and not looked for at any cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from DiffusionMBIRLib.geometry import ConeBeam, FanBeam, ParallelBeam
from DiffusionMBIRLib.preparation import ring_fit
from DiffusionMBIRLib.preparation.parallel import ParallelScan, measurement_of
from DiffusionMBIRLib.preparation.rays import RayScan, measurement_of_rays
from DiffusionMBIRLib.preparation.rings import beside_neighbours
from DiffusionMBIRLib.preparation.told import Told
from Testing.engine.ray_files import expected
from Testing.engine.scans import told

BALLS = np.array([(2.0, -3.0, 0.0, 18.0, 0.02), (-7.0, 6.0, 0.0, 5.0, 0.015), (5.0, 8.0, 1.0, 3.0, -0.015)])
ROUND = BALLS - [2.0, -3.0, 0.0, 0.0, 0.0]
FAN = FanBeam(tuple(np.arange(120) * 3.0), 96, 0.9, 80.0, 120.0)
PARALLEL = ParallelBeam(tuple(np.arange(100) * 1.8), 96, 0.6)
PHOTONS = 1e5
OFF = {3: 0.05, 30: -0.06, 31: 0.04, 38: 0.03, 39: 0.05, 40: -0.02, 70: 0.05, 73: 0.03}  # beside each other too


def lines_of(geometry, balls=BALLS, off=OFF) -> np.ndarray:
    """Line integrals (1, views, columns) as counted, with pixels that are off."""
    lines = expected(geometry, balls)[:1]
    counted = np.random.default_rng(0).poisson(PHOTONS * np.exp(-lines)) / PHOTONS
    lines = -np.log(counted).astype(np.float32)
    lines[:, :, list(off)] += np.array(list(off.values()), np.float32)
    return lines


def wanted(off=OFF) -> np.ndarray:
    out = np.zeros(96)
    out[list(off)] = list(off.values())
    return out


@pytest.mark.parametrize("geometry", [FAN, PARALLEL], ids=["fan", "parallel"])
def test_pixels_that_are_off_beside_others_are_found(geometry):
    lines = lines_of(geometry)
    found = ring_fit.offsets(lines, geometry)
    assert found is not None
    assert found.shape == (1, 96)
    np.testing.assert_allclose(found[0], wanted(), atol=6e-3)
    near = beside_neighbours(lines.swapaxes(0, 1), np.asarray(geometry.angles_deg))
    assert np.abs(found[0] - wanted()).max() < 0.5 * np.abs(near[0] - wanted()).max()  # as neighbours alone tell them


def test_the_edge_of_an_object_that_is_round_about_the_axis_is_no_ring():
    found = ring_fit.offsets(lines_of(FAN, ROUND, {}), FAN)
    assert found is not None
    assert np.abs(found).max() < 6e-3


def test_a_scan_is_read_without_them():
    def read(off, prepare):
        scan = RayScan("scan", "simulated", lines_of(FAN, off=off).swapaxes(0, 1), FAN, "lines", axis_known=True)
        return measurement_of_rays(scan, Told(prepare=prepare))

    clean, found = read({}, "rings=off"), read(OFF, "")
    assert "beside an object that fits all views" in told(found)
    assert np.abs(np.median(found.data - clean.data, axis=1)).max() < 6e-3
    kept = read(OFF, "rings=off")
    np.testing.assert_allclose(np.median(kept.data - clean.data, axis=1)[0], wanted(), atol=1e-4)


def test_parallel_beams_are_read_without_them():
    angles = np.asarray(PARALLEL.angles_deg)

    def read(off, prepare):
        lines = np.repeat(lines_of(PARALLEL, off=off), 2, axis=0).swapaxes(0, 1)
        return measurement_of(ParallelScan("scan", "simulated", lines, None, None, angles), Told(prepare=prepare))

    clean, found = read({}, "rings=off"), read(OFF, "")
    assert f"{2 * len(OFF)} pixels" in told(found)
    assert np.abs(np.median(found.data - clean.data, axis=1)).max() < 6e-3


def test_where_slices_mix_or_the_work_is_large_neighbours_tell(monkeypatch):
    cone = ConeBeam(FAN.angles_deg, 8, 96, 0.9, 0.9, 80.0, 120.0)
    assert ring_fit.offsets(np.zeros((8, 120, 96), np.float32), cone) is None
    monkeypatch.setattr(ring_fit, "_WORK", 0.0)
    assert ring_fit.offsets(lines_of(FAN), FAN) is None
    alone = {30: 0.05}
    scan = RayScan("scan", "simulated", lines_of(FAN, off=alone).swapaxes(0, 1), FAN, "lines", axis_known=True)
    found = measurement_of_rays(scan, Told())
    assert "too much for a fit" in told(found)
    assert "1 pixels" in told(found)


def test_a_narrow_detector_has_no_offsets_in_columns_that_were_made_up():
    narrow = replace(FAN, columns=56)
    off = {20: 0.05, 21: -0.04}
    found = ring_fit.offsets(lines_of(narrow, off=off), narrow)
    assert found is not None
    assert found.shape == (1, 56)
    np.testing.assert_allclose(found[0, [20, 21]], [0.05, -0.04], atol=8e-3)
