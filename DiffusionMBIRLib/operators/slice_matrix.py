"""A transform of slices as one sparse matrix, shared by all slices of a stack: of parallel beams and of fan beams.

Entry (ray, pixel) is in mm, from the area of the pixel inside the ray's strip.  Volumes are multiplied with the slices
in the fastest memory order, (pixels, slices); tensors that have this layout (``slices_last``) pass without a copy, and
all results have it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..allocation import give_back_what_is_free
from ..errors import EngineError, InputError
from ..geometry import Grid, RayGeometry
from .space import slices_last
from .stack import SliceProjector

Same = TypeVar("Same", bound="SliceMatrix")

_MANY = 16  # slices


def centres(grid: Grid) -> tuple[Tensor, Tensor]:
    """x and y of every pixel's centre in mm from the isocentre."""
    (rows, columns), (dx, dy), (middle_x, middle_y) = grid.in_plane, grid.spacing_mm[:2], grid.off_isocentre_mm[:2]
    x = (torch.arange(columns, dtype=torch.float64) - (columns - 1) / 2) * dx + middle_x
    y = (torch.arange(rows, dtype=torch.float64) - (rows - 1) / 2) * dy + middle_y
    return x.repeat(rows), y.repeat_interleave(columns)


def trapezoid_share(t: Tensor, wide: float | Tensor, narrow: float | Tensor) -> Tensor:
    """Share in [0, 1] of the convolution of two unit boxes of half-widths wide >= narrow that lies below t.

    It is the projection of a rectangle, a trapezoid; the half-widths are numbers or, of many directions, tensors.
    """
    distance = t.abs()
    flat = distance / (2 * wide)
    slope = 0.5 - (wide + narrow - distance).clamp_min(0).square() / (8 * wide * _above_zero(narrow))
    half = torch.where(distance <= wide - narrow, flat, slope)
    return 0.5 + torch.sign(t) * half


def _above_zero(width: float | Tensor) -> float | Tensor:
    return width.clamp_min(1e-300) if isinstance(width, Tensor) else max(width, 1e-300)


@dataclass(frozen=True)
class Triplets:
    """Non-zero entries of one view, pixel by pixel: ``ray`` counts detector columns."""

    ray: Tensor
    pixel: Tensor
    value: Tensor


_NONE = Triplets(*3 * [torch.empty(0)])


def _matrices(views: list[Triplets], columns: int, pixels: int) -> tuple[Tensor, Tensor]:
    """A and A^T in CSR; ``views`` is emptied, each goes as soon as its entries are in their places.

    In A the entries of each view are sorted by detector column.  A view lists them pixel by pixel already: in A^T they
    are dealt to their places without a sort.
    """
    rays = torch.cat([torch.bincount(v.ray, minlength=columns) for v in views])
    count = torch.stack([torch.bincount(v.pixel, minlength=pixels) for v in views]).sum(0)
    total, dtype, rows = int(count.sum()), views[0].value.dtype, len(rays)
    pixel, ray = torch.empty(total, dtype=torch.int32), torch.empty(total, dtype=torch.int32)
    value, value_of_pixel = torch.empty(total, dtype=dtype), torch.empty(total, dtype=dtype)
    matrices = ((pixel, value), (ray, value_of_pixel))
    deal = _deal_compiled if find_spec("numba") else _deal
    free_of_pixel, free_of_ray = count.cumsum(0) - count, (rays.cumsum(0) - rays).view(-1, columns)
    for k in range(len(views)):
        view, views[k] = views[k], _NONE
        deal(view, k * columns, free_of_ray[k], free_of_pixel, *matrices)
    return _csr(rays, pixel, value, (rows, pixels)), _csr(count, ray, value_of_pixel, (pixels, rows))


Entries = tuple[Tensor, Tensor]  # indices and values


def _deal(
    view: Triplets, first_ray: int, free_of_ray: Tensor, free_of_pixel: Tensor, by_ray: Entries, by_pixel: Entries
) -> None:
    """Put each entry of a view at the next free place of its ray in A and of its pixel in A^T."""
    start, number = int(free_of_ray[0]), view.ray.numel()
    order, part = torch.argsort(view.ray, stable=True), slice(start, start + number)
    by_ray[0][part], by_ray[1][part] = view.pixel[order], view.value[order]
    in_view = torch.bincount(view.pixel, minlength=len(free_of_pixel))
    place = (free_of_pixel - (in_view.cumsum(0) - in_view))[view.pixel].add_(torch.arange(number))
    by_pixel[0][place], by_pixel[1][place] = view.ray + first_ray, view.value
    free_of_pixel += in_view


def _deal_compiled(
    view: Triplets, first_ray: int, free_of_ray: Tensor, free_of_pixel: Tensor, by_ray: Entries, by_pixel: Entries
) -> None:
    """The same."""
    kernel = import_module(f"{__package__}.kernels.slices_numba")
    entries, free = (view.ray, view.pixel, view.value), (free_of_ray, free_of_pixel)
    matrices = (tuple(part.numpy() for part in matrix) for matrix in (by_ray, by_pixel))
    kernel.deal(*(part.numpy() for part in entries), first_ray, *(part.numpy() for part in free), *matrices)


def _csr(counts: Tensor, column: Tensor, value: Tensor, shape: tuple[int, int]) -> Tensor:
    """A CSR matrix from row-sorted entries and the count of each row; 32-bit indices halve the traffic."""
    start = torch.zeros(shape[0] + 1, dtype=torch.int32)
    start[1:] = counts.cumsum(0)
    return _sparse(start, column, value, shape)


def _times(matrix: Tensor, factor: float) -> Tensor:
    return _sparse(matrix.crow_indices(), matrix.col_indices(), matrix.values() * factor, tuple(matrix.shape))


def _product(matrix: Tensor, dense: Tensor) -> Tensor:
    """matrix @ dense, without the temporary of the result's size that ``@`` makes.

    On a CPU a row of the product is a bag of embeddings, whose kernel takes half the time of sparse matrices' own
    (two cores of an AMD EPYC, 90 views of 128 x 128 pixels, 40 slices: 2.4 against 5.4 ms; not of a few slices).
    """
    if dense.device.type == "cpu" and dense.dtype == torch.float32 and dense.shape[1] >= _MANY:
        start, column, value = matrix.crow_indices(), matrix.col_indices(), matrix.values()
        return F.embedding_bag(column, dense, start, mode="sum", per_sample_weights=value, include_last_offset=True)
    return dense.new_zeros((matrix.shape[0], dense.shape[1])).addmm_(matrix, dense)


def _sparse(start: Tensor, column: Tensor, value: Tensor, shape: tuple[int, ...]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Sparse.*", category=UserWarning)
        return torch.sparse_csr_tensor(start, column, value, size=shape, check_invariants=False)


class SliceMatrix(SliceProjector):
    """Line integrals of each slice: (slices, rows, columns) in 1/mm -> (slices, views, columns), without unit.

    Holds A and A^T explicitly: 16 bytes for each of about 2.3 entries a pixel and view (columns as wide as pixels),
    whatever the number of slices.

    views: the entries of each view, in order.  Raises InputError where no ray meets the grid, and EngineError where
    memory or 32-bit indices do not suffice.
    """

    def __init__(
        self,
        geometry: RayGeometry,
        grid: Grid,
        views: Iterable[Triplets],
        *,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(geometry, grid, device=device, dtype=dtype)
        try:
            listed = list(views)
            if sum(v.value.numel() for v in listed) >= 2**31:
                raise EngineError(f"{geometry.views} views of {grid.in_plane} pixels give too many entries; use fewer")
            pixels = grid.in_plane[0] * grid.in_plane[1]
            forward, adjoint = _matrices(listed, geometry.detector[1], pixels)
            self._forward, self._adjoint = forward.to(self.device), adjoint.to(self.device)
            del forward, adjoint
            give_back_what_is_free()  # up to the size of the matrix
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, EngineError | InputError):
                raise
            raise EngineError(
                f"no memory for the system matrix of {geometry.views} views on {grid.in_plane} pixels; "
                "use fewer views or a coarser grid"
            ) from error

    @property
    def entries(self) -> int:
        """Non-zero entries of the matrix."""
        return int(self._forward.values().numel())

    def forward(self, x: Tensor) -> Tensor:
        self.domain.check(x, "x")
        flat = slices_last(x).reshape(x.shape[0], -1).t()
        return _product(self._forward, flat).t().reshape(self.range.shape)

    def adjoint(self, y: Tensor) -> Tensor:
        self.range.check(y, "y")
        flat = slices_last(y).reshape(y.shape[0], -1).t()
        return _product(self._adjoint, flat).t().reshape(self.domain.shape)

    def scaled(self: Same, factor: float) -> Same:
        """factor A, with the factor in the matrix: no extra pass over volumes.  The indices are shared."""
        twin = copy.copy(self)
        twin._forward, twin._adjoint = _times(self._forward, factor), _times(self._adjoint, factor)
        return twin
