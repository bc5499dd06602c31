"""Methods of reconstruction, one file each; needs no torch until one is run."""

from ..discovery import import_all
from .base import Method, Names, forget, method, methods_for, require_fitting, starts_for

__all__ = [
    "DIFFUSION_METHODS",
    "METHODS",
    "NETWORK_METHODS",
    "SUPERVISED_METHODS",
    "Method",
    "forget",
    "method",
    "methods_for",
    "require_fitting",
    "starts_for",
]

METHODS = Names()
DIFFUSION_METHODS, SUPERVISED_METHODS = Names("prior"), Names("supervised")
NETWORK_METHODS = Names("prior", "supervised")

import_all(__name__, __path__)
