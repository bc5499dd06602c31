"""CGLS, SIRT and ordered subsets against dense linear algebra, on every kind of scanner."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import ConeBeam, Grid, RayGeometry, geometry_kind, kinds_of, view_angles
from DiffusionMBIRLib.methods.os_sart import OSSART
from DiffusionMBIRLib.operators import LinearOperator, projector
from DiffusionMBIRLib.operators.base import RowWeighted
from DiffusionMBIRLib.problems.ct import ct_problem
from DiffusionMBIRLib.solvers.cgls import cgls
from DiffusionMBIRLib.solvers.classic import sirt
from DiffusionMBIRLib.solvers.subsets import interleaved, ordered_subsets, spread
from Testing.engine.helpers import body
from Testing.engine.test_solvers import Stopper

GRID = Grid((2, 3, 4), (1.5, 1.5, 2.0))
KINDS = tuple(kinds_of(RayGeometry))


def scanner(kind: str, views: int) -> RayGeometry:
    made = cast(type[RayGeometry], geometry_kind(kind))
    return made.covering(GRID, view_angles(views, 360.0))


def operators(kind: str, views: int, parts: int = 1) -> list[LinearOperator]:
    geometry = scanner(kind, views)
    groups = interleaved(geometry.angles_deg, parts)
    return [projector(geometry.take(group), GRID, dtype=torch.float64) for group in groups]


def dense(A: LinearOperator) -> Tensor:
    """(rays, voxels)."""
    units = torch.eye(A.domain.ones().numel(), dtype=torch.float64)
    return torch.stack([A.forward(unit.reshape(A.domain.shape)).flatten() for unit in units], 1)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_cgls_ends_at_the_least_squares_of_lapack(kind):
    (A,) = operators(kind, 7)
    A = RowWeighted(A, 0.1 + random(*A.range.shape, seed=1))
    y = random(*A.range.shape)  # of no volume
    expected = torch.linalg.lstsq(dense(A), y.flatten()[:, None], driver="gelsd").solution.reshape(GRID.shape)
    assert float((cgls(A, y, iterations=60) - expected).norm()) < 1e-5 * float(expected.norm())


def test_cgls_takes_the_smallest_of_many_solutions_and_stays_there():
    (A,) = operators("fan-beam", 1)
    y = A.forward(random(*GRID.shape))
    expected = (torch.linalg.pinv(dense(A)) @ y.flatten()).reshape(GRID.shape)
    for iterations in (30, 300):
        assert float((cgls(A, y, iterations=iterations) - expected).norm()) < 1e-6 * float(expected.norm())
    assert float(cgls(A, 0 * y).abs().max()) == 0


@pytest.mark.parametrize(("views", "parts", "passes"), [(5, 1, 700), (4, 2, 1500)])
@pytest.mark.parametrize("kind", KINDS)
def test_ordered_subsets_end_at_the_solution_that_is_smallest_in_their_norm(kind, views, parts, passes):
    made = operators(kind, views, parts)  # some of them see less than there are voxels
    truth = random(*GRID.shape)
    found = ordered_subsets([(A, A.forward(truth)) for A in made], passes=passes, floor=None)
    rows = [dense(A) for A in made]
    norm = torch.stack([A.sum(0) for A in rows]).amax(0).rsqrt()  # C^1/2
    matrix = torch.cat(rows)
    expected = norm * (torch.linalg.pinv(matrix * norm) @ (matrix @ truth.flatten()))
    assert float((found.flatten() - expected).norm()) < 1e-3 * float(expected.norm())


@pytest.mark.parametrize("kind", KINDS)
def test_one_subset_is_sirt_step_by_step(kind):
    (A,) = operators(kind, 5)
    y, matrix = random(*A.range.shape) - 0.3, dense(A)
    x, rows, columns = torch.zeros(24, dtype=torch.float64), matrix.sum(1), matrix.sum(0)
    inverse_rows = torch.where(rows > 1e-6 * rows.max(), 1 / rows, 0.0)
    for _ in range(3):
        x = (x + matrix.T @ ((y.flatten() - matrix @ x) * inverse_rows) / columns).clamp_min(0.02)
    torch.testing.assert_close(sirt(A, y, iterations=3, floor=0.02).flatten(), x)
    torch.testing.assert_close(ordered_subsets([(A, y)], passes=3, floor=0.02).flatten(), x)


def test_five_subsets_are_ahead_of_sirt():
    made = operators("cone-beam", 20, 5)
    truth = random(*GRID.shape)
    (A,) = operators("cone-beam", 20)
    parts = [(part, part.forward(truth)) for part in made]
    few, many = ordered_subsets(parts, passes=5, floor=None), sirt(A, A.forward(truth), iterations=15, floor=None)
    assert float((few - truth).norm()) < float((many - truth).norm())


def test_subsets_hold_each_view_once_and_follow_each_other_from_afar():
    angles = np.random.default_rng(0).permutation(view_angles(23, 360.0))
    groups = interleaved(angles, 5)
    assert sorted(view for group in groups for view in group) == list(range(23))
    assert all(np.diff(np.sort(angles[group])).max() < 5.5 * 360 / 23 for group in groups)
    assert len(interleaved(angles, 100)) == 23
    for number in (1, 2, 3, 8, 10, 60):
        assert sorted(spread(number)) == list(range(number))
    assert min(abs(a - b) for a, b in zip(spread(10), spread(10)[1:], strict=False)) >= 3


@pytest.mark.parametrize("solve", [cgls, sirt], ids=["CGLS", "SIRT"])
def test_a_monitor_may_stop_them_and_a_checkpoint_goes_on(solve):
    (A,) = operators("fan-beam", 6)
    y = random(*A.range.shape)
    whole = solve(A, y, iterations=6)

    class Memory:
        def __init__(self):
            self.state: dict[str, Tensor] = {}

        def save(self, stage, state):
            self.state = {name: value.clone() for name, value in state.items()}

        def load(self, stage):
            return self.state or None

    memory = Memory()
    with pytest.raises(mbir.Cancelled):
        solve(A, y, iterations=6, monitor=Stopper(), checkpoint=memory)
    assert int(memory.state["done"]) == 3
    torch.testing.assert_close(solve(A, y, iterations=6, checkpoint=memory), whole)
    with pytest.raises(ValueError, match="6 steps behind it"):
        solve(A, y, iterations=2, checkpoint=memory)


# --- of whole scans


@pytest.mark.parametrize("photons", [0.0, 1e5])
@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_problem_are_its_rows(kind, photons):
    scan = mbir.simulate(body((4, 12, 12)), scanner=kind, views=9, angle_range_deg=360.0, photons=photons)
    problem = ct_problem(scan, ReconSettings(), None, torch.device("cpu"))
    assert problem.of_views is not None
    x = random(*scan.grid.shape).float()
    whole = problem.A.forward(x)
    for views in ([2, 5], [0, 3, 4]):
        A, y = problem.of_views(views)
        torch.testing.assert_close(A.forward(x), whole[:, views], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(y, problem.y[:, views])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cgls", "os-sart"])
@pytest.mark.parametrize("kind", KINDS)
def test_they_reconstruct_every_scanner(kind, method):
    volume = body((8, 32, 32))
    scan = mbir.simulate(volume, scanner=kind, views=20, angle_range_deg=360.0, photons=1e6)
    settings = ReconSettings(method=method, device="cpu", sart_passes=10)
    result = mbir.reconstruct(scan, settings=settings)
    assert result.nfe == 0
    assert result.residual < 0.05
    assert np.corrcoef(result.volume.array.ravel(), mbir.truth_for(volume).array.ravel())[0, 1] > 0.98
    if method == "os-sart":
        same = mbir.reconstruct(scan, settings=replace(settings, subsets=1)).volume.array
        assert np.allclose(
            same, mbir.reconstruct(scan, settings=replace(settings, method="sirt", sirt_iterations=10)).volume.array
        )


def test_a_subset_that_sees_nothing_is_told_in_one_line():
    scan = mbir.simulate(body((4, 12, 12)), scanner="cone", views=4, angle_range_deg=360.0)
    assert isinstance(scan.geometry, ConeBeam)
    blind = replace(scan, geometry=replace(scan.geometry, shifts_mm=(0.0, 0.0, 0.0, 1e4)))
    with pytest.raises(InputError, match="setting subsets: of 4, number 4 cannot be.*misses the grid.*take fewer"):
        mbir.reconstruct(blind, settings=ReconSettings(method="os-sart", device="cpu"))
    assert OSSART().evaluations(ReconSettings(), scan.task, 4) == 0
