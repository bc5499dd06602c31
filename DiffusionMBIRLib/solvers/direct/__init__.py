"""Direct reconstructions, one file for each kind of scanner."""

from ...discovery import import_all
from .registry import direct_reconstruction, reconstructs

__all__ = ["direct_reconstruction", "reconstructs"]

import_all(__name__, __path__)
