"""Which geometry has a direct reconstruction; each is registered where it is defined."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ...errors import InputError
from ...geometry import RayGeometry

Direct = Callable[..., Tensor]  # (A, y, geometry, grid, window=) -> attenuation in 1/mm
_DIRECT: dict[type[RayGeometry], Direct] = {}


def reconstructs(geometry: type[RayGeometry]) -> Callable[[Direct], Direct]:
    """Register the direct reconstruction of a geometry."""

    def note(direct: Direct) -> Direct:
        _DIRECT[geometry] = direct
        return direct

    return note


def has_direct(geometry: RayGeometry) -> bool:
    """Whether a geometry has one."""
    return any(kind in _DIRECT for kind in type(geometry).__mro__)


def direct_reconstruction(geometry: RayGeometry) -> Direct:
    """That of a geometry, or of the one that its class derives from; raises InputError where there is none.

    It takes (A, y, geometry, grid, window=) with y of the operator's range and gives attenuation in 1/mm.
    """
    for kind in type(geometry).__mro__:
        if kind in _DIRECT:
            return _DIRECT[kind]
    raise InputError(f"the geometry {geometry.KIND!r} has no filtered back-projection; use admm-tv or another start")
