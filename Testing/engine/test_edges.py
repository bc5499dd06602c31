"""What rays lose where an edge runs across detector rows is given back, and what no voxel explains counts less."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.operators import projector
from DiffusionMBIRLib.problems import edges
from DiffusionMBIRLib.problems.ct import ct_problem
from DiffusionMBIRLib.problems.edges import give_back, lost_at_edges
from DiffusionMBIRLib.simulation import truth_for
from Testing.engine.helpers import body

FAST = ReconSettings(method="admm-tv", device="cpu")


@pytest.mark.parametrize("axis", [0, 2])
def test_what_a_slope_loses_is_what_the_mean_of_intensities_says(axis):
    """-log of the mean of exp(-p) over a cell in which p rises by g: log(sinh(g / 2) / (g / 2)) below the middle."""
    g = 0.4
    ramp = (g * torch.arange(5.0, dtype=torch.float64))[:, None, None].expand(5, 2, 3)
    ramp = ramp.swapaxes(0, axis)
    below = float(np.log(np.sinh(g / 2) / (g / 2)))
    lost, unsure = lost_at_edges(ramp, axis)
    torch.testing.assert_close(lost, torch.full_like(ramp, below), rtol=0.01, atol=0)
    assert float(unsure.max()) < 1e-12
    seen, variance = ramp - below, torch.zeros_like(ramp)
    give_back(seen, axis == 0, variance=variance)
    torch.testing.assert_close(seen, ramp, rtol=0, atol=1e-4)
    assert float(variance.max()) < 1e-20


def test_a_whole_cell_beside_one_that_is_cut_loses_nothing():
    rows = torch.tensor([5.0, 5.0, 0.7, 0.0, 0.0])[:, None, None]
    lost, unsure = (t.ravel() for t in lost_at_edges(rows, 0))
    cut = torch.tensor([False, False, True, False, False])
    assert torch.equal(lost != 0, cut)
    assert torch.equal(unsure != 0, cut)
    assert unsure[2] > lost[2]  # how far half a cell lies below is not to be known from its neighbours
    assert [t.tolist() for t in lost_at_edges(rows[:1], 0)] == [[[[0.0]]]] * 2


def test_a_peak_between_rows_is_left_as_it_is():
    rows = torch.tensor([1.0, 2.0, 1.0])[:, None, None]
    assert float(lost_at_edges(rows, 0)[0][1]) == 0


@pytest.mark.parametrize("axis", [0, 2])
def test_a_cell_that_is_not_trusted_tells_of_no_slope(axis):
    ramp = torch.arange(6.0)[:, None, None].swapaxes(0, axis)
    spoilt, trusted = ramp.clone(), torch.ones(ramp.shape, dtype=torch.bool)
    spoilt.select(axis, 3).fill_(9.0)
    trusted.select(axis, 3).fill_(False)
    lost = [lost_at_edges(some, axis, trusted)[0].ravel() for some in (ramp, spoilt)]
    assert torch.equal(*lost)
    assert (lost[0] > 0).tolist() == [True, True, False, False, False, True]


def test_views_may_come_in_parts(monkeypatch):
    rows = torch.from_numpy(np.random.default_rng(0).random((4, 7, 3)))
    whole, parts = (rows.clone(), torch.zeros_like(rows)), (rows.clone(), torch.zeros_like(rows))
    give_back(whole[0], True, rows > 0.2, whole[1])
    monkeypatch.setattr(edges, "_AT_ONCE", 24)
    give_back(parts[0], True, rows > 0.2, parts[1])
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_the_scan_itself_is_not_written_to():
    scan = mbir.simulate(body((6, 16, 16), (20.0, 20.0, 20.0)), scanner="cone-beam", views=12)
    before = scan.data.copy()
    problem = ct_problem(scan, FAST, None, torch.device("cpu"))
    problem.residual(problem.A.domain.zeros())
    np.testing.assert_array_equal(scan.data, before)


def test_line_integrals_that_are_no_means_of_intensities_can_be_left_as_they_are():
    scan = mbir.simulate(body((2, 16, 16), (20.0, 20.0, 20.0)), views=12)
    problem = ct_problem(scan, replace(FAST, edge_gradient=False), None, torch.device("cpu"))
    A = projector(scan.geometry, scan.grid)
    x = torch.rand(scan.grid.shape)
    mu = (x * problem.value.scale + problem.value.offset + 1000) / 1000 * scan.mu_water_per_mm
    came = torch.from_numpy(scan.data)
    assert problem.residual(x) == pytest.approx(float((A.forward(mu) - came).norm() / came.norm()), rel=1e-4)


@pytest.mark.parametrize("scanner", ["parallel-beam", "fan-beam"])
def test_the_truth_fits_better_along_columns(scanner):
    """A disc of water in air: its rim loses most, and that is given back."""
    volume = body((2, 32, 32), (10.0, 10.0, 10.0))
    y, x = np.mgrid[-15.5:16, -15.5:16]
    disc = np.where(np.hypot(x, y) < 11, 0.0, -1000.0)
    volume = replace(volume, array=np.broadcast_to(disc, volume.array.shape).astype(np.float32).copy())
    scan = mbir.simulate(volume, scanner=scanner, views=24, angle_range_deg=360, coarsen=2)
    problem = ct_problem(scan, FAST, None, torch.device("cpu"))
    truth = torch.from_numpy(truth_for(volume, 2).array)
    A = projector(scan.geometry, scan.grid)
    came = torch.from_numpy(scan.data)
    left = A.forward(((1 + truth / 1000) * scan.mu_water_per_mm).contiguous()).sub_(came)
    x = (truth - problem.value.offset) / problem.value.scale
    assert problem.residual(x) < float(left.norm() / came.norm())


@pytest.mark.parametrize("scanner", ["helical", "cone-beam"])
def test_the_truth_fits_better_than_the_data_as_they_came(scanner):
    """A block of water in air, 32 cm wide, whose ends cut detector cells: what it leaves of its data."""
    volume = body((8, 16, 16), (20.0, 20.0, 20.0))
    volume = replace(volume, array=np.zeros_like(volume.array))
    scan = mbir.simulate(volume, scanner=scanner, views=12)
    problem = ct_problem(scan, FAST, None, torch.device("cpu"))
    truth = torch.from_numpy(truth_for(volume, 1).array)
    A = projector(scan.geometry, scan.grid)
    came = torch.from_numpy(scan.data)
    left = A.forward((1 + truth / 1000) * scan.mu_water_per_mm).sub_(came)
    before = float(left.norm() / came.norm())
    x = (truth - problem.value.offset) / problem.value.scale
    given = problem.residual(x)
    weighted = float(problem.A.distance(x, problem.y) / problem.A.range.norm(problem.y))
    assert weighted < given < before
    assert weighted < 0.5 * before
