"""Solvers against dense algebra, optimality conditions and other implementations."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from DiffusionMBIRLib.errors import Cancelled, InputError
from DiffusionMBIRLib.geometry import Grid, ParallelBeam, view_angles
from DiffusionMBIRLib.monitor import Silent
from DiffusionMBIRLib.operators import LinearOperator, SliceDifference, projector
from DiffusionMBIRLib.operators.difference import Gradient
from DiffusionMBIRLib.operators.space import Space, slices_last
from DiffusionMBIRLib.solvers.cg import conjugate_gradient
from DiffusionMBIRLib.solvers.classic import admm_tv, sirt
from DiffusionMBIRLib.solvers.consistency import ZTVConsistency
from Testing.engine.memory import LiveBytes


class Dense(LinearOperator):
    """A matrix on flattened volumes."""

    def __init__(self, matrix: Tensor, domain: tuple[int, int, int]) -> None:
        super().__init__(Space(domain, matrix.dtype), Space((matrix.shape[0],), matrix.dtype))
        self.matrix = matrix

    def forward(self, x: Tensor) -> Tensor:
        return self.matrix @ x.reshape(-1)

    def adjoint(self, y: Tensor) -> Tensor:
        return (self.matrix.T @ y).reshape(self.domain.shape)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix_of(operator: LinearOperator) -> Tensor:
    units = torch.eye(math.prod(operator.domain.shape), dtype=torch.float64)
    return torch.stack([(operator @ unit.reshape(operator.domain.shape)).reshape(-1) for unit in units], dim=1)


def scanner(grid: Grid, views: int, dtype: torch.dtype = torch.float64) -> LinearOperator:
    A = projector(ParallelBeam.covering(grid, view_angles(views)), grid, dtype=dtype)
    return A.scaled(1 / A.norm())


# --- conjugate gradient


def test_cg_solves_a_definite_system_in_as_many_steps_as_unknowns():
    half = random(12, 12)
    matrix = half.T @ half + torch.eye(12, dtype=torch.float64)
    rhs, start = random(12, seed=1), random(12, seed=2)
    solved = conjugate_gradient(lambda p: matrix @ p, rhs, start, steps=12, tolerance=1e-14)
    assert torch.allclose(solved, torch.linalg.solve(matrix, rhs), atol=1e-9)


def test_cg_error_falls_with_every_step():
    half = random(40, 30)
    matrix = half.T @ half + 0.1 * torch.eye(30, dtype=torch.float64)
    rhs, start = random(30, seed=1), torch.zeros(30, dtype=torch.float64)
    exact = torch.linalg.solve(matrix, rhs)
    errors = []
    for steps in range(20):
        gap = conjugate_gradient(lambda p: matrix @ p, rhs, start, steps=steps) - exact
        errors.append(float(gap @ matrix @ gap))  # the norm that conjugate gradient minimises
    assert all(later < earlier for earlier, later in pairwise(errors))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cg_stays_put_once_a_singular_system_is_solved(dtype):
    half = random(5, 12).to(dtype)
    matrix = half.T @ half  # rank 5 of 12
    rhs, start = matrix @ random(12, seed=1).to(dtype), random(12, seed=2).to(dtype)
    done = conjugate_gradient(lambda p: matrix @ p, rhs, start, steps=12, tolerance=1e-5)
    longer = conjugate_gradient(lambda p: matrix @ p, rhs, start, steps=200, tolerance=1e-5)
    assert torch.linalg.vector_norm(matrix @ done - rhs) <= 2e-5 * torch.linalg.vector_norm(rhs)
    assert torch.isfinite(longer).all()
    assert torch.allclose(longer, done, atol=1e-3)
    # the part in the null space stays that of the start
    null = torch.eye(12, dtype=dtype) - torch.linalg.pinv(half) @ half
    assert torch.allclose(null @ longer, null @ start, atol=1e-3)


def test_cg_survives_an_exact_start_and_a_zero_system():
    rhs = random(2, 3, 4)
    for gram, start in ((lambda p: p, rhs), (torch.zeros_like, rhs), (lambda p: p, torch.zeros_like(rhs))):
        for right in (rhs, torch.zeros_like(rhs)):
            assert torch.isfinite(conjugate_gradient(gram, right, start, steps=5)).all()
    assert torch.equal(conjugate_gradient(lambda p: p, rhs, rhs, steps=5), rhs)


def test_cg_leaves_its_arguments_alone_and_ignores_memory_order():
    A = scanner(Grid((3, 8, 8)), 5)
    rhs, start = A.adjoint(A @ random(*A.domain.shape)), random(*A.domain.shape, seed=1)
    kept = rhs.clone(), start.clone()
    plain = conjugate_gradient(A.gram, rhs.contiguous(), start.contiguous(), steps=4)
    turned = conjugate_gradient(A.gram, slices_last(rhs), slices_last(start), steps=4)
    assert torch.equal(rhs, kept[0])
    assert torch.equal(start, kept[1])
    assert torch.allclose(plain, turned, atol=1e-10)


# --- data consistency with total variation along the slices

SMALL = (4, 3, 3)


def small_problem() -> tuple[Dense, Tensor, SliceDifference]:
    """An under-determined scan of a small volume."""
    matrix = random(20, 36, seed=5)
    A = Dense(matrix / torch.linalg.matrix_norm(matrix, 2), SMALL)
    return A, A @ random(*SMALL, seed=6), SliceDifference(A.domain, weight=0.8)


def step(A: Dense, y: Tensor, D: SliceDifference, **options) -> ZTVConsistency:
    usual = {"rho": 0.3, "lam": 0.02, "cg_steps": 60}
    chosen = {**usual, **options}
    return ZTVConsistency(A, y, difference=D, **chosen)


def test_one_sweep_is_the_written_equations():
    A, y, D = small_problem()
    scan, jump = A.matrix, matrix_of(D)
    rho, lam = 0.3, 0.02
    consistency = step(A, y, D)
    x = random(*SMALL, seed=7)
    z = w = torch.zeros(jump.shape[0], dtype=torch.float64)
    for _ in range(3):
        x = consistency(x)
        expected = torch.linalg.solve(scan.T @ scan + rho * jump.T @ jump, scan.T @ y + rho * jump.T @ (z - w))
        shifted = jump @ expected + w
        z = torch.sign(shifted) * (shifted.abs() - lam / rho).clamp_min(0)
        w = shifted - z
        assert torch.allclose(x.reshape(-1), expected, atol=1e-6)
        assert consistency.z is not None
        assert consistency.w is not None
        assert torch.allclose(consistency.z.reshape(-1), z, atol=1e-6)
        assert torch.allclose(consistency.w.reshape(-1), w, atol=1e-6)


@pytest.mark.slow
def test_sweeps_reach_the_minimiser():
    A, y, D = small_problem()
    lam = 0.02
    x = step(A, y, D, sweeps=400, cg_steps=20)(torch.zeros(SMALL, dtype=torch.float64))
    scan, jump = A.matrix, matrix_of(D)
    # Optimality: A^T (y - A x) = lam D^T u with |u| <= 1 and u = sign(D x) where D x is not zero.
    slope, jumps = scan.T @ (y - scan @ x.reshape(-1)) / lam, jump @ x.reshape(-1)
    u = torch.linalg.lstsq(jump.T, slope[:, None]).solution[:, 0]  # unique: D^T has full column rank
    assert torch.allclose(jump.T @ u, slope, atol=1e-5)
    assert float(u.abs().max()) <= 1 + 1e-5
    moving = jumps.abs() > 1e-5
    assert 0 < int(moving.sum()) < len(jumps)  # some slices are tied together, some are not
    assert torch.allclose(u[moving], torch.sign(jumps[moving]), atol=1e-4)


def test_duals_persist_until_reset():
    A, y, D = small_problem()
    start = random(*SMALL, seed=8)
    consistency = step(A, y, D)
    first, second = consistency(start), consistency(start)
    assert not torch.allclose(first, second)
    consistency.reset()
    assert torch.equal(consistency(start), first)
    chained = step(A, y, D)
    assert torch.equal(chained(chained(start)), step(A, y, D, sweeps=2)(start))


@pytest.mark.parametrize("options", [{"lam": 0.0}, {"rho": 0.0}, {"lam": 0.0, "rho": 0.0}])
def test_without_total_variation_it_is_plain_cg(options):
    A, y, D = small_problem()
    start = random(*SMALL, seed=8)
    expected = conjugate_gradient(A.gram, A.adjoint(y), start, steps=3)
    consistency = step(A, y, D, cg_steps=3, **options)
    assert torch.allclose(consistency(start), expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(consistency(start), expected, rtol=1e-12, atol=1e-12)


def test_one_slice_has_no_neighbours():
    matrix = random(6, 9)
    A = Dense(matrix, (1, 3, 3))
    y, start = A @ random(1, 3, 3, seed=1), random(1, 3, 3, seed=2)
    expected = conjugate_gradient(A.gram, A.adjoint(y), start, steps=3)
    D = SliceDifference(Space((1, 3, 3), torch.float64))
    assert torch.allclose(step(A, y, D, cg_steps=3)(start), expected, rtol=1e-12, atol=1e-12)


def test_consistency_keeps_its_argument_and_reports_the_residual():
    A, y, D = small_problem()
    consistency = step(A, y, D, lam=0.0)
    start = random(*SMALL, seed=8)
    kept = start.clone()
    x = consistency(start)
    assert torch.equal(start, kept)
    assert consistency.residual(torch.zeros_like(x)) == pytest.approx(1.0)
    assert consistency.residual(x) < 1e-6


# --- total variation by ADMM


def tv_objective(A: LinearOperator, y: Tensor, x: Tensor, lam: float, weights: tuple[float, float, float]) -> float:
    slope = Gradient(Space(x.shape, x.dtype), weights=weights) @ x
    return float(0.5 * (A @ x - y).square().sum() + lam * slope.square().sum(0).sqrt().sum())


def blocks(shape: tuple[int, int, int]) -> Tensor:
    x = torch.zeros(shape, dtype=torch.float64)
    x[:, 2:6, 1:4] = 1.0
    x[shape[0] // 2 :, 3:7, 3:6] += 0.5
    return x


WEIGHTS = (0.5, 1.0, 1.2)


def tv_problem() -> tuple[LinearOperator, Tensor]:
    grid = Grid((3, 8, 7))
    A = scanner(grid, 5)
    y = A @ blocks(grid.shape)
    return A, y + 0.01 * random(*y.shape, seed=3)


@pytest.mark.slow
def test_admm_tv_reaches_the_minimum():
    """Weak duality: 1/2 |y|^2 - 1/2 |y - q|^2 bounds the minimum from below where A^T q = D^T p with |p| <= lam."""
    A, y = tv_problem()
    lam = 0.01
    x = admm_tv(A, y, lam=lam, sweeps=400, weights=WEIGHTS, floor=None)
    upper = tv_objective(A, y, x, lam, WEIGHTS)
    # The residual q = y - A x satisfies A^T q = D^T p; any least-squares p that is short enough proves optimality.
    D = matrix_of(Gradient(Space((3, 8, 7), torch.float64), weights=WEIGHTS))
    q = y - A @ x
    slope = A.adjoint(q).reshape(-1)
    p = torch.zeros(len(D), dtype=torch.float64)
    size = torch.linalg.matrix_norm(D, 2) ** 2
    for _ in range(8000):
        p = (p - D @ (D.T @ p - slope) / size).reshape(3, -1)
        p = (p / (torch.linalg.vector_norm(p, dim=0) / lam).clamp_min(1)).reshape(-1)
    mismatch = torch.linalg.vector_norm(D.T @ p - slope) / torch.linalg.vector_norm(slope)
    assert float(mismatch) < 2e-3
    lower = float(0.5 * y.square().sum() - 0.5 * (y - q).square().sum())
    assert abs(upper - lower) < 2e-3 * upper
    for seed in range(5):
        other = x + 0.01 * random(*x.shape, seed=seed)
        assert tv_objective(A, y, other, lam, WEIGHTS) > upper


@pytest.mark.slow
def test_admm_tv_limit_depends_neither_on_rho_nor_on_the_start():
    A, y = tv_problem()
    options = {"lam": 0.01, "sweeps": 400, "weights": WEIGHTS}
    reference = admm_tv(A, y, **options)
    assert torch.allclose(admm_tv(A, y, rho=0.05, **options), reference, atol=2e-3)
    assert torch.allclose(admm_tv(A, y, start=random(*A.domain.shape), **options), reference, atol=2e-3)


def test_admm_tv_between_bounds_reaches_the_minimum():
    """Where the bounds bind, the slope of the rest points outwards (the conditions of Karush, Kuhn and Tucker)."""
    A = Dense(random(30, 24), (2, 3, 4))
    y = A.forward(random(2, 3, 4, seed=1))
    ceiling = random(2, 3, 4, seed=2).abs() * 0.3 + 0.2
    x = admm_tv(A, y, lam=0.0, rho=2.0, sweeps=3000, cg_steps=10, floor=0.0, ceiling=ceiling)
    assert x.min() >= 0
    assert (x <= ceiling).all()
    slope = A.adjoint(A.forward(x) - y)
    low, high = x < 1e-9, x > ceiling - 1e-9
    assert low.any()
    assert high.any()
    assert not (low | high).all()
    assert slope[~low & ~high].abs().max() < 1e-5
    assert slope[low].min() > -1e-5
    assert slope[high].max() < 1e-5
    free = admm_tv(A, y, lam=0.01, sweeps=300, floor=-9.0)
    assert torch.allclose(free, admm_tv(A, y, lam=0.01, sweeps=300, floor=-9.0, ceiling=ceiling + 9), atol=1e-6)
    assert (sirt(abs_of(A), y.abs(), iterations=5, ceiling=ceiling) <= ceiling).all()


def abs_of(A: Dense) -> Dense:
    return Dense(A.matrix.abs(), A.domain.shape)


def test_admm_tv_respects_the_floor_exactly():
    A, y = tv_problem()
    free = admm_tv(A, y, lam=0.001, floor=None)
    kept = admm_tv(A, y, lam=0.001, floor=0.1)
    assert float(free.min()) < 0.0
    assert float(kept.min()) >= 0.1
    assert float(admm_tv(A, y, lam=0.001).min()) >= 0.0
    start = random(*A.domain.shape)
    before = start.clone()
    admm_tv(A, y, lam=0.001, start=start, sweeps=2)
    assert torch.equal(start, before)


@pytest.mark.slow
def test_admm_tv_treats_a_turned_problem_alike():
    grid = Grid((2, 12, 12))
    x = torch.rand(grid.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    here = ParallelBeam.covering(grid, view_angles(5))
    there = ParallelBeam(tuple(angle + 90 for angle in here.angles_deg), here.columns, here.pitch_mm)
    results = []
    for geometry, volume in ((here, x), (there, torch.rot90(x, -1, dims=(1, 2)))):
        A = projector(geometry, grid, dtype=torch.float64).scaled(0.05)
        results.append(admm_tv(A, A @ volume, lam=0.01, sweeps=100))
    # D differs at the far ends only by which neighbour a pixel is compared with, so the limits are close, not equal
    error = torch.linalg.vector_norm(torch.rot90(results[0], -1, dims=(1, 2)) - results[1])
    assert float(error) < 0.02 * float(torch.linalg.vector_norm(results[0]))


def test_admm_tv_flattens_noise_and_lam_zero_is_least_squares():
    A, y = tv_problem()
    strong = admm_tv(A, y, lam=100.0, sweeps=300, floor=None)
    assert float(strong.std()) < 1e-3
    plain = admm_tv(A, y, lam=0.0, sweeps=200, floor=None)
    normal = torch.linalg.vector_norm(A.adjoint(A @ plain - y)) / torch.linalg.vector_norm(A.adjoint(y))
    assert float(normal) < 1e-3
    for options in ({"lam": -1.0}, {"lam": 1.0, "rho": 0.0}):
        with pytest.raises(InputError, match="lam >= 0 and rho > 0"):
            admm_tv(A, y, **options)


class Stopper(Silent):
    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        if done == 3:
            raise Cancelled(stage)


def test_a_monitor_may_stop_the_iterations():
    A, y = tv_problem()
    with pytest.raises(Cancelled, match="ADMM-TV"):
        admm_tv(A, y, lam=0.01, monitor=Stopper())
    with pytest.raises(Cancelled, match="SIRT"):
        sirt(A, y, monitor=Stopper())


class Impatient(Silent):
    """Ends the run at some poll, which comes many times a sweep."""

    def __init__(self, most: int) -> None:
        self.left, self.ticks = most, 0

    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        self.ticks += 1

    def poll(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Cancelled("within a sweep")


def test_a_sweep_may_be_ended_between_its_steps():
    A, y = tv_problem()
    monitor = Impatient(7)
    with pytest.raises(Cancelled, match="within a sweep"):
        admm_tv(A, y, lam=0.01, cg_steps=4, monitor=monitor)
    assert monitor.ticks == 1
    dense, data, D = small_problem()
    consistency = step(dense, data, D, cg_steps=5, poll=Impatient(3).poll)
    with pytest.raises(Cancelled, match="within a sweep"):
        consistency(random(*SMALL))


class Kept:
    """A checkpoint that keeps copies."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, Tensor]] = {}

    def load(self, stage: str) -> dict[str, Tensor] | None:
        return self.states.get(stage)

    def save(self, stage: str, state: dict[str, Tensor]) -> None:
        self.states[stage] = {name: value.clone() for name, value in state.items()}


@pytest.mark.parametrize("floor", [0.0, None])
def test_admm_tv_goes_on_to_the_same_volume_bit_for_bit(floor):
    A, y = tv_problem()
    whole = admm_tv(A, y, lam=0.01, sweeps=7, floor=floor)
    kept = Kept()
    with pytest.raises(Cancelled):
        admm_tv(A, y, lam=0.01, sweeps=7, floor=floor, monitor=Stopper(), checkpoint=kept)
    assert int(kept.states["ADMM-TV"]["done"]) == 3
    assert torch.equal(admm_tv(A, y, lam=0.01, sweeps=7, floor=floor, checkpoint=kept), whole)


@pytest.mark.slow
def test_solvers_hold_few_volumes():
    """x, three of gradients, one of the bound and three of conjugate gradient; A x and y are a seventh here."""
    grid = Grid((16, 48, 48))
    A = scanner(grid, 4, torch.float32)
    y = A @ random(*grid.shape).float()
    volume = 4 * grid.voxels
    live = LiveBytes(y)
    with torch.inference_mode(), live:
        admm_tv(A, y, lam=1e-3, sweeps=3)
    assert live.peak < 8.3 * volume
    consistency = ZTVConsistency(A, y, difference=SliceDifference(A.domain), rho=0.025, lam=2e-4, cg_steps=5)
    x = A.adjoint(y)
    live = LiveBytes(y, x)
    with torch.inference_mode(), live:
        for _ in range(3):
            consistency(x)
    assert live.peak < 5.3 * volume
