"""Direct reconstructions of cone beams and helical scans, from line integrals of balls by formula."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import ConeBeam, Grid, HelicalCone, RayGeometry, view_angles
from DiffusionMBIRLib.operators import Space
from DiffusionMBIRLib.solvers.direct import direct_reconstruction

GRID = Grid((24, 48, 44), (1.3, 1.2, 1.1), (5.0, -3.0, 2.0), isocentre_mm=(28.0, 24.0, 18.0))
MIDDLE, RADIUS, VALUE = np.array([6.0, -8.0, -1.5]), 9.0, 0.02
VIEWS = view_angles(120, 360.0)


def lines(geometry: RayGeometry) -> torch.Tensor:
    """Of a ball: (rows, views, columns)."""
    poses, (rows, columns) = geometry.poses(), geometry.detector
    out = np.zeros((rows, geometry.views, columns))
    assert poses.source is not None
    j, k = (np.arange(n) - (n - 1) / 2 for n in (rows, columns))
    for view in range(geometry.views):
        source, u, v = poses.source[view], poses.u[view], poses.v[view]
        ahead = poses.centre[view] - source
        if poses.arc:
            radius, pitch = np.linalg.norm(ahead), np.linalg.norm(u)
            turn = (k * pitch / radius)[:, None]
            columns_at = np.cos(turn) * ahead + np.sin(turn) * u * (radius / pitch)
        else:
            columns_at = ahead + k[:, None] * u
        ray = columns_at + j[:, None, None] * v
        ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
        to_ball = MIDDLE - source
        along = ray @ to_ball
        out[:, view] = VALUE * 2 * np.sqrt(np.maximum(RADIUS**2 - (to_ball @ to_ball - along**2), 0))
    return torch.from_numpy(out).float()


def places() -> tuple[np.ndarray, ...]:
    """(x, y, z) of the voxels in the isocentre world."""
    steps = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(GRID.shape[::-1], GRID.spacing_mm, strict=True)]
    x, y, z = (s + off for s, off in zip(steps, GRID.off_isocentre_mm, strict=True))
    z, y, x = np.meshgrid(z, y, x, indexing="ij")
    return x, y, z


def judge(geometry: RayGeometry, *, middle_mm: float = 0.1, mean: float = 0.004) -> None:
    """The ball has its value and stands where it should; there is nothing beside it."""
    A = SimpleNamespace(domain=Space(GRID.shape))
    found = direct_reconstruction(geometry)(A, lines(geometry), geometry, GRID)
    assert (found.shape, found.dtype) == (GRID.shape, torch.float32)
    image, at = found.numpy() / VALUE, places()
    away = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(at, MIDDLE, strict=True)))
    assert image[away < 6].mean() == pytest.approx(1, abs=mean)
    assert np.abs(image[away < 6] - 1).max() < 0.03
    beside = (away > 13) & (np.hypot(at[0], at[1]) < 24)
    assert abs(image[beside].mean()) < 2e-3
    dense = np.clip(image, 0.3, 1) - 0.3
    for axis, expected in zip(at, MIDDLE, strict=True):
        assert (dense * axis).sum() / dense.sum() == pytest.approx(expected, abs=middle_mm)


WIDE = ConeBeam.covering(GRID, VIEWS, sod_mm=200.0, sdd_mm=300.0)
CONES = {
    "flat": WIDE,
    "arc": ConeBeam.covering(GRID, VIEWS, sod_mm=200.0, sdd_mm=300.0, arc=True),
    "short scan": ConeBeam.covering(GRID, view_angles(80, 240.0, start_deg=50.0), sod_mm=200.0, sdd_mm=300.0),
    "shifted detector": replace(WIDE, offset_mm=-40.0, columns=84, row_offset_mm=5.0),
    "turned in its plane": replace(WIDE, roll_deg=7.0),
    "shifted view by view": replace(
        WIDE, shifts_mm=tuple(3 * np.sin(np.arange(120))), row_shifts_mm=tuple(np.cos(np.arange(120)))
    ),
}


@pytest.mark.parametrize("name", CONES)
def test_a_cone_recovers_a_ball(name):
    judge(CONES[name])


HELIX = HelicalCone.covering(GRID, view_angles(90, 360.0), sod_mm=200.0, sdd_mm=300.0)
HELICES = {
    "arc": HELIX,
    "flat": HelicalCone.covering(GRID, view_angles(90, 360.0), sod_mm=200.0, sdd_mm=300.0, arc=False),
    "steep": HelicalCone.covering(GRID, view_angles(90, 360.0), sod_mm=200.0, sdd_mm=300.0, rows=8, pitch=1.5),
    "downwards": replace(HELIX, travel_mm=-HELIX.travel_mm, start_mm=2 * GRID.off_isocentre_mm[2] - HELIX.start_mm),
    "views in any order": HELIX.take(np.random.default_rng(0).permutation(HELIX.views)),
    "shifted detector": replace(HELIX, offset_mm=20.0, row_offset_mm=1.0, start_mm=HELIX.start_mm - 0.6),
}


@pytest.mark.parametrize("name", HELICES)
def test_a_helix_recovers_a_ball(name):
    judge(HELICES[name], middle_mm=0.2)


def test_a_helix_of_uneven_views_a_turn_is_read_between_its_views():
    angles = np.arange(0, HELIX.turns * 360, 4.3)
    judge(replace(HELIX, angles_deg=tuple(angles)), middle_mm=0.25)


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (replace(CONES["arc"], roll_deg=3.0), "geometry.roll_deg: an arc .* use admm-tv"),
        (replace(HELIX, roll_deg=3.0), "geometry.roll_deg .* use admm-tv"),
        (HELIX.take(slice(0, 40)), r"geometry.angles_deg: 0.43 turns of a helix .* use admm-tv"),
    ],
)
def test_what_has_no_direct_reconstruction_says_so(geometry, message):
    A = SimpleNamespace(domain=Space(GRID.shape))
    with pytest.raises(InputError, match=message):
        direct_reconstruction(geometry)(A, torch.zeros(geometry.data_shape(24)), geometry, GRID)


def test_cones_are_reconstructed_as_by_rtk():
    """RTK's own phantom, projected by its formulas and filtered back by it, where the detector sees it."""
    from DiffusionMBIRLib.operators.backends.rtk import RTKTransform, import_rtk

    try:
        itk, rtk = import_rtk()
    except InputError as error:
        pytest.skip(str(error))
    grid = Grid((32, 32, 32), (6.4, 6.4, 6.4))
    geometry = ConeBeam(view_angles(60, 360.0), 66, 66, 8.0, 8.0, 600.0, 1000.0)
    A = RTKTransform(geometry, grid)
    image, empty = itk.Image[itk.F, 3], A._stack(np.zeros(A.range.shape, np.float32))
    phantom = rtk.SheppLoganPhantomFilter[image, image].New()
    phantom.SetInput(empty)
    phantom.SetPhantomScale(100.0)
    seen = A._result(phantom)
    y = torch.from_numpy(np.ascontiguousarray(seen.transpose(1, 0, 2)))
    feldkamp = rtk.FDKConeBeamReconstructionFilter[image].New()
    feldkamp.SetInput(0, A._volume(np.zeros(grid.shape, np.float32)))
    feldkamp.SetInput(1, A._stack(y.numpy()))
    theirs = A._result(feldkamp)[::-1].transpose(1, 0, 2)
    ours = direct_reconstruction(geometry)(A, y, geometry, grid).numpy()
    assert theirs.max() > 1.5
    assert np.linalg.norm(ours - theirs) < 1e-5 * np.linalg.norm(theirs)
