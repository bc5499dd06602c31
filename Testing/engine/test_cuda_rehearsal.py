"""CUDA without a GPU: operators and solvers keep to their device, give the CPU's numbers and do not wait for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from DiffusionMBIRLib.geometry import Grid, ParallelBeam, view_angles
from DiffusionMBIRLib.operators import CartesianFourier, SenseFourier, SliceDifference, Space, projector
from DiffusionMBIRLib.operators.base import LinearOperator, RowWeighted
from DiffusionMBIRLib.operators.coils import local_coils, mixed
from DiffusionMBIRLib.operators.difference import Gradient
from DiffusionMBIRLib.operators.fourier import unit_maps
from DiffusionMBIRLib.operators.masks import sampling_mask
from DiffusionMBIRLib.samplers.noise import Noise
from DiffusionMBIRLib.solvers.cg import conjugate_gradient, descend
from DiffusionMBIRLib.solvers.cgls import cgls
from DiffusionMBIRLib.solvers.classic import admm_tv, sirt
from DiffusionMBIRLib.solvers.consistency import ZTVConsistency
from DiffusionMBIRLib.solvers.direct.parallel import fbp
from DiffusionMBIRLib.solvers.projection import Projection
from DiffusionMBIRLib.solvers.published import PeriodicDifference, aliased_descend, final_step
from DiffusionMBIRLib.solvers.recycled import CirculantPreconditioner, RecycledGradient
from DiffusionMBIRLib.solvers.sense import sense_cg
from DiffusionMBIRLib.supervised.consistency import data_consistency
from Testing.engine.rehearsal import on_both, rehearsed

GRID = Grid((3, 10, 8))
TALL = Grid((18, 10, 8))  # of so many slices the CPU multiplies by bags of embeddings, CUDA never
GEOMETRY = ParallelBeam.covering(GRID, view_angles(6))
NOTHING: Counter[str] = Counter()


def drawn(shape, device, dtype=torch.float32, seed=0):
    """Noise of the CPU, on the device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).to(device)


def space(device, dtype=torch.float32, **options):
    return Space((3, 5, 4), dtype, torch.device(device), **options)


def ct(device, grid=GRID):
    return projector(GEOMETRY, grid, device=device)


def weighted(device):
    A = ct(device)
    return RowWeighted(A, drawn(A.range.shape, device).abs())


def fourier(device, *, coils=1, lines=True, shape=(3, 12, 10)):
    mask = sampling_mask(shape[1:], "uniform1d" if lines else "poisson2d", acceleration=2, acs=0.2)
    if coils == 1:
        return CartesianFourier(mask, shape, device=device)
    maps = unit_maps(drawn((shape[0], coils, *shape[1:]), device, torch.complex64))
    return SenseFourier(mask, maps)


def reduced(device, *, spill=0.0, **options):
    A = fourier(device, **options)
    return A.reduced(drawn(A.range.shape, device, A.dtype), spill=spill)[0]


OPERATORS: dict[str, Callable[..., Any]] = {
    "x-ray": ct,
    "x-ray, many slices": partial(ct, grid=TALL),
    "x-ray, scaled": lambda device: ct(device).scaled(0.5),
    "x-ray, other slices": lambda device: ct(device).with_slices(2),
    "adjoint": lambda device: ct(device).H,
    "scaled": lambda device: fourier(device).scaled(0.5),
    "weighted": weighted,
    "slice difference": lambda device: SliceDifference(space(device), weight=0.7),
    "periodic difference": lambda device: PeriodicDifference(space(device)),
    "gradient": lambda device: Gradient(space(device), weights=(0.7, 1.0, 1.3)),
    "complex gradient": lambda device: Gradient(space(device, torch.complex64)),
    "one coil": fourier,
    "one coil, points": partial(fourier, lines=False),
    "one coil, reduced": reduced,
    "coils": partial(fourier, coils=4),
    "coils, points, reduced": partial(reduced, coils=4, lines=False),
    "coils, fewer": partial(reduced, coils=4, spill=0.5),
    "coils, a slow side": partial(reduced, coils=2, shape=(2, 37, 41)),
}


# --- the rehearsal itself: it must be able to fail


class Crooked(LinearOperator):
    """Adds a constant that nobody moved to the device."""

    def forward(self, x):
        return x + torch.ones(self.domain.shape)

    def adjoint(self, y):
        return y


MIXES: dict[str, Callable[..., Any]] = {
    "sum": torch.add,
    "product": torch.matmul,
    "rows": lambda a, b: torch.cat([a, b]),
    "choice": lambda a, b: torch.where(a > 0, a, b),
    "written": lambda a, b: torch.add(a, a, out=b),
    "fused": lambda a, b: torch.addcmul(a, a, b),
}


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("swapped", [False, True])
def test_tensors_of_two_devices_are_refused(mix, swapped):
    with rehearsed():
        pair = [torch.zeros(4, 4, device="cuda"), torch.zeros(4, 4)]
        with pytest.raises(RuntimeError, match="cuda:0 and on cpu"):
            MIXES[mix](*(reversed(pair) if swapped else pair))


def test_what_a_careless_operator_does_is_refused():
    with rehearsed():
        A = Crooked(*2 * [Space((2, 3), device=torch.device("cuda"))])
        with pytest.raises(RuntimeError, match="cuda:0 and on cpu"):
            A.gram(torch.zeros(2, 3, device="cuda"))
        with pytest.raises(RuntimeError, match="generator"):
            torch.randn(3, device="cuda", generator=torch.Generator())
        with pytest.raises(RuntimeError, match="generator"):
            torch.randn(3, generator=torch.Generator("cuda"))
        with pytest.raises(RuntimeError, match="index"):
            torch.zeros(3)[torch.zeros(2, dtype=torch.int64, device="cuda")]
        with pytest.raises((RuntimeError, TypeError), match="numpy"):
            torch.zeros(3, device="cuda").numpy()
    assert not torch.cuda.is_available() or torch.zeros(1, device="cuda").is_cuda  # it is over


WAITS: dict[str, Callable[..., Any]] = {
    "value": lambda x: x[0, 0].item(),
    "number": lambda x: float(x.sum()),
    "question": lambda x: bool(x.any()),
    "list": lambda x: x.tolist(),
    "to memory": lambda x: x.cpu().numpy(),
    "from memory": lambda x: x + torch.ones(3, 3).to(x.device),
    "made of numbers": lambda x: torch.tensor([1.0], device=x.device),
    "masked": lambda x: x[x > 0],
    "where": lambda x: x.nonzero(),
    "eigenvalues": lambda x: torch.linalg.eigh(x),
    "an index in memory": lambda x: x[torch.tensor([0, 2])],
    "asked to": lambda x: torch.cuda.synchronize(x.device),
}


@pytest.mark.parametrize("what", WAITS)
def test_what_makes_the_host_wait_is_counted(what):
    with rehearsed() as device:
        x = torch.eye(3, device="cuda")
        x[x > 5] = 0.0  # a number fills a mask without a look at it
        assert device.total == 0
        WAITS[what](x)
        assert device.total == 1


def test_a_value_read_at_each_step_of_a_solver_is_counted():
    def careless(x):
        return x / float(x.sum())

    with rehearsed() as device:
        rhs = torch.ones(4, device="cuda")
        conjugate_gradient(careless, rhs, torch.zeros_like(rhs), steps=3)
    assert device.waits == {"value": 4}  # with the residual at the start


# --- operators


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_give_the_numbers_of_the_cpu_and_never_wait(name):
    def run(device):
        A = OPERATORS[name](device)
        x, y = drawn(A.domain.shape, device, A.dtype), drawn(A.range.shape, device, A.dtype, 1)
        before = device_waits(x)
        images = [A @ x, A.adjoint(y), A.gram(x), A.gradient(x, y), A.gradients(y)(x), A.distance(x, y)]
        assert device_waits(x) == before
        return images

    expected, found, _ = on_both(run)
    for ours, theirs in zip(expected, found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def device_waits(x):
    """What the host waited for so far, 0 on the CPU."""
    return x.home.total if hasattr(x, "home") else 0


@pytest.mark.parametrize(("name", "waits"), [("weighted", 2), ("coils", 2), ("one coil", 0)])
def test_the_norm_waits_twice_a_step_of_lanczos(name, waits):
    def run(most):
        def norm(device):
            A = OPERATORS[name](device)
            return A.norm(tolerance=0.0, most=most)

        return norm

    expected, found, few = on_both(run(2))
    assert found == pytest.approx(expected, rel=1e-6)
    _, _, many = on_both(run(4))
    assert many - few == Counter(value=2 * waits)


def test_the_choice_of_coils_waits_as_often_for_many_slices_as_for_few():
    def run(slices, device):
        maps = unit_maps(drawn((slices, 4, 6, 5), device, torch.complex64))
        mixing = local_coils(maps, drawn((slices, 6, 5), device, torch.complex64), -2, 0.1)
        return mixing, mixed(mixing, maps, -2), mixed(mixing.mH.mH, maps.transpose(-2, -1), -1)

    for slices in (1, 5):
        expected, found, waits = on_both(partial(run, slices))
        assert waits == {"copy": 2, "solver": 1, "value": 1}  # two are the draws of this test
        assert torch.allclose(expected[0].abs(), found[0].abs(), atol=1e-5)
        assert torch.allclose(expected[1].abs(), found[1].abs(), atol=1e-5)


# --- noise


@pytest.mark.parametrize("span", [1, 2])
@pytest.mark.parametrize("slices_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_noise_is_drawn_on_the_device_and_never_waits(dtype, slices_last, span):
    def run(device):
        volumes = space(device, dtype, slices_last=slices_last, first_slice=4)
        drawn = Noise(volumes, 7, span=span)(2)
        assert drawn.stride() == volumes.empty().stride()
        return drawn

    expected, found, waits = on_both(run)
    assert torch.equal(found, expected)
    assert not waits


# --- solvers


def data(A, device, seed=3):
    return A @ drawn(A.domain.shape, device, A.dtype, seed)


def run_cg(device, steps):
    A = ct(device)
    rhs = A.adjoint(data(A, device))
    return conjugate_gradient(A.gram, rhs, torch.zeros_like(rhs), steps=steps)


def run_admm(device, steps, make=ct, floor=0.0):
    A = make(device)
    return admm_tv(A, data(A, device), lam=0.01, sweeps=steps, floor=floor)


def run_admm_cg(device, steps):
    A = ct(device)
    return admm_tv(A, data(A, device), lam=0.01, sweeps=2, cg_steps=steps)


def run_sirt(device, steps):
    A = ct(device)
    return sirt(A, data(A, device), iterations=steps)


def run_cgls(device, steps):
    A = ct(device)
    return cgls(A, data(A, device), iterations=steps)


def run_sense(device, steps):
    A = fourier(device, coils=4)
    return sense_cg(A, data(A, device), lam=0.01, steps=steps)


def run_fbp(device, steps):
    A = ct(device)
    return torch.stack([fbp(A, data(A, device), GEOMETRY, GRID, window="hann" if k % 2 else "ramp") for k in range(2)])


def run_supervised(device, steps):
    A = ct(device)
    y = data(A, device)
    return data_consistency(A, y, A.adjoint(y), penalty=0.1, steps=steps)


def run_projection(device, steps, normalised=True):
    A = ct(device).scaled(0.02) if normalised else fourier(device)
    project = Projection(A, data(A, device), normalised=normalised, steps=steps)
    return project(A.domain.zeros())


def consistency(device, steps, *, make=ct, difference=SliceDifference, solver=descend, noise=0.0, levels=1):
    """``steps`` of conjugate gradient in each of two sweeps at each level, ``levels`` calls."""
    A = make(device)
    solver = RecycledGradient(CirculantPreconditioner(A, 0.05, 0.1)) if solver is RecycledGradient else solver
    step = ZTVConsistency(
        A,
        data(A, device),
        difference=difference(A.domain),
        rho=0.1,
        lam=0.01,
        cg_steps=steps,
        sweeps=2,
        noise=noise,
        solver=solver,
    )
    x = A.domain.zeros()
    for level in range(levels):
        x = step(x, 1.0 / (1 + level))
    return final_step(A, step.y, x) if not A.dtype.is_complex else x


SOLVERS: dict[str, Callable[..., Any]] = {
    "conjugate gradient": run_cg,
    "admm-tv, sweeps": run_admm,
    "admm-tv, complex": partial(run_admm, make=partial(fourier, coils=4), floor=None),
    "admm-tv, steps": run_admm_cg,
    "sirt": run_sirt,
    "cgls": run_cgls,
    "sense-cg": run_sense,
    "fbp": run_fbp,
    "between networks": run_supervised,
    "projection": partial(run_projection),
    "projection of one coil": partial(run_projection, normalised=False),
    "consistency": consistency,
    "consistency, complex": partial(consistency, make=partial(reduced, coils=4)),
    "consistency, all directions": partial(consistency, difference=Gradient),
    "consistency, with noise": partial(consistency, noise=0.1),
    "consistency, recycled": partial(consistency, solver=RecycledGradient, noise=0.1),
    "consistency, as published": partial(consistency, difference=PeriodicDifference, solver=aliased_descend),
    "consistency, levels": lambda device, steps: consistency(
        device, 2, solver=RecycledGradient, noise=0.1, levels=steps
    ),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_give_the_numbers_of_the_cpu_and_never_wait_at_a_step(name):
    waits = []
    for steps in (1, 3):
        expected, found, counted = on_both(partial(SOLVERS[name], steps=steps))
        assert np.isfinite(expected.abs().numpy()).all()
        assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
        waits.append(counted)
    assert waits[0] == waits[1], "each further step waits"
