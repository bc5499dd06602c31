"""The accelerated conjugate gradient: the same solutions as the plain one in fewer steps, and a state that resumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import Cancelled, InputError
from DiffusionMBIRLib.geometry import Grid, ParallelBeam, view_angles
from DiffusionMBIRLib.methods import require_fitting
from DiffusionMBIRLib.monitor import Silent
from DiffusionMBIRLib.operators import LinearOperator, SliceDifference, projector
from DiffusionMBIRLib.operators.space import Space, dot
from DiffusionMBIRLib.solvers.cg import conjugate_gradient
from DiffusionMBIRLib.solvers.consistency import ZTVConsistency
from DiffusionMBIRLib.solvers.recycled import CirculantPreconditioner, RecycledGradient
from Testing.engine.memory import LiveBytes

GRID = Grid((4, 40, 36))


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def limited(dtype: torch.dtype = torch.float64, grid: Grid = GRID, views: int = 45) -> LinearOperator:
    """Views over 90 degrees."""
    geometry = ParallelBeam.covering(grid, view_angles(views, angle_range_deg=90.0))
    A = projector(geometry, grid, dtype=dtype)
    return A.scaled(1 / A.norm())


def damped(A: LinearOperator, amount: float = 1e-3):
    return lambda x: A.gram(x) + amount * x


# --- the preconditioner


def test_the_preconditioner_is_symmetric_and_positive_whatever_the_chunk(monkeypatch):
    precondition = CirculantPreconditioner(limited(), 0.03)
    a, b = random(*GRID.shape), random(*GRID.shape, seed=1)
    assert float(dot(precondition(a), b)) == pytest.approx(float(dot(a, precondition(b))), rel=1e-10)
    assert all(float(dot(precondition(v), v)) > 0 for v in (a, b))
    whole = precondition(a)
    monkeypatch.setattr("DiffusionMBIRLib.solvers.recycled._CHUNK", 1)
    assert torch.allclose(CirculantPreconditioner(limited(), 0.03)(a), whole, rtol=1e-9)


class Blur(LinearOperator):
    """A periodic convolution, so that the preconditioner knows it exactly."""

    def __init__(self) -> None:
        super().__init__(Space(GRID.shape, torch.float64), Space(GRID.shape, torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.3 * (x.roll(1, 1) + x.roll(-1, 1)) + 0.1 * (x.roll(1, 2) + x.roll(-1, 2))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.forward(y)


@pytest.mark.parametrize("coupling", [0.0, 0.3])
def test_a_convolution_with_differences_across_slices_is_inverted(coupling):
    """Up to the factor that scales the largest eigenvalue of the convolution, 1.8^2, to one."""
    A, x, amount = Blur(), random(*GRID.shape), 0.01
    D = SliceDifference(Space(GRID.shape, torch.float64), weight=coupling**0.5)
    again = CirculantPreconditioner(A, amount, coupling)(A.gram(x) / 1.8**2 + amount * x + D.gram(x))
    assert torch.allclose(again, x, atol=1e-10)


# --- the descent


def error_after(steps: int, precondition: CirculantPreconditioner | None) -> float:
    """In the norm that conjugate gradient lowers, for an object in the middle."""
    A, truth = limited(), torch.zeros(GRID.shape, dtype=torch.float64)
    truth[:, 10:30, 9:27] = random(4, 20, 18)
    gram = damped(A)
    x = RecycledGradient(precondition)(gram, gram(truth), torch.zeros_like(truth), steps=steps)
    error = x - truth
    return float(dot(error, gram(error)))


def test_without_a_preconditioner_the_first_call_is_plain_conjugate_gradient():
    A, rhs, start = limited(), random(*GRID.shape), random(*GRID.shape, seed=1)
    gram = damped(A)
    expected = conjugate_gradient(gram, rhs, start, steps=6)
    assert torch.allclose(RecycledGradient()(gram, rhs - gram(start), start.clone(), steps=6), expected, atol=1e-9)


@pytest.mark.slow
def test_the_preconditioner_saves_steps():
    precondition = CirculantPreconditioner(limited(), 0.01)
    assert error_after(3, precondition) < 0.5 * error_after(5, None)
    assert error_after(5, precondition) < error_after(10, None)
    errors = [error_after(steps, precondition) for steps in (1, 3, 10, 40)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-4 * errors[0]


def test_the_way_of_the_last_call_is_taken_without_a_step():
    """The same right-hand side and guess again: all is there before the first product with the system."""
    A, truth = limited(), random(*GRID.shape)
    gram = damped(A)
    solver = RecycledGradient(CirculantPreconditioner(A, 0.03))
    first = solver(gram, gram(truth), torch.zeros_like(truth), steps=3)
    products = 0

    def counted(x: Tensor) -> Tensor:
        nonlocal products
        products += 1
        return gram(x)

    again = solver(counted, gram(truth), torch.zeros_like(truth), steps=0)
    assert products == 0
    assert torch.allclose(again, first, atol=1e-10)
    slowly = RecycledGradient(CirculantPreconditioner(A, 0.03))
    for _ in range(4):  # each call goes on from the last one
        x = slowly(gram, gram(truth), torch.zeros_like(truth), steps=1)
    alone = RecycledGradient(CirculantPreconditioner(A, 0.03))(gram, gram(truth), torch.zeros_like(truth), steps=1)
    assert float(dot(x - truth, gram(x - truth))) < 0.5 * float(dot(alone - truth, gram(alone - truth)))


def test_a_call_never_makes_it_worse():
    """Whatever was carried: 1/2 x^T S x - b^T x falls, also where the next problem is unlike the last."""
    A = limited()
    gram, solver = damped(A), RecycledGradient(CirculantPreconditioner(A, 0.03))
    for seed in range(6):
        b, start = gram(random(*GRID.shape, seed=seed)), random(*GRID.shape, seed=seed + 10)

        def value(x: Tensor, b: Tensor = b) -> float:
            return float(0.5 * dot(x, gram(x)) - dot(b, x))

        before = value(start)
        assert value(solver(gram, b - gram(start), start.clone(), steps=1)) < before


def test_a_solved_or_empty_system_stays_finite():
    A, zero = limited(), torch.zeros(GRID.shape, dtype=torch.float64)
    solver = RecycledGradient(CirculantPreconditioner(A, 0.03))
    for _ in range(3):
        assert torch.equal(solver(A.gram, zero.clone(), zero.clone(), steps=3), zero)
    truth = random(*GRID.shape)
    for _ in range(30):
        x = solver(A.gram, A.gram(truth), zero.clone(), steps=5, floor=1e-12)
    assert torch.linalg.vector_norm(A @ (x - truth)) < 0.02 * torch.linalg.vector_norm(A @ truth)


# --- in the data step


def consistency(A: LinearOperator, y: Tensor, **options) -> ZTVConsistency:
    solver = RecycledGradient(CirculantPreconditioner(A, 0.03))
    chosen = {"rho": 0.01, "lam": 1e-4, "cg_steps": 2, "solver": solver, **options}
    return ZTVConsistency(A, y, difference=SliceDifference(A.domain), **chosen)


def test_the_state_goes_on_bit_for_bit_and_reset_forgets():
    A = limited()
    y = A @ random(*GRID.shape)
    guesses = [random(*GRID.shape, seed=k) for k in range(4)]
    whole = consistency(A, y)
    results = [whole(x) for x in guesses]
    first = consistency(A, y)
    for x in guesses[:2]:
        first(x)
    kept = {name: value.clone() for name, value in first.state().items()}
    assert set(kept) == {"shifted", "moved", "image", "pull"}
    second = consistency(A, y)
    second.restore(kept)
    assert all(torch.equal(second(x), result) for x, result in zip(guesses[2:], results[2:], strict=True))
    second.reset()
    assert set(second.state()) == {"pull"}
    assert torch.equal(second(guesses[0]), results[0])


def test_what_was_carried_follows_the_system():
    """The weight of noise is another one at each noise level, and with it the system."""
    A = limited()
    y, solver = A @ random(*GRID.shape), RecycledGradient(CirculantPreconditioner(A, 0.03))
    step = consistency(A, y, noise=0.1, lam=0.0, solver=solver)
    step(random(*GRID.shape), 0.2)
    step(random(*GRID.shape, seed=1), 0.1)
    assert solver.moved is not None
    assert solver.image is not None
    assert torch.allclose(solver.image, A.gram(solver.moved) + (0.1 / 0.1) ** 2 * solver.moved, atol=1e-9)


@pytest.mark.slow
def test_it_holds_few_volumes(monkeypatch):
    """Beside x: what moved and its image, D x + w, residual, direction and its image, or the next direction."""
    monkeypatch.setattr("DiffusionMBIRLib.solvers.recycled._CHUNK", 4096)
    grid = Grid((8, 64, 64))
    A = limited(torch.float32, grid, views=4)
    y = A @ random(*grid.shape, dtype=torch.float32)
    step, x, volume = consistency(A, y), A.adjoint(y), 4 * grid.voxels
    live = LiveBytes(y, x)
    with torch.inference_mode(), live:
        for _ in range(3):
            step(x)
    assert live.peak < 7.5 * volume


# --- as a setting


def scan() -> mbir.Measurement:
    grid = Grid((3, 48, 48), (2.0, 2.0, 2.0))
    hu = torch.full(grid.shape, -1000.0)
    hu[:, 12:36, 16:34] = 40.0
    measured = mbir.simulate(mbir.Volume(hu.numpy(), grid), task="limited-angle-ct", views=60, angle_range_deg=90.0)
    assert isinstance(measured, mbir.Measurement)
    return measured


@pytest.mark.slow
def test_two_steps_fit_the_data_as_many_plain_ones_do():
    def residual(**changes) -> float:
        usual = {"steps": 6, "start_sweeps": 5, "lam": 0.0, "noise_weight": 0.0}
        return mbir.reconstruct(scan(), settings=ReconSettings.preset("limited-angle", **usual, **changes)).residual

    fast = residual()
    assert fast < 0.5 * residual(preconditioner=0.0, cg_steps=2)
    assert fast < residual(preconditioner=0.0, cg_steps=4)


@pytest.mark.slow
def test_the_start_may_be_made_on_a_coarser_grid(monkeypatch):
    """Previews and result have the pixels that were asked for; the start is much like the means of the finer one."""
    measured, shapes = scan(), set()

    class Watching(Silent):
        def preview(self, volume, step):
            shapes.add(volume().grid.shape)

    def start_alone(pixels):
        monkeypatch.setattr("DiffusionMBIRLib.starts.PIXELS_OF_START", pixels)
        settings = ReconSettings.preset(
            "limited-angle", steps=1, sigma_start=0.01, cg_steps=1, relaxation=1.0, start_sweeps=60
        )
        return mbir.reconstruct(measured, settings=settings, monitor=Watching()).volume.array

    fine, coarse = start_alone(64), start_alone(16)
    assert shapes == {measured.grid.shape}
    means = torch.nn.functional.avg_pool2d(torch.from_numpy(fine)[:, None], 3)
    expected = torch.nn.functional.interpolate(means, scale_factor=3, mode="bilinear")[:, 0].numpy()
    assert 0 < np.sqrt(np.mean((coarse - expected) ** 2)) < 0.5 * np.sqrt(np.mean((coarse - fine) ** 2))
    np.testing.assert_array_equal(start_alone(32), fine)  # 48 pixels are not halved below 32


class KeptUntil:
    """Keeps the states of a run, which it ends after so many steps of the sampler."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.states: dict[str, dict[str, Tensor]] = {}

    def load(self, stage: str):
        return self.states.get(stage)

    def save(self, stage: str, state) -> None:
        self.states[stage] = {name: value.clone() for name, value in state.items()}
        if stage == "diffusion" and int(state["done"]) == self.last:
            raise Cancelled


@pytest.mark.slow
def test_a_run_that_was_ended_goes_on_to_the_same_volume():
    measured, settings = scan(), ReconSettings.preset("limited-angle", steps=6, start_sweeps=3, extrapolation=0.3)
    whole = mbir.reconstruct(measured, settings=settings).volume.array
    kept = KeptUntil(3)
    with pytest.raises(Cancelled):
        mbir.reconstruct(measured, settings=settings, checkpoint=kept)
    kept.last = 0
    assert (mbir.reconstruct(measured, settings=settings, checkpoint=kept).volume.array == whole).all()


def test_it_is_refused_for_k_space():
    with pytest.raises(InputError, match="preconditioner"):
        require_fitting("compressed-sensing-mri", ReconSettings(preconditioner=0.1))
