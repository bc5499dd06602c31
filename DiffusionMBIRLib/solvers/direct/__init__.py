"""Direct reconstructions, one file for each kind of scanner."""

from ...discovery import import_all
from .registry import direct_reconstruction, has_direct, reconstructs

__all__ = ["direct_reconstruction", "has_direct", "reconstructs"]

import_all(__name__, __path__)
