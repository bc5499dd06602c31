"""``projector(geometry, grid)``: the operator of a scanner, ours or one of another library behind the same contract.

An operator registers itself for a geometry where it is defined; ``projector`` finds it by the geometry's class.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, TypeVar

import torch

from ..config import PROJECTORS
from ..discovery import import_all
from ..errors import InputError
from ..geometry import Grid, RayGeometry
from .base import LinearOperator

OWN = "own"
Build = TypeVar("Build", bound=Callable[..., LinearOperator])
_BUILDERS: dict[tuple[type[RayGeometry], str], Callable[..., Any]] = {}


def projects(geometry: type[RayGeometry], backend: str = OWN) -> Callable[[Build], Build]:
    """Register what builds the operator of a geometry, from (geometry, grid, device=, dtype=)."""

    def note(build: Build) -> Build:
        _BUILDERS[geometry, backend] = build
        return build

    return note


def forget_projectors(geometry: type[RayGeometry]) -> None:
    """Take the operators of a geometry out of the registry."""
    for key in [key for key in _BUILDERS if key[0] is geometry]:
        del _BUILDERS[key]


def projector(
    geometry: RayGeometry,
    grid: Grid,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    backend: str = "auto",
) -> Any:
    """The operator from attenuation (slices, rows, columns) in 1/mm to line integrals of ``geometry.data_shape``.

    backend: 'own', 'auto' (the same: no other keeps an exact adjoint on every device), or the name of an optional one,
    which is imported only when asked for.  Raises InputError for one that is unknown or does not do this geometry
    and, with the install line, for one that is not installed.
    """
    if backend not in PROJECTORS:
        raise InputError(f"projector {backend!r} is not known; use one of {', '.join(PROJECTORS)}")
    _load()
    wanted = OWN if backend == "auto" else backend
    for kind in type(geometry).__mro__:
        if (kind, wanted) in _BUILDERS:
            return _BUILDERS[kind, wanted](geometry, grid, device=device, dtype=dtype)
    known = sorted({name for kind, name in _BUILDERS if isinstance(geometry, kind)})
    raise InputError(
        f"projector {wanted!r} does not do the geometry {geometry.KIND!r}; use {', '.join(known) or 'another geometry'}"
    )


@cache
def _load() -> None:
    for package in (__package__, f"{__package__}.backends"):
        import_all(package, import_module(package).__path__)
