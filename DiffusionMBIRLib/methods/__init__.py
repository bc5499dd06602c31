"""Methods of reconstruction, one file each; needs no torch until one is run."""

from ..discovery import import_all
from .base import (
    Method,
    forget_method,
    method,
    methods_for,
    names,
    require_fitting,
    require_slabs,
    settings_used,
    starts_for,
)

__all__ = [
    "DIFFUSION_METHODS",
    "METHODS",
    "NETWORK_METHODS",
    "SUPERVISED_METHODS",
    "Method",
    "forget_method",
    "method",
    "methods_for",
    "require_fitting",
    "require_slabs",
    "settings_used",
    "starts_for",
]

METHODS = names()
DIFFUSION_METHODS, SUPERVISED_METHODS = names("prior"), names("supervised")
NETWORK_METHODS = names("prior", "supervised")

import_all(__name__, __path__)
