"""Fourier operators against plain numpy and sigpy, and what makes them operators; masks and the k-space container."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from DiffusionMBIRLib.config import MASKS
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import CartesianMRI, Grid, geometry_from_dict
from DiffusionMBIRLib.operators import CartesianFourier, SenseFourier
from DiffusionMBIRLib.operators.circulant import fast_length
from DiffusionMBIRLib.operators.fourier import unit_maps
from DiffusionMBIRLib.operators.masks import sampling_mask
from DiffusionMBIRLib.scans import KSpace
from DiffusionMBIRLib.solvers.cg import conjugate_gradient
from Testing.engine.operators_contract import assert_operator

SHAPE = (3, 12, 9)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.complex128)


def mask(kind: str) -> np.ndarray:
    full = np.random.default_rng(3).random(SHAPE[1:]) < 0.5
    return {"rows": full[:, :1] | np.zeros(SHAPE[1:], bool), "columns": full[:1] | np.zeros(SHAPE[1:], bool)}.get(
        kind, full
    )


def maps(slices: int = 3) -> Tensor:
    return unit_maps(normal(slices, 4, *SHAPE[1:], seed=7))


def operator(kind: str, coils: bool, slices: int = 3) -> CartesianFourier:
    if coils:
        return SenseFourier(mask(kind), maps(slices), slices=3)
    return CartesianFourier(mask(kind), SHAPE, dtype=torch.complex128)


ALL = [(kind, coils) for kind in ("rows", "columns", "points") for coils in (False, True)]


@pytest.mark.parametrize(("kind", "coils"), ALL)
def test_operators_keep_their_contract(kind, coils):
    A = operator(kind, coils)
    assert_operator(A, kind)
    assert_operator(A.reduced(normal(*A.range.shape, seed=2))[0], f"{kind}, reduced")


@pytest.mark.parametrize(("kind", "coils"), ALL)
def test_agrees_with_numpy(kind, coils):
    A, x = operator(kind, coils), normal(*SHAPE, seed=1)
    seen = (x[:, None] * maps() if coils else x[:, None]).numpy()
    # The definition, as sums: centred indices on both sides, orthonormal.
    waves = [np.exp(-2j * np.pi * np.outer(k, k) / n) / np.sqrt(n) for n in SHAPE[1:] for k in [np.arange(n) - n // 2]]
    expected = np.einsum("kr,scrq,lq->sckl", waves[0], seen, waves[1]) * mask(kind)
    np.testing.assert_allclose(A.forward(x).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["rows", "columns", "points"])
@pytest.mark.parametrize("sides", [(37, 41), (37, 12), (12, 74)])
def test_sides_with_large_prime_factors_are_embedded_exactly(kind, sides):
    chosen = np.random.default_rng(1).random(sides) < 0.4
    lines = {"rows": chosen[:, :1], "columns": chosen[:1], "points": chosen}[kind] | np.zeros(sides, bool)
    A = SenseFourier(lines, unit_maps(normal(2, 3, *sides, seed=5)))
    assert_operator(A, kind)


def test_lengths_to_transform_have_small_factors():
    assert [fast_length(n) for n in (1, 31, 199, 212, 256, 368)] == [1, 31, 400, 432, 256, 368]


def test_agrees_with_sigpy():
    sigpy_mri = pytest.importorskip("sigpy.mri.linop")
    A, x = operator("columns", True), normal(*SHAPE, seed=1)
    for k in range(SHAPE[0]):
        theirs = sigpy_mri.Sense(maps()[k].numpy(), weights=mask("columns").astype(float))
        np.testing.assert_allclose(A.forward(x)[k].numpy(), theirs(x[k].numpy()), atol=1e-12)


@pytest.mark.parametrize(("kind", "coils"), ALL)
def test_reduced_problem_has_the_same_residuals(kind, coils):
    A = operator(kind, coils)
    y, x = A.forward(normal(*SHAPE, seed=4)) + 0.1 * A.forward(normal(*SHAPE, seed=5)), normal(*SHAPE, seed=1)
    fewer, z = A.reduced(y)
    assert torch.allclose(torch.linalg.vector_norm(fewer.forward(x) - z), torch.linalg.vector_norm(A.forward(x) - y))
    assert torch.allclose(fewer.adjoint(z), A.adjoint(y), atol=1e-12)


@pytest.mark.parametrize("kind", ["rows", "columns", "points"])
def test_what_no_image_explains_is_seen_coil_by_coil(kind):
    """Of coils that are others than the maps say, A^H takes out what is left at the best image of all."""
    A, other = operator(kind, True), SenseFourier(mask(kind), unit_maps(normal(3, 4, *SHAPE[1:], seed=8)))
    y = other.forward(normal(*SHAPE, seed=4))
    best = conjugate_gradient(A.gram, A.adjoint(y), A.domain.zeros(), steps=200, tolerance=1e-13)
    off = (A.forward(best) - y).numpy()
    images = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(off, (-2, -1)), norm="ortho"), (-2, -1))
    assert float(A.gradient(best, y).abs().max()) < 1e-6 * np.abs(images).max()
    found = A.unexplained(best, y)
    np.testing.assert_allclose(found, np.sqrt((np.abs(images) ** 2).sum(1)), atol=1e-12)
    fewer, z = A.reduced(y)
    assert torch.allclose(fewer.unexplained(best, z), found, atol=1e-12)
    assert A.unexplained(best, A.forward(best)).max() < 1e-12


def ring(rows: int = 12, columns: int = 9, coils: int = 6) -> Tensor:
    """Maps that vary smoothly, (2, coils, rows, columns)."""
    z, c, y, x = np.meshgrid(
        np.arange(2), np.arange(coils), np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij"
    )
    angle = 2 * np.pi * c / coils
    near = np.exp(-((y - np.cos(angle)) ** 2) - (x - np.sin(angle)) ** 2 - 0.1 * z)
    return unit_maps(torch.from_numpy(near * np.exp(1j * (angle + 0.4 * x * np.cos(angle)))))


@pytest.mark.parametrize("kind", ["rows", "columns"])
def test_fewer_coils_along_the_sampled_axis_lose_no_more_than_they_may(kind):
    maps, x = ring(), normal(2, *SHAPE[1:], seed=1)
    A = SenseFourier(mask(kind), maps)
    y = A.forward(x)
    weak = 1e-3 * float(A.adjoint(y).abs().square().mean())
    assert A.reduced(y)[0].range.shape == A.range.shape
    fewer, z = A.reduced(y, spill=weak)
    assert fewer.range.shape[1] < 6
    assert isinstance(fewer, SenseFourier)
    # A unitary mixing cut short: white noise stays white, nothing is counted twice.
    assert fewer._mixing is not None
    product = fewer._mixing @ fewer._mixing.mH
    assert torch.allclose(product, torch.eye(fewer.range.shape[1], dtype=product.dtype).expand_as(product), atol=1e-12)
    lost = 1 - fewer.maps.abs().square().sum(1)
    assert float(lost.min()) > -1e-12
    assert float((lost * A.adjoint(y).abs().square()).mean()) <= weak
    assert_operator(fewer, f"{kind}, fewer coils")
    assert torch.allclose(fewer.forward(x), z, atol=1e-12)  # data of an image stay data of that image
    assert torch.linalg.vector_norm(fewer.gram(x) - A.gram(x)) < 0.05 * torch.linalg.vector_norm(A.gram(x))
    scattered = SenseFourier(mask("points"), maps)
    assert (
        scattered.reduced(scattered.forward(x), spill=weak)[0].range.shape == A.range.shape
    )  # no axis is sampled completely


@pytest.mark.parametrize(("kind", "coils"), ALL)
def test_norm_is_at_most_one(kind, coils):
    assert 0 < operator(kind, coils).norm() <= 1 + 1e-12


def test_one_map_serves_all_slices_and_parts_change_nothing(monkeypatch):
    one, x = maps(1), normal(*SHAPE)
    shared, each = SenseFourier(mask("rows"), one, slices=3), SenseFourier(mask("rows"), one.repeat(3, 1, 1, 1))
    assert torch.equal(shared.gram(x), each.gram(x))
    monkeypatch.setattr("DiffusionMBIRLib.operators.fourier.PIXELS_AT_ONCE", {"cpu": 1})
    assert torch.allclose(SenseFourier(mask("rows"), one, slices=3).gram(x), shared.gram(x), atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("steps", [1, 10, 40])
def test_conjugate_gradient_does_not_amplify_the_rounding_of_transforms(dtype, steps):
    """One coil is a projection, solved by the first step; what is left then is rounding, some of it unsampled."""
    lines = np.random.default_rng(0).random(24) < 0.3
    A = CartesianFourier(np.tile(lines, (32, 1)), (4, 32, 24), dtype=dtype)
    truth = A.adjoint(normal(*A.range.shape).to(dtype))
    found = conjugate_gradient(A.gram, truth, torch.zeros_like(truth), steps=steps)
    assert torch.allclose(found, truth, atol=1e-5 if dtype == torch.complex64 else 1e-13)


def test_unit_maps_have_power_one_or_none():
    raw = normal(2, 4, 6, 5)
    raw[:, :, 2] = 0
    power = unit_maps(raw).abs().square().sum(1)
    assert torch.allclose(power[:, [0, 1, 3]], torch.ones(2, 3, 5, dtype=power.dtype))
    assert not power[:, 2].any()


def test_operators_name_what_does_not_fit():
    with pytest.raises(InputError, match="mask has the shape"):
        CartesianFourier(np.ones((3, 3), bool), SHAPE)
    with pytest.raises(InputError, match="complex type"):
        CartesianFourier(mask("rows"), SHAPE, dtype=torch.float32)
    with pytest.raises(InputError, match="power of 4"):
        SenseFourier(mask("rows"), 2 * maps())
    with pytest.raises(InputError, match="maps are for 2 slices, the volume has 3"):
        SenseFourier(mask("rows"), maps(2), slices=3)


# --- masks


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize(("acceleration", "acs"), [(2, 0.15), (4, 0.08)])
def test_masks_sample_what_they_say(kind, acceleration, acs):
    made = sampling_mask((60, 100), kind, acceleration=acceleration, acs=acs, seed=5)
    geometry = CartesianMRI(made)
    assert geometry.acceleration == pytest.approx(acceleration, rel=0.01)
    assert geometry.phase_axis == (None if kind == "poisson2d" else 1)
    tall, wide = (round(60 * acs), round(100 * acs)) if kind == "poisson2d" else (60, round(100 * acs))
    assert made[30 - tall // 2 :][:tall, 50 - wide // 2 :][:, :wide].all()
    assert np.array_equal(made, sampling_mask((60, 100), kind, acceleration=acceleration, acs=acs, seed=5))
    assert not np.array_equal(made, sampling_mask((60, 100), kind, acceleration=acceleration, acs=acs, seed=6))


def test_poisson_discs_keep_their_distance():
    made = sampling_mask((64, 64), "poisson2d", acceleration=6, acs=0.1, seed=1)
    drawn = np.argwhere(made & (np.hypot(*np.indices(made.shape) - 31.5) > 16))
    gaps = np.linalg.norm(drawn[:, None] - drawn, axis=2) + 99 * np.eye(len(drawn))
    nearest = np.sort(gaps.min(1))
    assert np.quantile(nearest, 0.1) >= 2  # by chance alone a third of the points would touch another


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "radial"}, "mask 'radial' is not known; use one of uniform1d"),
        ({"acceleration": 0.5}, "acceleration must be from 1 to 64"),
        ({"acs": 0.0}, "acs must lie above 0"),
        ({"acs": 0.9, "acceleration": 4}, "acs 0.9 alone is more than acceleration 4 leaves"),
    ],
)
def test_masks_out_of_range_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        sampling_mask((64, 64), **{"kind": "uniform1d", "acceleration": 2, "acs": 0.1} | changes)


# --- geometry and data


def test_geometry_is_read_off_the_mask():
    lines = np.zeros((20, 32), bool)
    lines[:, 12:20] = lines[:, 3] = True
    geometry = CartesianMRI(lines, 8)
    assert (geometry.phase_axis, geometry.acs, geometry.acceleration) == (1, (20, 8), 32 / 9)
    assert geometry.acs_block == (slice(0, 20), slice(12, 20))
    assert CartesianMRI(lines.T).phase_axis == 0
    assert CartesianMRI(lines.T).acs == (8, 20)
    assert geometry_from_dict(geometry.to_dict()) == geometry


def kspace(**changes) -> KSpace:
    data = np.ones((2, 3, 4, 6), np.complex64)
    entries = {
        "data": data,
        "geometry": CartesianMRI(np.ones((4, 6), bool), 3),
        "grid": Grid((2, 4, 6)),
        "name": "knee.h5",
    }
    return KSpace(**entries | changes)


HALF = np.arange(24).reshape(4, 6) % 6 < 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": np.ones((2, 3, 4, 6))}, "data is of type float64; complex numbers are needed"),
        ({"data": np.ones((3, 2, 4, 6), np.complex64)}, r"data has the shape \(3, 2, 4, 6\).* ask for \(2, 3, 4, 6\)"),
        ({"data": np.zeros((2, 3, 4, 6), np.complex64)}, "data is zero everywhere"),
        ({"data": np.full((2, 3, 4, 6), np.nan + 0j)}, "144 of 144 values of data are NaN"),
        ({"geometry": CartesianMRI(HALF, 3)}, "where its mask says that nothing was sampled"),
        ({"grid": Grid((2, 6, 4))}, r"its mask has \(4, 6\) positions .*, its grid \(6, 4\) pixels"),
        ({"maps": np.ones((5, 3, 4, 6), np.complex64)}, "maps has the shape"),
        ({"noise_std": -1.0}, "noise_std must be zero or positive"),
        ({"stored_grid": Grid((4, 2, 6))}, "stored_grid .* differs from grid"),
        ({"task": "sparse-view-ct"}, "task 'sparse-view-ct' does not fit k-space"),
    ],
)
def test_kspace_that_does_not_fit_is_named(changes, message):
    with pytest.raises(InputError, match=f"knee.h5: .*{message}"):
        kspace(**changes)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: CartesianMRI(np.zeros((4, 4), bool)), "samples no position"),
        (lambda: CartesianMRI(np.full((4, 4), 0.5)), "true and false"),
        (lambda: CartesianMRI(np.ones(4, bool)), "two axes"),
        (lambda: CartesianMRI(np.ones((4, 4), bool), 0), "geometry.coils"),
        (lambda: geometry_from_dict({"kind": "radial", "mask": HALF}), "geometry.kind 'radial' is not known"),
        (lambda: geometry_from_dict({"kind": "cartesian-mri", "coils": 1}), "lacks the field 'mask'"),
    ],
)
def test_geometry_that_does_not_fit_is_named(made, message):
    with pytest.raises(InputError, match=message):
        made()
