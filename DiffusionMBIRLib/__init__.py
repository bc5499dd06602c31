"""Three-dimensional CT and MRI reconstruction with diffusion priors.  Research use only, not for diagnosis.

Names are loaded when first used: ``import DiffusionMBIRLib`` costs neither torch nor SimpleITK.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .config import ReconSettings
    from .errors import Cancelled, EngineError, InputError
    from .formats import write
    from .geometry import CartesianMRI, Grid, ParallelBeam
    from .io.scans import read_scan as read
    from .io.volumes import read_volume, sample_data
    from .metrics import evaluate
    from .monitor import Console, Silent
    from .preparation.thick_slices import thick_slices
    from .priors.checkpoints import load_prior
    from .reconstruction import Result, reconstruct
    from .scans import KSpace, Measurement, ThickSlices
    from .simulation import simulate, truth_for
    from .volume import Volume

_WHERE = {
    "ReconSettings": "config",
    "Measurement": "scans",
    "Volume": "volume",
    "Cancelled": "errors",
    "EngineError": "errors",
    "InputError": "errors",
    "Grid": "geometry",
    "ParallelBeam": "geometry",
    "CartesianMRI": "geometry",
    "KSpace": "scans",
    "read": "io.scans:read_scan",
    "write": "formats",
    "read_volume": "io.volumes",
    "sample_data": "io.volumes",
    "evaluate": "metrics",
    "Console": "monitor",
    "Silent": "monitor",
    "load_prior": "priors.checkpoints",
    "Result": "reconstruction",
    "reconstruct": "reconstruction",
    "simulate": "simulation",
    "ThickSlices": "scans",
    "thick_slices": "preparation.thick_slices",
    "truth_for": "simulation",
}
__all__ = [
    "Cancelled",
    "CartesianMRI",
    "Console",
    "EngineError",
    "Grid",
    "InputError",
    "KSpace",
    "Measurement",
    "ParallelBeam",
    "ReconSettings",
    "Result",
    "Silent",
    "ThickSlices",
    "Volume",
    "__version__",
    "evaluate",
    "load_prior",
    "read",
    "read_volume",
    "reconstruct",
    "sample_data",
    "simulate",
    "thick_slices",
    "truth_for",
    "write",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _WHERE[name].partition(":")
    value = getattr(import_module(f".{module}", __name__), attribute or name)
    return value


def __dir__() -> list[str]:
    return __all__
