"""Rays of cells that an edge cuts, which count less, as no voxel explains them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.problems.ct import ct_problem
from DiffusionMBIRLib.problems.edges import lost_at_edges
from DiffusionMBIRLib.simulation import truth_for
from Testing.engine.helpers import body

FAST = ReconSettings(method="admm-tv", device="cpu")


def test_what_a_slope_loses_is_what_the_mean_of_intensities_says():
    """-log of the mean of exp(-p) over a cell in which p rises by g: log(sinh(g / 2) / (g / 2)) below the middle."""
    g = 0.4
    ramp = (g * torch.arange(5.0, dtype=torch.float64))[:, None, None].expand(5, 2, 3)
    expected = torch.full_like(ramp, float(np.log(np.sinh(g / 2) / (g / 2))))
    torch.testing.assert_close(lost_at_edges(ramp), expected, rtol=0.01, atol=0)


def test_a_whole_cell_beside_one_that_is_cut_loses_nothing():
    rows = torch.tensor([5.0, 5.0, 0.7, 0.0, 0.0])[:, None, None]
    lost = lost_at_edges(rows).ravel()
    assert torch.equal(lost != 0, torch.tensor([False, False, True, False, False]))
    assert lost_at_edges(rows[:1]).tolist() == [[[0.0]]]


@pytest.mark.parametrize("scanner", ["helical", "cone-beam"])
def test_the_truth_fits_better_where_cut_cells_count_less(scanner):
    """A block of water in air, 32 cm wide, whose ends cut detector cells: what it leaves of its data, with weights."""
    volume = body((8, 16, 16), (20.0, 20.0, 20.0))
    volume = replace(volume, array=np.zeros_like(volume.array))
    scan = mbir.simulate(volume, scanner=scanner, views=12)
    problem = ct_problem(scan, FAST, None, torch.device("cpu"))
    truth = torch.from_numpy(truth_for(volume, 1).array)
    x = (truth - problem.value.offset) / problem.value.scale
    weighted = float(problem.A.distance(x, problem.y) / problem.A.range.norm(problem.y))
    assert weighted < 0.5 * problem.residual(x)
