"""What every linear operator and every scanner must keep, in one place: tests of an operator call these."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.geometry import Grid, Poses, RayGeometry
from DiffusionMBIRLib.operators import LinearOperator, Space, slices_last

_FEW = 200  # values of a volume whose operator is written out as a matrix
_ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-5}


def drawn(space: Space, seed: int) -> Tensor:
    """Normal numbers of a space, in its layout; the same for any type."""
    wide = torch.complex128 if space.dtype.is_complex else torch.float64
    numbers = torch.randn(space.shape, generator=torch.Generator().manual_seed(seed), dtype=wide)
    return space.laid_out(numbers.to(space.device, space.dtype))


def assert_operator(A: LinearOperator, name: str = "", *, norm_within: float = 5e-3) -> None:
    """A is linear, with its exact adjoint, gram, gradient, distance and norm; it keeps its arguments and the layout in
    memory, and refuses what does not fit by name.
    """
    rounding = _ROUNDING[A.domain.real]
    x, y = drawn(A.domain, 1), drawn(A.range, 2)
    kept = x.clone(), y.clone()
    ahead, back = A.forward(x), A.adjoint(y)
    for space, made in ((A.range, ahead), (A.domain, back)):
        assert (tuple(made.shape), made.dtype, made.device) == (space.shape, space.dtype, space.device), name
    close = _Close(rounding, float(_length(ahead)) * float(_length(y)), name)
    close(_inner(ahead, y), _inner(x, back))
    size = float(_length(ahead)) + float(_length(y))
    close = _Close(rounding, size * max(1.0, A.norm()), name)
    close(A @ x, ahead)
    close(A.gram(x), A.adjoint(ahead))
    close(A.gradient(x, y), A.adjoint(ahead - y))
    close(A.gradients(y)(x), A.adjoint(ahead - y))
    close(A.distance(x, y), _length(ahead - y))
    close(A.H.forward(y), back)
    other = drawn(A.domain, 3)
    close(A.forward(2 * x - 3 * other), 2 * ahead - 3 * A.forward(other))
    assert torch.equal(x, kept[0]), f"{name}: writes into x"
    assert torch.equal(y, kept[1]), f"{name}: writes into y"
    _assert_layout(A, x, back, close, name)
    _assert_norm(A, norm_within, name)
    _assert_refusals(A)


class _Close:
    """Asserts that two results differ by rounding alone, seen against a size."""

    def __init__(self, rounding: float, size: float, name: str) -> None:
        self.most, self.name = rounding * max(size, 1e-30), name

    def __call__(self, a: Tensor, b: Tensor) -> None:
        assert float(_length(a.to(b.dtype) - b)) <= self.most, self.name


def _assert_layout(A: LinearOperator, x: Tensor, back: Tensor, close: _Close, name: str) -> None:
    """The layout of the domain comes back, and another one changes nothing but time."""
    if A.range.shape[0] and x.ndim == 3:
        assert _order(back) == _order(A.domain.zeros()), f"{name}: the adjoint's layout"
        assert _order(A.gram(x)) == _order(x), f"{name}: the layout of A^H A x"
        for laid_out in (x.contiguous(), slices_last(x)):
            close(A.forward(laid_out), A.forward(x))
            close(A.gram(laid_out), A.gram(x))


def _order(x: Tensor) -> list[int]:
    """Strides, but of axes with one entry, which have none."""
    return [stride for stride, n in zip(x.stride(), x.shape, strict=True) if n > 1]


def _assert_norm(A: LinearOperator, within: float, name: str) -> None:
    found = A.norm()
    if int(np.prod(A.domain.shape)) <= _FEW:
        units = torch.eye(int(np.prod(A.domain.shape)), dtype=A.dtype, device=A.device)
        columns = [A.forward(unit.reshape(A.domain.shape)).reshape(-1) for unit in units]
        exact = float(torch.linalg.matrix_norm(torch.stack(columns), 2)) if columns[0].numel() else 0.0
        assert found == pytest.approx(exact, rel=within, abs=1e-12), name
        return
    x = drawn(A.domain, 4)
    for _ in range(10):
        x = A.gram(x / _length(x))
    reached = float(_length(A.forward(x / _length(x))))  # at most the norm, and soon near it
    assert reached <= found * (1 + within), name
    assert found <= 2 * reached, name


def _assert_refusals(A: LinearOperator) -> None:
    for space, call in ((A.domain, A.forward), (A.range, A.adjoint), (A.domain, A.gram)):
        fitting = space.zeros()
        taller = fitting.new_zeros((space.shape[0] + 1, *space.shape[1:]))
        with pytest.raises(InputError, match=r"has shape .*, the operator needs"):
            call(taller)
        other = torch.float32 if fitting.dtype == torch.float64 else torch.float64
        with pytest.raises(InputError, match=f"is {other!s} on "):
            call(fitting.to(other) if not fitting.is_complex() else fitting.real.to(other))
        with pytest.raises(InputError, match="on meta, the operator is"):
            call(fitting.to("meta"))


def _inner(a: Tensor, b: Tensor) -> Tensor:
    wide = torch.complex128 if a.is_complex() else torch.float64
    return torch.vdot(b.reshape(-1).to(wide), a.reshape(-1).to(wide))


def _length(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.to(torch.complex128 if x.is_complex() else torch.float64))


# --- scanners


def assert_poses(geometry: RayGeometry, A: LinearOperator, grid: Grid, *, within: float = 0.05) -> None:
    """A small blob appears on the detector where the poses of each view say, to a fraction of a detector pixel.

    Blobs sit off the middle along every axis; those of stacks of slices appear in the data of their slices alone.
    """
    poses = geometry.poses()
    for part in ((0.3, 0.62, 0.44), (0.6, 0.4, 0.7)):
        place = tuple(int(share * n) for share, n in zip(part, grid.shape, strict=True))
        blob = _blob(grid, place)
        seen = A.forward(torch.from_numpy(blob).to(A.device, A.dtype)).double().cpu().numpy()
        middle = _middle(grid, blob)
        if geometry.STACKED:
            assert not np.delete(seen, place[0], axis=0).any()
            seen, middle = seen[place[0]][None], middle * (1, 1, 0)
        for view in range(geometry.views):
            row, column = _centroid(seen[:, view])
            across, along = _on_detector(poses, view, middle)
            rows, columns = geometry.detector
            assert column == pytest.approx(across + (columns - 1) / 2, abs=within), f"view {view}"
            assert row == pytest.approx((0 if geometry.STACKED else along) + (rows - 1) / 2, abs=within), f"view {view}"


def _blob(grid: Grid, place: tuple[int, ...]) -> np.ndarray:
    """A bell of a few pixels, in one slice."""
    _, rows, columns = np.indices(grid.shape)
    bell = np.exp(-((rows - place[1]) ** 2 + (columns - place[2]) ** 2) / 2)
    bell[np.arange(grid.shape[0]) != place[0]] = 0
    return np.where(bell > 1e-4, bell, 0)


def _middle(grid: Grid, blob: np.ndarray) -> np.ndarray:
    """Where its mass lies in the isocentre world, (x, y, z) in mm."""
    index = np.array([(blob * axis).sum() / blob.sum() for axis in np.indices(grid.shape)])[::-1]
    half = (np.array(grid.shape[::-1]) - 1) / 2
    return (index - half) * grid.spacing_mm + grid.off_isocentre_mm


def _on_detector(poses: Poses, view: int, point: np.ndarray) -> tuple[float, float]:
    """Steps (along u, along v) from the detector's centre to where the ray through a point meets it."""
    if poses.arc:
        return _on_arc(poses, view, point)
    if poses.source is None:
        assert poses.direction is not None
        ray = poses.direction[view]
    else:
        ray = point - poses.source[view]
    steps = np.linalg.solve(np.stack([poses.u[view], poses.v[view], ray], axis=1), point - poses.centre[view])
    return float(steps[0]), float(steps[1])


def _on_arc(poses: Poses, view: int, point: np.ndarray) -> tuple[float, float]:
    """The same of a detector on a cylinder about the source."""
    assert poses.source is not None
    ray, middle = point - poses.source[view], poses.centre[view] - poses.source[view]
    radius, wide, high = (float(np.linalg.norm(a)) for a in (middle, poses.u[view], poses.v[view]))
    ahead, across, up = (float(ray @ a) for a in (middle / radius, poses.u[view] / wide, poses.v[view] / high))
    return np.arctan2(across, ahead) * radius / wide, up * radius / np.hypot(ahead, across) / high


def _centroid(image: np.ndarray) -> tuple[float, float]:
    rows, columns = np.indices(image.shape)
    return float((image * rows).sum() / image.sum()), float((image * columns).sum() / image.sum())
