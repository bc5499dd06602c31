"""Fourier transforms along trajectories: against the definition, finufft and the contract of operators."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import TrajectoryMRI, geometry_from_dict
from DiffusionMBIRLib.geometry.paths import GOLDEN_DEG, echo_planar, radial, spiral, spoke_angles
from DiffusionMBIRLib.operators.density import density_weights, pipe_menon, radial_weights
from DiffusionMBIRLib.operators.fourier import fft2c, unit_maps
from DiffusionMBIRLib.operators.gridding import DirectTransform, Gridding, exact_samples
from DiffusionMBIRLib.operators.noncartesian import NonCartesianFourier
from DiffusionMBIRLib.operators.toeplitz import Toeplitz, point_spread
from DiffusionMBIRLib.solvers.sampled import SamplingPreconditioner, sampling_density
from Testing.engine.operators_contract import assert_operator

SHAPES = [(24, 24), (21, 30)]
SINGLE, DOUBLE = torch.complex64, torch.complex128


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def paths(shape: tuple[int, int]) -> dict[str, np.ndarray]:
    size = min(shape)
    return {
        "radial": radial(spoke_angles(9), 2 * size),
        "centre-out": radial(spoke_angles(11, "tiny-7", circle=2 * np.pi), size, centre_out=True),
        "spiral": spiral(5, (size - 1) / 2, turns=1.5),
        "echo-planar": echo_planar(np.arange(8) - 4.0, np.linspace(-1, 1, 30) ** 3 * 10, np.arange(8) % 2 == 1),
    }


def off(found: Tensor, wanted: Tensor) -> float:
    return float(torch.linalg.vector_norm(found.to(DOUBLE) - wanted) / torch.linalg.vector_norm(wanted))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["radial", "centre-out", "spiral", "echo-planar"])
def test_gridding_and_gram_against_the_definition(shape, kind):
    points = paths(shape)[kind]
    direct, x = DirectTransform(points, shape), normal(3, *shape)
    y = normal(3, points.shape[0] * points.shape[1], seed=1)
    weights = torch.rand(points.shape[:2], generator=torch.Generator().manual_seed(2))
    gram = direct.adjoint(direct.forward(x) * weights.reshape(-1))
    for dtype, of_gridding, of_gram in ((SINGLE, 1e-5, 1e-6), (DOUBLE, 1e-11, 1e-11)):
        gridding = Gridding(points, shape, dtype=dtype)
        assert off(gridding.forward(x.to(dtype)), direct.forward(x)) < of_gridding
        assert off(gridding.adjoint(y.to(dtype)), direct.adjoint(y)) < of_gridding
        kernel = point_spread(points, weights, shape, exact=dtype == DOUBLE)
        assert off(Toeplitz(kernel, dtype=dtype)(x.to(dtype)), gram) < of_gram
    assert off(exact_samples(points, shape)(x), direct.forward(x)) < 1e-8


def test_direct_transform_on_a_grid_is_the_cartesian_one():
    rows, columns = 6, 9
    ky, kx = np.meshgrid(np.arange(rows) - rows // 2, np.arange(columns) - columns // 2, indexing="ij")
    x = normal(2, rows, columns)
    found = DirectTransform(np.stack([kx, ky], -1), (rows, columns)).forward(x).reshape(x.shape)
    torch.testing.assert_close(found, fft2c(x), rtol=0, atol=1e-12)


def test_gridding_against_finufft():
    finufft = pytest.importorskip("finufft")
    shape, points = (24, 30), radial(spoke_angles(9), 48).reshape(-1, 2)
    x = normal(*shape)
    angles = [np.ascontiguousarray(points[:, axis] * (2 * np.pi / size)) for axis, size in ((1, 24), (0, 30))]
    wanted = finufft.nufft2d2(*angles, x.numpy(), isign=-1, eps=1e-12) / np.sqrt(24 * 30)
    assert off(Gridding(points, shape, dtype=DOUBLE).forward(x[None])[0], torch.from_numpy(wanted)) < 1e-10


@pytest.mark.parametrize("kind", ["radial", "spiral"])
@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_operators_keep_their_contract(kind, dtype):
    shape = (12, 15)
    maps = unit_maps(normal(2, 3, *shape, seed=7)).to(dtype)
    A = NonCartesianFourier(paths(shape)[kind], maps)
    assert_operator(A, kind)
    weights = torch.rand(A.range.shape[2:], generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    weighted = A.reweighted(weights)
    assert_operator(weighted, f"{kind}, weighted")
    y = normal(*A.range.shape).to(dtype)
    assert off(weighted.adjoint(weighted.weighted(y)), A.adjoint(y * weights.to(dtype)).to(DOUBLE)) < 1e-5
    assert_operator(NonCartesianFourier(paths(shape)[kind], maps[:1], slices=2), f"{kind}, shared maps")


def test_operator_refuses_what_does_not_fit():
    maps, points = normal(2, 3, 8, 8), paths((8, 8))["radial"]
    with pytest.raises(InputError, match="maps are for 2 slices, the volume has 3"):
        NonCartesianFourier(points, maps, slices=3)
    with pytest.raises(InputError, match="maps must be complex"):
        NonCartesianFourier(points, maps.real)
    with pytest.raises(InputError, match="weights have the shape"):
        NonCartesianFourier(points, maps, weights=torch.ones(2, 2))


# --- density


def disc(size: int) -> Tensor:
    place = (torch.arange(size, dtype=torch.float64) - size // 2) / (size / 2)
    return torch.sigmoid(20 * (0.5 - torch.hypot(place[:, None], place)))[None]


@pytest.mark.parametrize(
    ("points", "ramp", "within"),
    [
        (radial(spoke_angles(64, "uniform"), 64), True, 0.02),
        (radial(spoke_angles(101), 64), True, 0.03),
        (radial(spoke_angles(128, "uniform", circle=2 * np.pi), 32, centre_out=True), True, 0.03),
        (spiral(16, 15.5, turns=1.2), False, 0.06),
    ],
)
def test_weighted_adjoint_gives_the_object_in_its_own_scale(points, ramp, within):
    """An object without sharp edges, in scans that leave nothing out."""
    image = disc(32)
    assert (radial_weights(points) is not None) == ramp
    weights = density_weights(points, (32, 32))
    direct = DirectTransform(points, (32, 32))
    back = direct.adjoint(direct.forward(image) * torch.from_numpy(weights).reshape(-1))
    scale = float((back.real * image).sum() / image.square().sum())
    assert scale == pytest.approx(1, abs=within)
    assert off(back, image.to(DOUBLE)) < 4 * within


def test_iterated_weights_find_the_ramp():
    points = radial(spoke_angles(40, "uniform"), 64)
    ramp, found = radial_weights(points), pipe_menon(points, (32, 32))
    assert ramp is not None
    between = (np.hypot(*points.transpose(2, 0, 1)) > 2) & (np.hypot(*points.transpose(2, 0, 1)) < 11)
    assert np.corrcoef(ramp[between], found[between])[0, 1] > 0.98


def test_density_of_a_full_grid_is_one_and_the_preconditioner_inverts():
    rows, columns = 8, 10
    ky, kx = np.meshgrid(np.arange(rows) - rows // 2, np.arange(columns) - columns // 2, indexing="ij")
    kernel = point_spread(np.stack([kx, ky], -1), None, (rows, columns), exact=True)
    density = sampling_density(kernel)
    torch.testing.assert_close(density, torch.ones_like(density), rtol=0, atol=1e-9)
    x = normal(3, rows, columns)
    made = SamplingPreconditioner(kernel, 3, coupling=0.5, device=torch.device("cpu"), dtype=DOUBLE)
    made.pull = 0.25
    across = torch.diff(x, dim=0)
    system = 1.75 * x  # the least density that the preconditioner believes, and the pull
    system[:-1] -= 0.5 * across
    system[1:] += 0.5 * across
    torch.testing.assert_close(made(system), x, rtol=0, atol=1e-9)


# --- paths and geometry


def test_angles():
    assert pytest.approx(111.2461179750, abs=1e-9) == GOLDEN_DEG
    assert np.degrees(spoke_angles(3, "tiny-1")[1]) == pytest.approx(GOLDEN_DEG)
    assert np.degrees(spoke_angles(3, "tiny-7")[1]) == pytest.approx(23.6281, abs=1e-4)
    assert np.degrees(spoke_angles(4, "uniform")) == pytest.approx([0, 45, 90, 135])
    assert np.degrees(spoke_angles(3, "12.5")) == pytest.approx([0, 12.5, 25])
    for wrong in ("gold", "tiny-0", "nan"):
        with pytest.raises(InputError, match="use golden, tiny-N"):
            spoke_angles(3, wrong)
    assert radial(np.zeros(1), 4)[0].tolist() == [[-1, 0], [-0.5, 0], [0, 0], [0.5, 0]]
    arms = spiral(4, 20.0)
    assert np.hypot(*arms[:, -1].T) == pytest.approx([20] * 4)
    steps = np.hypot(*np.diff(arms, axis=1).transpose(2, 0, 1))
    assert steps.max() < 0.8
    assert np.ptp(steps) < 0.05 * steps.mean()


def test_geometry_goes_to_files_and_back():
    made = TrajectoryMRI(paths((24, 24))["radial"], (24, 24), 3, "radial", 5.0)
    assert geometry_from_dict(made.to_dict()) == made
    assert made.data_shape(2) == (2, 3, 9, 48)
    assert made.summary()["readout_ms"] == pytest.approx(0.24)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": np.zeros((2, 3, 2))}, "all are zero"),
        ({"points": np.full((2, 3, 2), np.nan)}, "12 of 12 values are NaN"),
        ({"points": np.ones((2, 3))}, "must be .readouts, samples, 2."),
        (
            {"points": np.full((2, 3, 2), 9.0)},
            "reach 9 cycles .* along the columns, a matrix of 16 holds 8",
        ),
        ({"dwell_us": -1.0}, "dwell_us must be zero or positive"),
    ],
)
def test_bad_geometries_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        TrajectoryMRI(**{"points": np.ones((2, 3, 2)), "matrix": (16, 16), **changes})
