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
    from .geometry import CartesianMRI, Grid, ParallelBeam
    from .io.measurements import read_measurement as read
    from .io.measurements import write_measurement as write
    from .io.volumes import read_volume, sample_data
    from .metrics import evaluate
    from .monitor import Console, Silent
    from .priors.checkpoints import load_prior
    from .reconstruction import Result, reconstruct
    from .scans import KSpace, Measurement
    from .simulation import simulate, truth_for
    from .volume import Volume

_WHERE = {
    "ReconSettings": "config",
    "Measurement": "data",
    "Volume": "data",
    "Cancelled": "errors",
    "EngineError": "errors",
    "InputError": "errors",
    "Grid": "geometry",
    "ParallelBeam": "geometry",
    "CartesianMRI": "geometry_mr",
    "KSpace": "kspace",
    "read": "io.measurements:read_measurement",
    "write": "io.measurements:write_measurement",
    "read_volume": "io.volumes",
    "sample_data": "io.volumes",
    "evaluate": "metrics",
    "Console": "monitor",
    "Silent": "monitor",
    "load_prior": "priors.checkpoints",
    "Result": "reconstruction",
    "reconstruct": "reconstruction",
    "simulate": "simulation",
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
    "Volume",
    "__version__",
    "evaluate",
    "load_prior",
    "read",
    "read_volume",
    "reconstruct",
    "sample_data",
    "simulate",
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
