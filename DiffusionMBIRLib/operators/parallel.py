"""The slice-stacked parallel-beam X-ray transform as one sparse matrix shared by all slices.

Entry (ray, pixel) = area of the pixel inside the ray's strip / strip width, in mm: the line integral averaged over the
detector column, exact for an image that is constant on each pixel.  The projection of a rectangular pixel is a
trapezoid, so its share of a strip is a difference of the trapezoid's integral.

Volumes are multiplied with the slices in the fastest memory order, (pixels, slices); tensors that have this layout
(``slices_last``) pass without a copy, and all results have it.
"""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..allocation import give_back_what_is_free
from ..errors import EngineError
from ..geometry import Grid, ParallelBeam
from .projector import projects
from .space import slices_last
from .stack import SliceProjector

_MANY = 16  # slices


def _trapezoid_share(t: Tensor, wide: float, narrow: float) -> Tensor:
    """Share in [0, 1] of the convolution of two unit boxes of half-widths wide >= narrow that lies below t."""
    distance = t.abs()
    flat = distance / (2 * wide)
    slope = 0.5 - (wide + narrow - distance).clamp_min(0).square() / (8 * wide * max(narrow, 1e-300))
    half = torch.where(distance <= wide - narrow, flat, slope)
    return 0.5 + torch.sign(t) * half


@dataclass(frozen=True)
class _Triplets:
    ray: Tensor
    pixel: Tensor
    value: Tensor


_NONE = _Triplets(*3 * [torch.empty(0)])


def _view_triplets(geometry: ParallelBeam, grid: Grid, angle_deg: float, dtype: torch.dtype) -> _Triplets:
    """Non-zero entries of one view, pixel by pixel; ``ray`` counts detector columns.  Computed in double precision."""
    rows, columns = grid.in_plane
    dx, dy = grid.spacing_mm[:2]
    theta = math.radians(angle_deg)
    cos, sin = math.cos(theta), math.sin(theta)
    half_x, half_y = abs(cos) * dx / 2, abs(sin) * dy / 2
    wide, narrow = max(half_x, half_y), min(half_x, half_y)
    narrow = 0.0 if narrow < 1e-12 * wide else narrow
    middle_x, middle_y, _ = grid.off_isocentre_mm
    x = (torch.arange(columns, dtype=torch.float64) - (columns - 1) / 2) * dx + middle_x
    y = (torch.arange(rows, dtype=torch.float64) - (rows - 1) / 2) * dy + middle_y
    centre = (y[:, None] * sin + x[None, :] * cos).reshape(-1)
    pitch = geometry.pitch_mm
    left_edge = geometry.offset_mm - geometry.columns * pitch / 2
    position = (centre - left_edge) / pitch  # in detector columns
    first = torch.floor(position - (wide + narrow) / pitch).long()
    reach = math.ceil(2 * (wide + narrow) / pitch) + 1
    below = _trapezoid_share((first - position) * pitch, wide, narrow)
    rays, values = [], []
    for k in range(reach):
        above = _trapezoid_share((first + k + 1 - position) * pitch, wide, narrow)
        rays.append(first + k)
        values.append((above - below) * (dx * dy / pitch))
        below = above
    ray, value = torch.stack(rays, 1), torch.stack(values, 1)
    keep = (value > 1e-12 * dx * dy / pitch) & (ray >= 0) & (ray < geometry.columns)
    pixel = torch.arange(rows * columns).unsqueeze(1).expand_as(ray)
    return _Triplets(ray[keep].int(), pixel[keep].int(), value[keep].to(dtype))


def _matrices(views: list[_Triplets], columns: int, pixels: int) -> tuple[Tensor, Tensor]:
    """A and A^T in CSR; ``views`` is emptied, each goes as soon as its entries are in their places.

    In A the entries of each view are sorted by detector column.  A view lists them pixel by pixel already: in A^T they
    are dealt to their places without a sort.
    """
    rays = torch.cat([torch.bincount(v.ray, minlength=columns) for v in views])
    count = torch.stack([torch.bincount(v.pixel, minlength=pixels) for v in views]).sum(0)
    total, dtype, rows = int(count.sum()), views[0].value.dtype, len(rays)
    pixel, ray = torch.empty(total, dtype=torch.int32), torch.empty(total, dtype=torch.int32)
    value, value_of_pixel = torch.empty(total, dtype=dtype), torch.empty(total, dtype=dtype)
    next_free, done = count.cumsum(0) - count, 0
    for k in range(len(views)):
        view, views[k] = views[k], _NONE
        order, part = torch.argsort(view.ray, stable=True), slice(done, done + view.ray.numel())
        pixel[part], value[part], done = view.pixel[order], view.value[order], part.stop
        in_view = torch.bincount(view.pixel, minlength=pixels)
        place = (next_free - (in_view.cumsum(0) - in_view))[view.pixel].add_(torch.arange(view.pixel.numel()))
        ray[place] = view.ray + k * columns
        value_of_pixel[place] = view.value
        next_free += in_view
    return _csr(rays, pixel, value, (rows, pixels)), _csr(count, ray, value_of_pixel, (pixels, rows))


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


@projects(ParallelBeam)
class XRayTransform(SliceProjector):
    """Line integrals of each slice: (slices, rows, columns) in 1/mm -> (slices, views, columns), without unit.

    Holds A and A^T explicitly: 16 bytes for each of about 2.3 entries a pixel and view (pitch = pixel size), whatever
    the number of slices.
    """

    def __init__(
        self,
        geometry: ParallelBeam,
        grid: Grid,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(geometry, grid, device=device, dtype=dtype)
        try:
            views = [_view_triplets(geometry, grid, angle, dtype) for angle in geometry.angles_deg]
            if sum(v.value.numel() for v in views) >= 2**31:
                raise EngineError(f"{geometry.views} views of {grid.in_plane} pixels give too many entries; use fewer")
            pixels = grid.in_plane[0] * grid.in_plane[1]
            forward, adjoint = _matrices(views, geometry.columns, pixels)
            self._forward, self._adjoint = forward.to(self.device), adjoint.to(self.device)
            del forward, adjoint
            give_back_what_is_free()  # up to the size of the matrix
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, EngineError):
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

    def scaled(self, factor: float) -> XRayTransform:
        """factor A, with the factor in the matrix: no extra pass over volumes.  The indices are shared."""
        twin = copy.copy(self)
        twin._forward, twin._adjoint = _times(self._forward, factor), _times(self._adjoint, factor)
        return twin
