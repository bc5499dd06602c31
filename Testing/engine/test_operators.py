"""Every operator: exact adjoint in both precisions, linear, and right against an independent computation."""

import math

import numpy as np
import pytest
import torch

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import Grid, ParallelBeam, view_angles
from DiffusionMBIRLib.operators import SliceDifference, projector
from DiffusionMBIRLib.operators.base import RowWeighted, Scaled
from DiffusionMBIRLib.operators.difference import Gradient
from DiffusionMBIRLib.operators.parallel import XRayTransform
from DiffusionMBIRLib.operators.space import Space
from Testing.engine.operators_contract import assert_operator, assert_poses

IRREGULAR = (0.0, 12.5, 45.0, 90.0, 91.0, 135.0, 180.0, -37.3, 270.0)
GRIDS = {
    "square": Grid((2, 16, 16)),
    "one slice": Grid((1, 12, 12)),
    "odd, not square, anisotropic": Grid((3, 17, 23), (1.3, 0.7, 2.5)),
    "one column": Grid((2, 9, 1), (2.0, 0.5, 1.0)),
}
DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


def operators(device, dtype):
    for name, grid in GRIDS.items():
        for angles in (view_angles(8), view_angles(30, 90.0), IRREGULAR, (33.0,)):
            geometry = ParallelBeam.covering(grid, angles)
            yield f"x-ray {name} {len(angles)}", projector(geometry, grid, device=device, dtype=dtype)
        narrow = ParallelBeam(view_angles(5), 7, 0.9, offset_mm=1.7)
        A = projector(narrow, grid, device=device, dtype=dtype)
        yield f"truncated, shifted detector {name}", A
        yield f"scaled {name}", A.scaled(0.3)
        yield f"transposed {name}", A.H
        weights = torch.rand(A.range.shape, dtype=dtype, device=device)
        yield f"weighted {name}", RowWeighted(A, weights)
        yield f"product {name}", A.H @ A
        yield f"slice difference {name}", SliceDifference(Space(grid.shape, dtype, torch.device(device)), weight=0.4)
        yield f"gradient {name}", Gradient(Space(grid.shape, dtype, torch.device(device)), weights=(0.5, 1.0, 2.0))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_operators_keep_their_contract(device, dtype):
    for name, A in operators(device, dtype):
        assert_operator(A, name)


@pytest.mark.parametrize("isocentre_mm", [None, (-3.0, 2.0, 5.0)])
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (1.3, 0.7, 2.5)])
def test_what_is_seen_lies_where_the_poses_say(spacing_mm, isocentre_mm):
    grid = Grid((3, 17, 23), spacing_mm, (4.0, -1.0, 2.0), isocentre_mm=isocentre_mm)
    for geometry in (ParallelBeam.covering(grid, IRREGULAR), ParallelBeam(IRREGULAR, 81, 0.9, offset_mm=1.7)):
        assert_poses(geometry, projector(geometry, grid), grid)
    shifted = ParallelBeam(IRREGULAR, 81, 0.9, offset_mm=1.5)
    with pytest.raises(AssertionError, match="view 0"):  # a fifth of a millimetre would be seen
        assert_poses(shifted, projector(geometry, grid), grid)


class Spoilt(XRayTransform):
    """Breaks one promise."""

    def __init__(self, geometry, grid, promise):
        super().__init__(geometry, grid, dtype=torch.float64)
        self.promise = promise

    def forward(self, x):
        if self.promise == "linear":
            return super().forward(x).abs()
        if self.promise == "arguments":
            x.mul_(1.0 + 1e-7)
        if self.promise == "refusals":
            return super().forward(x.to(self.dtype)[: self.domain.shape[0]])
        return super().forward(x)

    def adjoint(self, y):
        if self.promise == "layout":
            return super().adjoint(y).contiguous()
        return super().adjoint(y) * (1.001 if self.promise == "adjoint" else 1.0)

    def gram(self, x):
        return super().gram(x) * (1.001 if self.promise == "gram" else 1.0)

    def norm(self, **options):
        return super().norm(**options) * (0.98 if self.promise == "norm" else 1.0)


@pytest.mark.parametrize("promise", ["none", "linear", "arguments", "refusals", "layout", "adjoint", "gram", "norm"])
def test_a_broken_promise_is_noticed(promise):
    grid = Grid((3, 7, 9))
    A = Spoilt(ParallelBeam.covering(grid, view_angles(6)), grid, promise)
    if promise == "none":
        return assert_operator(A)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        assert_operator(A)


@pytest.mark.parametrize("angle", [0.0, 17.0, 45.0, 90.0, 118.3])
def test_entries_are_areas_of_pixels_in_strips(angle):
    """Against brute force: the share of a pixel's sub-points that fall into each detector column."""
    grid = Grid((1, 3, 4), (1.5, 0.8, 1.0))
    geometry = ParallelBeam((angle,), 9, 0.7, offset_mm=0.2)
    A = projector(geometry, grid, dtype=torch.float64)
    sub = 801
    u = (np.arange(sub) + 0.5) / sub - 0.5
    theta = math.radians(angle)
    for row, column in ((0, 0), (1, 2), (2, 3)):
        x = (column - 1.5 + u) * 1.5
        y = (row - 1.0 + u) * 0.8
        s = x[None, :] * math.cos(theta) + y[:, None] * math.sin(theta)
        edges = (np.arange(10) - 4.5) * 0.7 + 0.2
        share = np.histogram(s, edges)[0] / sub**2 * (1.5 * 0.8) / 0.7
        point = torch.zeros(A.domain.shape, dtype=torch.float64)
        point[0, row, column] = 1
        np.testing.assert_allclose((A @ point)[0, 0].numpy(), share, atol=3e-3)


def test_disc_has_the_analytic_sinogram():
    n, radius = 128, 40.0
    grid = Grid((1, n, n))
    axis = (np.arange(8 * n) + 0.5) / 8 - n / 2
    fine = (axis[:, None] ** 2 + axis[None, :] ** 2 <= radius**2).astype(np.float64)
    disc = torch.from_numpy(fine.reshape(n, 8, n, 8).mean((1, 3)))[None]
    geometry = ParallelBeam.covering(grid, (0.0, 23.0, 45.0, 90.0))
    sinogram = (projector(geometry, grid, dtype=torch.float64) @ disc)[0].numpy()
    s = np.arange(geometry.columns) - (geometry.columns - 1) / 2
    chord = 2 * np.sqrt(np.clip(radius**2 - s**2, 0, None))
    inside = np.abs(np.abs(s) - radius) > 2
    np.testing.assert_allclose(sinogram[:, inside], np.broadcast_to(chord, sinogram.shape)[:, inside], atol=0.6)
    np.testing.assert_allclose(sinogram.sum(1), float(disc.sum()), rtol=1e-9)  # mass is kept in every view


def test_rotated_object_equals_rotated_scan():
    grid = Grid((2, 20, 20))
    x = torch.rand(grid.shape, dtype=torch.float64)
    angles = (10.0, 55.0, 120.0)
    here = ParallelBeam.covering(grid, angles)
    there = ParallelBeam(tuple(a + 90.0 for a in angles), here.columns, here.pitch_mm)
    # x along columns, y along rows: a quarter turn moves (x, y) to (-y, x), i.e. rot90 with k = -1
    turned = torch.rot90(x, -1, dims=(1, 2))
    a = projector(here, grid, dtype=torch.float64) @ x
    b = projector(there, grid, dtype=torch.float64) @ turned
    assert torch.allclose(a, b, atol=1e-10)
    mirrored = ParallelBeam(tuple(a + 180.0 for a in angles), here.columns, here.pitch_mm)
    c = projector(mirrored, grid, dtype=torch.float64) @ x
    assert torch.allclose(a, c.flip(-1), atol=1e-10)


def test_agrees_with_scikit_image():
    transform = pytest.importorskip("skimage.transform")
    n = 65  # odd: both put the axis on the centre of the middle pixel
    axis = np.arange(n) - n // 2
    image = np.exp(-((axis[None, :] - 6) ** 2 + 2 * (axis[:, None] + 4) ** 2) / 120)
    image[axis[:, None] ** 2 + axis[None, :] ** 2 > 30**2] = 0
    angles = np.arange(0, 180, 20.0)
    theirs = transform.radon(image, theta=-angles, circle=True).T  # scikit-image turns the other way
    grid = Grid((1, n, n))
    ours = projector(ParallelBeam(tuple(angles), n, 1.0), grid, dtype=torch.float64) @ torch.from_numpy(image)[None]
    assert np.linalg.norm(theirs - ours[0].numpy()) < 0.02 * np.linalg.norm(theirs)


@pytest.mark.parametrize("slices", [1, 15, 16, 37])
def test_many_slices_take_another_product_to_the_same_values(slices):
    """In float32; doubles and few slices go through the sparse matrix itself."""
    grid = Grid((slices, 24, 20), (1.0, 1.4, 1.0))
    geometry = ParallelBeam.covering(grid, view_angles(7))
    single, double = (projector(geometry, grid, dtype=dtype) for dtype in (torch.float32, torch.float64))
    x = torch.rand(grid.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(slices))
    y = double @ x
    for ours, exact in ((single @ x.float(), y), (single.adjoint(y.float()), double.adjoint(y))):
        assert ours.shape == exact.shape
        assert torch.linalg.vector_norm(ours - exact) < 1e-6 * torch.linalg.vector_norm(exact)


def test_norm_is_the_largest_singular_value():
    grid = Grid((1, 8, 9), (1.0, 1.4, 1.0))
    A = projector(ParallelBeam.covering(grid, view_angles(6)), grid, dtype=torch.float64)
    dense = torch.stack([(A @ e.reshape(A.domain.shape)).reshape(-1) for e in torch.eye(72, dtype=torch.float64)], 1)
    exact = float(torch.linalg.matrix_norm(dense, 2))
    assert A.norm(tolerance=1e-9) == pytest.approx(exact, rel=1e-5)
    assert A.scaled(1 / exact).norm() == pytest.approx(1.0, rel=1e-3)
    tall = Grid((5, 8, 9), (1.0, 1.4, 1.0))
    stack = projector(ParallelBeam.covering(tall, view_angles(6)), tall)
    assert stack.norm(tolerance=1e-9) == pytest.approx(exact, rel=1e-4)
    assert Scaled(stack, -2.0).norm(tolerance=1e-9) == pytest.approx(2 * exact, rel=1e-4)
    chain = SliceDifference(Space((200, 1, 1), torch.float64))
    assert chain.norm(tolerance=1e-10, most=20000) == pytest.approx(2, rel=1e-2)


def test_slice_difference_is_not_periodic():
    D = SliceDifference(Space((4, 2, 2), torch.float64), weight=0.5)
    ramp = torch.arange(4.0, dtype=torch.float64)[:, None, None].expand(4, 2, 2)
    assert torch.equal(D @ ramp, torch.full((3, 2, 2), 0.5, dtype=torch.float64))
    assert SliceDifference(Space((1, 2, 2))).gram(torch.ones(1, 2, 2)).abs().max() == 0


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 4), (4, 1, 3), (5, 6, 7)])
def test_fast_forms_of_differences_agree_with_the_plain_ones(shape):
    x = torch.randn(shape, dtype=torch.float64)
    operators = (
        SliceDifference(Space(shape, torch.float64), weight=0.7),
        Gradient(Space(shape, torch.float64), weights=(0.7, 1.0, 1.3)),
    )
    for D in operators:
        expected = D.adjoint(D @ x)
        assert torch.allclose(D.gram(x), expected, atol=1e-12)
        assert torch.allclose(D.add_gram_to(x.clone(), x, 0.5), x + 0.5 * expected, atol=1e-12)
    y = torch.randn(3, *shape, dtype=torch.float64)
    assert torch.allclose(operators[1].add_to(y.clone(), x), y + (operators[1] @ x), atol=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_without_a_number_is_the_current_device():
    grid = Grid((2, 8, 8))
    A = projector(ParallelBeam.covering(grid, (0.0, 30.0)), grid, device="cuda")
    assert (A @ torch.rand(grid.shape, device="cuda")).device == A.device


def test_slices_share_one_matrix():
    grid = Grid((7, 10, 10))
    A = projector(ParallelBeam.covering(grid, view_angles(4)), grid)
    assert isinstance(A, XRayTransform)
    x = torch.rand(A.domain.shape)
    one = A.with_slices(1)
    assert torch.allclose(torch.cat([one @ x[k : k + 1] for k in range(7)]), A @ x, atol=1e-5)
    assert one.entries == A.entries


def test_an_unknown_projector_is_named():
    grid = Grid((2, 8, 8))
    with pytest.raises(InputError, match="projector 'magic'.*own"):
        projector(ParallelBeam.covering(grid, (0.0,)), grid, backend="magic")
