"""The operator of cone beams: exact adjoint, right places and values, the same by every kernel."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import ConeBeam, Grid, HelicalCone, PointSource, PosedBeam
from DiffusionMBIRLib.operators import projector
from DiffusionMBIRLib.operators.backends.rtk import import_rtk
from DiffusionMBIRLib.operators.footprints import ConeTransform, usual_kernel
from Testing.engine.cones import ANGLES, GRID, ellipsoids_on, ellipsoids_seen, random_poses, scanners, through_voxels
from Testing.engine.operators_contract import assert_operator, assert_poses, drawn

SCANNERS = scanners()
CPU = torch.device("cpu")


@pytest.mark.parametrize("name", SCANNERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_contract_is_kept(name, dtype):
    assert_operator(projector(SCANNERS[name], GRID, dtype=dtype), name)


@pytest.mark.parametrize("name", SCANNERS)
def test_torch_alone_computes_the_same(name):
    pytest.importorskip("numba")
    compiled, plain = (ConeTransform(SCANNERS[name], GRID, dtype=torch.float64, kernel=k) for k in ("numba", "torch"))
    x, y = drawn(compiled.domain, 1), drawn(compiled.range, 2)
    torch.testing.assert_close(plain.forward(x), compiled.forward(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(plain.adjoint(y), compiled.adjoint(y), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["flat", "arc", "shifted", "rolled"])
def test_blobs_appear_where_the_poses_say(name):
    grid = replace(GRID, isocentre_mm=(8.0, 5.0, 7.0))
    rows, columns = SCANNERS[name].detector
    geometry = replace(SCANNERS[name], rows=rows + 6, columns=columns + 6)
    assert_poses(geometry, projector(geometry, grid, dtype=torch.float64), grid, within=0.1)


@pytest.mark.parametrize("kernel", ["numba", "torch"])
def test_threads_change_nothing(kernel):
    pytest.importorskip("numba")
    before = torch.get_num_threads()
    try:
        made = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            parts = []
            for name in ("flat", "rolled"):
                A = ConeTransform(SCANNERS[name], GRID, kernel=kernel)
                parts += [A.forward(drawn(A.domain, 1)), A.adjoint(drawn(A.range, 2))]
            made.append(parts)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*made, strict=True))


def test_a_factor_goes_into_the_weights():
    A = projector(SCANNERS["flat"], GRID, dtype=torch.float64)
    x, y = drawn(A.domain, 1), drawn(A.range, 2)
    torch.testing.assert_close(A.scaled(0.3).scaled(2.0).forward(x), 0.6 * A.forward(x))
    torch.testing.assert_close(A.scaled(0.3).adjoint(y), 0.3 * A.adjoint(y))


def _require_rtk():
    try:
        import_rtk()
    except InputError as error:
        pytest.skip(str(error))


# --- against formulas

_DETECTOR = ConeBeam((0.0, 20.0, 45.0, 200.0), 36, 40, 5.6, 5.6, 250.0, 380.0)
_FINE = Grid((80, 80, 84), (1.2, 1.2, 1.2), isocentre_mm=(49.8, 47.4, 47.4))
_HALF = Grid((58, 58, 60), (1.67, 1.67, 1.67), isocentre_mm=(49.0, 47.2, 47.2))  # cells are 3.7 wide on the axis


@pytest.mark.parametrize(
    "changes",
    [{}, {"arc": True}, {"roll_deg": 30.0}, {"offset_mm": 9.0, "row_offset_mm": -5.0}, {"sod_mm": 120.0}],
    ids=["flat", "arc", "rolled", "shifted", "near"],
)
def test_ellipsoids_are_projected_as_the_formula_says(changes):
    """Errors that are left come from the ellipsoids' edges in voxels: RTK's Joseph, along middle rays, has 1.0 to 1.2 %
    (``test_our_error_is_below_that_of_joseph_s_method``).
    """
    geometry = replace(_DETECTOR, **changes)
    seen = projector(geometry, _FINE).forward(torch.from_numpy(ellipsoids_on(_FINE, 2)).float()).numpy()
    assert _error(seen, ellipsoids_seen(geometry, 3)) < 0.008
    assert seen.sum() == pytest.approx(ellipsoids_seen(geometry, 3).sum(), rel=1e-3)


def _error(seen, expected):
    return float(np.linalg.norm(seen - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("grid", [_FINE, _HALF], ids=["voxels of a third", "voxels of nearly half"])
@pytest.mark.parametrize("name", ["flat", "rolled", "poses"])
def test_our_error_is_below_that_of_joseph_s_method(name, grid):
    _require_rtk()
    if name == "poses":
        cells = {"rows": 36, "columns": 40, "pitch_mm": 6.5, "row_pitch_mm": 6.5}
        geometry: PointSource = replace(random_poses(3, 250.0, 2), **cells)
    else:
        geometry = replace(_DETECTOR, roll_deg=20.0 if name == "rolled" else 0.0)
    x, truth = torch.from_numpy(ellipsoids_on(grid, 3)).float(), ellipsoids_seen(geometry, 3)
    ours, joseph = (projector(geometry, grid, backend=b).forward(x).numpy() for b in ("own", "rtk"))
    assert _error(ours, truth) < _error(joseph, truth)


@pytest.mark.parametrize("roll_deg", [0.0, 20.0], ids=["flat", "rolled"])
def test_voxels_of_half_a_cell_are_projected_as_what_they_are(roll_deg):
    """Where voxels are no smaller their edges rule, and an ellipsoid cannot tell projectors apart: of the voxels' own
    projection RTK's Joseph, which takes them as samples of something linear, is off by 1.3 to 1.6 %.
    """
    geometry = replace(_DETECTOR.take([1]), rows=18, columns=20, roll_deg=roll_deg)
    half = geometry.pitch_mm / geometry.magnification / 2
    grid = Grid((28, 28, 28), (half,) * 3)
    x = ellipsoids_on(grid, 3)
    seen = projector(geometry, grid).forward(torch.from_numpy(x).float()).numpy()
    assert _error(seen, through_voxels(geometry, grid, x)) < 0.005


def test_a_turned_object_is_a_turned_scan():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.random((6, 10, 10)))
    grid = Grid((6, 10, 10), (2.0, 2.0, 2.0))
    for roll in (0.0, 4.0):
        here = replace(ConeBeam.covering(grid, (10.0, 100.0)), roll_deg=roll)
        there = replace(here, angles_deg=(100.0, 190.0))
        turned = torch.rot90(x, -1, (1, 2)).contiguous()  # from x towards y
        first, second = (projector(g, grid, dtype=torch.float64) for g in (here, there))
        torch.testing.assert_close(second.forward(turned), first.forward(x), rtol=1e-10, atol=1e-10)


def test_any_orientation_of_the_axis_gives_the_same_scan():
    """x, y and z change places, with the poses: layers along each axis are treated alike."""
    x = torch.from_numpy(np.random.default_rng(0).random((6, 8, 10)))
    here = random_poses(3, 40.0, 5)
    vectors = {name: getattr(here, name)[:, [1, 2, 0]] for name in PosedBeam.VECTORS}  # (x, y, z) -> (y, z, x)
    there = replace(here, **vectors)
    # New z is old x, new y old z, new x old y.
    turned = x.permute(2, 0, 1).contiguous()
    grids = Grid((6, 8, 10), (2.0, 2.0, 2.0)), Grid((10, 6, 8), (2.0, 2.0, 2.0))
    first, second = (projector(g, grid, dtype=torch.float64) for g, grid in zip((here, there), grids, strict=True))
    torch.testing.assert_close(second.forward(turned), first.forward(x), rtol=1e-9, atol=1e-9)


def test_far_away_the_cone_is_a_parallel_beam():
    grid = Grid((4, 12, 14), (2.0, 2.0, 2.0))
    x = torch.from_numpy(np.random.default_rng(0).random(grid.shape))
    cone = ConeBeam(ANGLES, 4, 20, 2.0, 2.0, 2e5, 2e5 + 1e-3, offset_mm=0.7)
    from DiffusionMBIRLib.geometry import ParallelBeam

    seen = projector(cone, grid, dtype=torch.float64).forward(x)
    stack = projector(ParallelBeam(ANGLES, 20, 2.0, 0.7), grid, dtype=torch.float64).forward(x)
    torch.testing.assert_close(seen, stack, rtol=1e-3, atol=1e-2)


def test_what_a_helix_sees_is_what_its_poses_see():
    helix = HelicalCone.covering(GRID, ANGLES, rows=4, arc=False)
    posed = PosedBeam.of(helix.poses(), *helix.detector)
    x = drawn(projector(helix, GRID, dtype=torch.float64).domain, 1)
    seen = [projector(g, GRID, dtype=torch.float64).forward(x) for g in (helix, posed)]
    torch.testing.assert_close(*seen, rtol=1e-9, atol=1e-9)


# --- what does not fit


def test_geometries_that_do_not_see_the_grid_are_refused():
    far = ConeBeam(ANGLES, 8, 8, 1.0, 1.0, 100.0, 200.0, offset_mm=500.0)
    with pytest.raises(InputError, match="the detector misses the grid in every view"):
        projector(far, GRID)
    near = ConeBeam(ANGLES, 8, 8, 1.0, 1.0, 10.0, 200.0)
    with pytest.raises(InputError, match=r"view \d \(angle .*\): the source stands within the grid"):
        projector(near, GRID)
    with pytest.raises(InputError, match="kernel 'cuda' is not known"):
        ConeTransform(SCANNERS["flat"], GRID, kernel="cuda")


def test_without_numba_torch_takes_its_place(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert usual_kernel(CPU) == "torch"
    A = projector(SCANNERS["flat"], GRID)
    assert A.kernel == "torch"
    assert float(A.forward(A.domain.ones()).max()) > 0


def test_rtk_keeps_the_contract():
    _require_rtk()
    grid = replace(GRID, isocentre_mm=(8.0, 5.0, 7.0))
    for name in ("shifted", "rolled"):
        A = projector(SCANNERS[name], grid, backend="rtk")
        assert_operator(A, name)
        z, y, x = np.indices(grid.shape)
        bump = torch.from_numpy(np.exp(-((z - 3) ** 2 + (y - 4) ** 2 + (x - 5) ** 2) / 4)).float()
        ours = projector(SCANNERS[name], grid).forward(bump)
        assert float((A.forward(bump) - ours).norm() / ours.norm()) < 0.1
    with pytest.raises(InputError, match="back end 'rtk' takes flat detectors only; use projector own"):
        projector(SCANNERS["arc"], GRID, backend="rtk")
