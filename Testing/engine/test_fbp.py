"""Filtered back-projection and SIRT of discs."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import Grid, ParallelBeam, view_angles
from DiffusionMBIRLib.operators import LinearOperator, projector
from DiffusionMBIRLib.solvers.classic import sirt
from DiffusionMBIRLib.solvers.direct.filters import angular_weights, ramp_filter
from DiffusionMBIRLib.solvers.direct.parallel import fbp


def scanner(grid: Grid, views: int, dtype: torch.dtype = torch.float64) -> LinearOperator:
    A = projector(ParallelBeam.covering(grid, view_angles(views)), grid, dtype=dtype)
    return A.scaled(1 / A.norm())


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def disc(grid: Grid, radius_mm: float, value: float) -> tuple[Tensor, Tensor]:
    """A disc with smooth edge (slices, rows, columns) and the mask well inside it."""
    rows, columns = grid.in_plane
    x = (torch.arange(columns, dtype=torch.float64) - (columns - 1) / 2) * grid.spacing_mm[0]
    y = (torch.arange(rows, dtype=torch.float64) - (rows - 1) / 2) * grid.spacing_mm[1]
    radius = (x[None, :] ** 2 + (y[:, None] - 3) ** 2).sqrt()
    image = value * (0.5 + (radius_mm - radius) / 2).clamp(0, 1)
    return image.expand(grid.shape).contiguous(), radius < 0.8 * radius_mm


@pytest.mark.parametrize("window", ["ramp", "hann"])
@pytest.mark.parametrize(
    ("grid", "pitch"),
    [
        (Grid((2, 64, 64)), None),
        (Grid((1, 64, 64)), 0.6),
        (Grid((1, 96, 50), (1.3, 0.7, 1.0)), None),
        (Grid((1, 65, 63), (0.8, 0.8, 1.0)), 1.0),
    ],
)
def test_fbp_recovers_a_disc(grid, pitch, window):
    image, inside = disc(grid, 20.0, 0.02)
    A = projector(ParallelBeam.covering(grid, view_angles(180), pitch), grid, dtype=torch.float64)
    result = fbp(A, A @ image, A.geometry, A.grid, window=window)
    assert result.shape == grid.shape
    assert float(result[:, inside].mean()) == pytest.approx(0.02, rel=0.01)
    assert float((result[:, inside] - 0.02).abs().max()) < 0.02 * 0.03


@pytest.mark.slow
@pytest.mark.parametrize(
    "angles",
    [
        view_angles(360, 360.0),
        view_angles(90, 180.0, start_deg=-45.0) + view_angles(45, 90.0, start_deg=1.0),
        tuple(111.246 * k for k in range(180)),
        tuple(sorted(180 * ((k + 0.3 * math.sin(5 * k)) / 180) for k in range(180))),
    ],
    ids=["full turn", "denser on one side", "golden angle", "jittered"],
)
def test_fbp_weighs_irregular_views(angles):
    grid = Grid((1, 64, 64))
    image, inside = disc(grid, 20.0, 0.02)
    A = projector(ParallelBeam.covering(grid, angles), grid, dtype=torch.float64)
    result = fbp(A, A @ image, A.geometry, A.grid)
    assert float(result[:, inside].mean()) == pytest.approx(0.02, rel=0.02)


def test_angular_weights_share_the_half_circle():
    assert torch.allclose(angular_weights(view_angles(8)), torch.full((8,), math.pi / 8, dtype=torch.float64))
    assert float(angular_weights((20.0,))) == pytest.approx(math.pi)
    for views in (12, 13):
        full = angular_weights(view_angles(views, 360.0))
        assert float(full.sum()) == pytest.approx(math.pi)
        assert float(full.max()) == pytest.approx(math.pi / views)
    wedge = angular_weights(view_angles(90, 90.0))
    assert torch.allclose(wedge, torch.full((90,), math.pi / 180, dtype=torch.float64))


def test_hann_is_smoother_than_ramp():
    y = random(2, 5, 40)
    sharp, smooth = ramp_filter(y, 1.0, "ramp"), ramp_filter(y, 1.0, "hann")
    assert float(smooth.square().sum()) < 0.5 * float(sharp.square().sum())
    assert torch.allclose(ramp_filter(y, 2.0, "ramp"), sharp / 2)  # a ramp in 1/mm
    with pytest.raises(InputError, match="'cosine' is not known"):
        ramp_filter(y, 1.0, "cosine")


def test_fbp_agrees_with_scikit_image():
    transform = pytest.importorskip("skimage.transform")
    grid = Grid((1, 65, 65))  # odd: both put the axis on the centre of the middle pixel
    image, _ = disc(grid, 20.0, 1.0)
    angles = view_angles(120)
    A = projector(ParallelBeam(angles, 65, 1.0), grid, dtype=torch.float64)
    y = A @ image
    ours = fbp(A, y, A.geometry, A.grid)[0].numpy()
    theirs = transform.iradon(y[0].numpy().T, theta=-np.asarray(angles), filter_name="ramp", circle=True)
    inside = np.hypot(*np.meshgrid(np.arange(-32, 33), np.arange(-32, 33))) < 30
    assert np.linalg.norm((ours - theirs)[inside]) < 0.03 * np.linalg.norm(theirs[inside])


# --- SIRT


def test_sirt_residual_falls_and_the_disc_appears():
    grid = Grid((2, 32, 32))
    image, inside = disc(grid, 10.0, 0.02)
    A = projector(ParallelBeam.covering(grid, view_angles(30)), grid, dtype=torch.float64)
    y = A @ image
    norms = [float(torch.linalg.vector_norm(y - A @ sirt(A, y, iterations=n, floor=None))) for n in (1, 2, 4, 8, 60)]
    assert all(later < earlier for earlier, later in pairwise(norms))
    result = sirt(A, y, iterations=200)
    assert float(result[:, inside].mean()) == pytest.approx(0.02, rel=0.01)


def test_sirt_keeps_the_floor_and_leaves_unseen_pixels():
    grid = Grid((1, 16, 16))
    A = projector(ParallelBeam((0.0, 90.0), 5, 1.0), grid, dtype=torch.float64)  # does not see the corners
    y = random(*A.range.shape)
    assert float(sirt(A, y, iterations=20).min()) >= 0.0
    assert float(sirt(A, y, iterations=20, floor=0.3).min()) >= 0.3
    free = sirt(A, y, iterations=20, floor=None)
    assert torch.isfinite(free).all()
    assert float(free.min()) < 0.0
    assert float(free[0, 0, 0]) == 0.0


@pytest.mark.parametrize("sides", ["both", "left"])
def test_rows_that_are_cut_off_are_filtered_as_if_they_went_on(sides):
    """Half an ellipse, of which 30 columns lie beyond an edge: inside, the ramp is nearly that of the whole."""
    x = torch.linspace(-1, 1, 201, dtype=torch.float64)
    whole = (1 - x**2).clamp_min(0).sqrt().expand(1, 3, -1).contiguous()
    last = -30 if sides == "both" else None
    expected = ramp_filter(whole, 1.0, "ramp")[..., 30:last]
    found = ramp_filter(whole[..., 30:last].contiguous(), 1.0, "ramp")
    assert found.shape == expected.shape
    error = (found - expected).abs()[..., 20:-20].max() / expected[0, 0, 100].abs()
    assert error < 0.2  # of a row that ends with a jump: 1.2
