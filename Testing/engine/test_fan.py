"""Fan beams: where source and detector stand, and the matrix against formulas, ray tracing and other libraries."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import FanBeam, Grid, ParallelBeam, view_angles
from DiffusionMBIRLib.operators import projector
from Testing.engine.helpers import fan_chords, fan_rays
from Testing.engine.operators_contract import assert_operator, assert_poses

IRREGULAR = (0.0, 12.5, 45.0, 90.0, 91.0, 135.0, 180.0, -37.3, 270.0)
GRIDS = {
    "square": Grid((2, 16, 16)),
    "odd, not square, anisotropic": Grid((3, 17, 23), (1.3, 0.7, 2.5)),
    "one column": Grid((2, 9, 1), (2.0, 0.5, 1.0)),
}


def fans(grid):
    for arc in (False, True):
        kind = "arc" if arc else "flat"
        yield kind, FanBeam.covering(grid, IRREGULAR, sod_mm=60, sdd_mm=110, arc=arc)
        yield f"{kind}, truncated and shifted", FanBeam(IRREGULAR, 7, 1.7, 60, 110, offset_mm=3.1, arc=arc)
        yield f"{kind}, near source, fine", FanBeam(view_angles(5), 90, 0.6, 25, 40, offset_mm=-2.0, arc=arc)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_the_transform_keeps_the_contract(grid, dtype):
    for name, geometry in fans(grid):
        assert_operator(projector(geometry, grid, dtype=dtype), name)


@pytest.mark.parametrize("isocentre_mm", [None, (-3.0, 2.0, 5.0)])
@pytest.mark.parametrize("arc", [False, True])
def test_what_is_seen_lies_where_the_poses_say(arc, isocentre_mm):
    grid = Grid((3, 17, 23), (1.3, 0.7, 2.5), (4.0, -1.0, 2.0), isocentre_mm=isocentre_mm)
    wide = FanBeam.covering(grid, IRREGULAR, sod_mm=250, sdd_mm=400, arc=arc)
    for geometry in (wide, replace(wide, columns=wide.columns + 20, offset_mm=7.3)):
        assert_poses(geometry, projector(geometry, grid), grid)
    moved = replace(wide, offset_mm=0.3)
    with pytest.raises(AssertionError, match="view 0"):
        assert_poses(moved, projector(wide, grid), grid)


# --- against formulas


def ellipse(grid: Grid, middle, axes, turn_deg, sub: int = 4) -> torch.Tensor:
    """Share of every pixel inside the ellipse."""
    (rows, columns), (dx, dy) = grid.in_plane, grid.spacing_mm[:2]
    x = ((np.arange(columns * sub) + 0.5) / sub - columns / 2) * dx - middle[0]
    y = ((np.arange(rows * sub) + 0.5) / sub - rows / 2) * dy - middle[1]
    c, s = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    u, v = (c * x + s * y[:, None]) / axes[0], (c * y[:, None] - s * x) / axes[1]
    inside = (u * u + v * v <= 1).reshape(rows, sub, columns, sub).mean((1, 3))
    return torch.from_numpy(inside)[None]


@pytest.mark.parametrize("offset_mm", [0.0, 13.0])
@pytest.mark.parametrize("arc", [False, True])
def test_an_ellipse_has_the_line_integrals_of_its_formula(arc, offset_mm):
    grid = Grid((1, 320, 256), (0.5, 0.6, 1.0))
    shape = ((14.0, -22.0), (40.0, 25.0), 30.0)
    geometry = FanBeam((0.0, 40.0, 90.0, 200.0, 311.0), 260, 1.6, 250.0, 400.0, offset_mm=offset_mm, arc=arc)
    found = (projector(geometry, grid, dtype=torch.float64) @ ellipse(grid, *shape))[0].numpy()
    exact = fan_chords(geometry.divided(5), *shape).reshape(5, 260, 5).mean(2)
    for view in range(geometry.views):
        assert np.linalg.norm(found[view] - exact[view]) < 5e-3 * np.linalg.norm(exact[view])
        assert found[view].sum() == pytest.approx(exact[view].sum(), rel=1e-3)


@pytest.mark.parametrize("arc", [False, True])
@pytest.mark.parametrize("place", [(0, 0), (2, 3), (4, 1)])
def test_entries_are_mean_lengths_of_rays_in_a_pixel(arc, place):
    """Against many rays through one pixel (slabs)."""
    grid = Grid((1, 5, 4), (1.5, 0.8, 1.0))
    geometry = FanBeam((17.0, 90.0, 200.0), 11, 1.3, 30.0, 48.0, offset_mm=0.4, arc=arc)
    point = torch.zeros(grid.shape, dtype=torch.float64)
    point[0, place[0], place[1]] = 1
    found = (projector(geometry, grid, dtype=torch.float64) @ point)[0].numpy()
    middle = np.array([(place[1] - 1.5) * 1.5, (place[0] - 2) * 0.8])
    sub = 400
    places = ((np.arange(11 * sub) + 0.5) / sub - 5.5) * 1.3 + 0.4
    for view in range(geometry.views):
        source, direction = fan_rays(geometry, view, places)
        ahead = np.stack([(middle + side * np.array([0.75, 0.4]) - source) / direction for side in (-1, 1)])
        near, far = ahead.min(0).max(1), ahead.max(0).min(1)
        exact = np.maximum(far - near, 0).reshape(11, sub).mean(1)
        np.testing.assert_allclose(found[view], exact, atol=0.02)
        assert found[view].sum() == pytest.approx(exact.sum(), rel=2e-3)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_compiled_entries_are_those_of_torch(grid, monkeypatch):
    pytest.importorskip("numba")
    for _, geometry in fans(grid):
        compiled = projector(geometry, grid, dtype=torch.float64)
        with monkeypatch.context() as without:
            without.setitem(sys.modules, "numba", None)
            plain = projector(geometry, grid, dtype=torch.float64)
        x, y = (torch.rand(space.shape, dtype=torch.float64) for space in (plain.domain, plain.range))
        torch.testing.assert_close(compiled.forward(x), plain.forward(x), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(compiled.adjoint(y), plain.adjoint(y), rtol=1e-11, atol=1e-11)


def test_a_rotated_object_equals_a_rotated_scan():
    grid = Grid((2, 20, 20))
    x = torch.rand(grid.shape, dtype=torch.float64)
    for arc in (False, True):
        here = FanBeam((10.0, 55.0, 120.0), 40, 1.5, 60, 90, offset_mm=4.0, arc=arc)
        there = replace(here, angles_deg=tuple(a + 90.0 for a in here.angles_deg))
        a = projector(here, grid, dtype=torch.float64) @ x
        b = projector(there, grid, dtype=torch.float64) @ torch.rot90(x, -1, dims=(1, 2))
        assert torch.allclose(a, b, atol=1e-10)


@pytest.mark.parametrize("arc", [False, True])
def test_a_far_source_makes_parallel_beams(arc):
    grid = Grid((2, 20, 24), (1.1, 0.9, 1.0))
    x = torch.rand(grid.shape, dtype=torch.float64)
    parallel = ParallelBeam((10.0, 55.0, 200.0), 30, 1.2, offset_mm=2.5)
    far = FanBeam(parallel.angles_deg, 30, 1.2, 1e6, 1e6, offset_mm=2.5, arc=arc)
    a, b = (projector(geometry, grid, dtype=torch.float64) @ x for geometry in (parallel, far))
    assert torch.linalg.vector_norm(a - b) < 1e-4 * torch.linalg.vector_norm(a)


def test_an_arc_of_small_angles_is_flat_and_one_of_large_angles_is_not():
    grid = Grid((1, 20, 20))
    x = torch.rand(grid.shape, dtype=torch.float64)
    for columns, alike in ((9, True), (81, False)):
        flat = FanBeam((0.0, 70.0), columns, 0.5, 30.0, 40.0)
        a, b = (projector(replace(flat, arc=arc), grid, dtype=torch.float64) @ x for arc in (False, True))
        error = torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(a)
        assert bool(error < 2e-3) is alike, float(error)


def test_a_detector_is_divided_where_it_stands():
    for arc in (False, True):
        geometry = FanBeam((0.0, 30.0), 12, 1.5, 60, 90, offset_mm=4.0, arc=arc)
        grid = Grid((1, 16, 16))
        x = torch.rand(grid.shape, dtype=torch.float64)
        whole, parts = (projector(g, grid, dtype=torch.float64) @ x for g in (geometry, geometry.divided(3)))
        assert torch.allclose(parts.reshape(1, 2, 12, 3).mean(-1), whole, rtol=1e-3)


# --- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sod_mm": 900.0}, "geometry.sod_mm 900 is above geometry.sdd_mm 800: .*exchanged"),
        ({"sod_mm": 0.0}, "geometry.sod_mm must be positive"),
        ({"pitch_mm": math.nan}, "geometry.pitch_mm holds a value that is not finite"),
        ({"columns": 0}, "geometry.columns must be a positive integer"),
        ({"angles_deg": (30.0,) * 5}, "geometry.angles_deg holds 5 times 30: the scanner does not turn"),
        ({"arc": True, "columns": 4000}, "an arc of 4000 columns goes 143 degrees"),
    ],
)
def test_a_scanner_that_cannot_be_is_refused(change, message):
    usual = {"angles_deg": (0.0, 10.0), "columns": 8, "pitch_mm": 1.0, "sod_mm": 500.0, "sdd_mm": 800.0}
    with pytest.raises(InputError, match=message):
        FanBeam(**{**usual, **change})


def test_a_detector_that_misses_the_object_is_refused():
    geometry = FanBeam((0.0, 90.0), 20, 1.0, 500.0, 800.0, offset_mm=200.0)
    with pytest.raises(InputError, match="the detector sees no part of the grid; check geometry.offset_mm"):
        projector(geometry, Grid((1, 16, 16)))


def test_a_source_within_the_object_is_refused():
    grid = Grid((1, 64, 64))
    with pytest.raises(InputError, match="the source goes through the grid"):
        projector(FanBeam((0.0, 90.0), 20, 1.0, 30.0, 800.0), grid)
    with pytest.raises(InputError, match="geometry.sod_mm 40 must be larger than 45.2"):
        FanBeam.covering(grid, (0.0, 90.0), sod_mm=40.0)
    beside = projector(FanBeam((45.0, 135.0), 20, 1.0, 50.0, 800.0), replace(grid, isocentre_mm=(40.0, 31.5, 0.0)))
    assert torch.isfinite(beside.forward(torch.ones(grid.shape))).all()
