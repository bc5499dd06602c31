"""Direct reconstructions of beams from a point, from line integrals by formula."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from DiffusionMBIRLib.geometry import FanBeam, Grid, view_angles
from DiffusionMBIRLib.operators import projector
from DiffusionMBIRLib.solvers.direct import direct_reconstruction
from DiffusionMBIRLib.solvers.direct.circular import Circle, readings
from Testing.engine.helpers import fan_chords

BODY = ((6.0, -9.0), (34.0, 22.0), 25.0, 0.02)  # middle, half axes, turn in degrees, attenuation
CORE = ((-4.0, 3.0), (8.0, 6.0), -10.0, 0.015)
GRID = Grid((2, 72, 84), (1.2, 1.1, 1.0))


def smooth(geometry: FanBeam) -> torch.Tensor:
    """Line integrals of the phantom, means over each column: (2, views, columns); the second slice is the double."""
    parts = 4
    fine = geometry.divided(parts)
    total = np.sum([value * fan_chords(fine, *shape) for *shape, value in (BODY, CORE)], axis=0)
    one = torch.from_numpy(total).reshape(geometry.views, geometry.columns, parts).mean(-1)
    return torch.stack([one, 2 * one]).float()


def inside(shape, grid=GRID, shrink=0.85) -> np.ndarray:
    middle, axes, turn, _ = shape
    x = (np.arange(grid.shape[2]) - (grid.shape[2] - 1) / 2) * grid.spacing_mm[0] - middle[0]
    y = (np.arange(grid.shape[1]) - (grid.shape[1] - 1) / 2) * grid.spacing_mm[1] - middle[1]
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    u, v = (c * x + s * y[:, None]) / axes[0], (c * y[:, None] - s * x) / axes[1]
    return u * u + v * v < shrink**2


def judge(found: torch.Tensor, *, mean: float) -> None:
    """Values in the core, in the body around it and in the air, against the phantom's."""
    image = found[0].numpy()
    assert torch.allclose(found[1], 2 * found[0], atol=1e-5)
    core, around = inside(CORE), inside(BODY) & ~inside(CORE, shrink=1.3)
    seen = inside(((0.0, 0.0), (48.0, 48.0), 0.0, 0.0), shrink=1.0)
    air = ~inside(BODY, shrink=1.15) & seen
    for part, value, most in ((core, 0.035, 0.03), (around, 0.02, 0.1), (air, 0.0, 0.25)):  # streaks lie in the air
        assert image[part].mean() == pytest.approx(value, abs=mean * 0.02)
        assert np.abs(image[part] - value).max() < most * 0.02


SCANS = {
    "whole turn": (view_angles(180, 360.0), 0.0),
    "whole turn, irregular": (tuple(2 * k + 0.6 * math.sin(7 * k) for k in range(180)), 0.0),
    "short scan": (view_angles(125, 250.0, start_deg=33.0), 0.0),
    "half a turn and the fan": (view_angles(117, 234.0, start_deg=-70.0), 0.0),
    "turning back": (tuple(-a for a in view_angles(125, 250.0)), 0.0),
    "shifted detector": (view_angles(180, 360.0), 38.0),
    "detector shifted far to the other side": (view_angles(180, 360.0), -62.0),
}


@pytest.mark.parametrize("arc", [False, True], ids=["flat", "arc"])
@pytest.mark.parametrize("name", SCANS)
def test_fans_recover_ellipses(name, arc):
    angles, offset = SCANS[name]
    geometry = FanBeam(angles, 170, 1.1, 120.0, 200.0, offset_mm=offset, arc=arc)
    A = projector(replace(geometry, angles_deg=(0.0, 1.0)), GRID)  # for its domain
    found = direct_reconstruction(geometry)(A, smooth(geometry), geometry, GRID)
    judge(found, mean=0.002)


@pytest.mark.parametrize(("offset", "scan"), [(0.0, (240, 240.0)), (30.0, (360, 360.0)), (5.0, (90, 90.0))])
def test_each_line_counts_once(offset, scan):
    angles = view_angles(*scan)
    circle = Circle(angles, 400, 0.5, offset, 150.0, 250.0, arc=True)
    share = readings(circle).numpy()
    assert 0 <= share.min() <= share.max() <= 1
    gamma = np.degrees(circle.fan_angles(circle.places).numpy())
    # The other ray of each line: the nearest view and column, where there are such.
    view = np.mod(np.array(angles)[:, None] + 180 - 2 * gamma + 0.5, 360).astype(int)
    column = np.broadcast_to(np.rint((-circle.places.numpy() - offset) / 0.5 + 199.5).astype(int), view.shape)
    there = (view < len(angles)) & (column >= 0) & (column < 400)
    other = np.where(there, share[view.clip(max=len(angles) - 1), column.clip(0, 399)], 0)
    assert np.abs(share + other - 1).mean() < 0.02


def test_a_sparse_or_limited_scan_has_no_wrong_level():
    geometry = FanBeam(view_angles(24, 360.0), 170, 1.1, 120.0, 200.0)
    A = projector(geometry, GRID)
    found = direct_reconstruction(geometry)(A, smooth(geometry), geometry, GRID)
    assert float(found[0][torch.from_numpy(inside(CORE))].mean()) == pytest.approx(0.035, rel=0.05)
    quarter = replace(geometry, angles_deg=view_angles(90, 90.0))
    part = direct_reconstruction(quarter)(A, smooth(quarter), quarter, GRID)
    assert torch.isfinite(part).all()
    assert 0.2 < float(part[0].sum() / found[0].sum()) < 0.8


def test_the_result_is_in_the_layout_of_the_operator():
    geometry = FanBeam(view_angles(30, 360.0), 170, 1.1, 120.0, 200.0)
    A = projector(geometry, GRID)
    found = direct_reconstruction(geometry)(A, smooth(geometry), geometry, GRID, window="hann")
    assert (found.shape, found.dtype, found.stride()) == (A.domain.shape, torch.float32, A.domain.zeros().stride())
