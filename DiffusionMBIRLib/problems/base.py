"""A scan on a device, whatever its kind: the operator with norm 1 and the data in the prior's value scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ..denoisers import Denoiser, SliceDenoiser
from ..errors import InputError
from ..geometry import Grid
from ..models import ValueScale
from ..operators import LinearOperator
from ..solvers.consistency import DataFit
from ..volume import Volume

if TYPE_CHECKING:
    from ..config import ReconSettings
    from ..scans import Scan


@dataclass(frozen=True)
class Problem:
    """y = A x with x (slices, rows, columns) in the prior's value scale and |A| = 1, unless ``balanced`` is given:
    fields that methods read.

    scan: as it is reconstructed.  noise: standard deviation of y in that scale, 0 if unknown.  unit: of the data, which
    y counts in.  least: the least value that a volume can have, where there is one, or voxel by voxel.  most: the
    largest, voxel by voxel.  usual_sigma: the first noise level where the settings leave it open, above the errors of
    the volume to start from.
    to_volume: of (x, name, whether x holds differences, which the unit's zero does not count for), the volume in the
    user's own unit and axis order.  residual: of x, |A x - y| / |y|, unweighted;
    0 where y is.
    of_views: of the places of some views, A and y of these alone; None where a scan has no views.
    direct: of a filter's name, the direct reconstruction; None where the kind of scan has none.
    coarser: of a stride of the views, or their places, and a factor of the pixels, makes the same problem on fewer data
    and a coarser grid, and what leads its volumes back to this grid; with a third argument, columns of the detector are
    averaged by that factor too, with a fourth, it is that of a slab of slices.  coarse does so for the start of a
    diffusion, None where that would save nothing.
    seen_by: how a prior sees volumes of this problem, such as complex ones.  unseen: true where the data do not depend
    on a voxel, such as where no coil sees; None where they depend on all.
    planes: axes of the volume, along which planes are stacked that a prior sees, one level after the other.
    data_step: makes the step onto the data, of the weight of their noise, where there is a better one than by conjugate
    gradient.
    balanced: the same data, (A, y), weighted so that |A| is near 1, for solvers that have no preconditioner; None where
    ``A`` is as good, the norm of which is above 1 where samples lie densely.  approximate: of the coupling across
    slices, an approximate inverse of A^H A with it, where there is a better one than a number.
    normalised: whether a step onto the data is divided by how much each pixel was measured.  as_published: what the
    published code of this kind of scan does ("aliased": its conjugate gradient errs; "ends-on-data").
    remarks: lines on how it is computed that the result's record is to hold.
    """

    scan: Scan
    A: LinearOperator
    y: Tensor
    value: ValueScale
    noise: float
    usual_sigma: float
    to_volume: Callable[[Tensor, str, bool], Volume]
    residual: Callable[[Tensor], float]
    unit: float = 1.0
    least: float | Tensor | None = None
    of_views: Callable[[Sequence[int]], tuple[LinearOperator, Tensor]] | None = None
    most: Tensor | None = None
    direct: Callable[[str], Tensor] | None = None
    coarse: Callable[[], tuple[Problem, Callable[[Tensor], Tensor]]] | None = None
    coarser: Callable[..., tuple[Problem, Callable[[Tensor], Tensor]]] | None = None
    seen_by: Callable[[SliceDenoiser, ReconSettings], Denoiser] = lambda denoiser, settings: denoiser
    unseen: Tensor | None = None
    planes: tuple[int, ...] = (0,)
    data_step: Callable[[float], DataFit] | None = None
    balanced: tuple[LinearOperator, Tensor] | None = None
    approximate: Callable[[float], Callable[[Tensor], Tensor]] | None = None
    normalised: bool = False
    as_published: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def grid(self) -> Grid:
        return self.scan.grid

    def analytic(self, window: str) -> Tensor:
        """The direct reconstruction; raises InputError where there is none."""
        if self.direct is None:
            raise InputError(f"{self.scan.name}: this kind of scan has no filtered back-projection")
        return self.direct(window)


def relative(distance: Tensor, size: Tensor) -> float:
    """distance / size; 0 of data that are zero everywhere, such as of air, of which no error is a share."""
    return float(distance / size) if size > 0 else 0.0


def inverse_spacing(grid: Grid) -> tuple[float, float, float]:
    """Weights of differences along (slices, rows, columns): smaller pixel side / spacing."""
    x, y, z = grid.spacing_mm
    pixel = min(x, y)
    return pixel / z, pixel / y, pixel / x
