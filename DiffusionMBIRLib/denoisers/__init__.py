"""How whole volumes are seen by a 2D prior; each denoiser wraps another one."""

from .complex import PartsDenoiser, PhaseDenoiser
from .slices import Counter, Denoiser, SliceDenoiser

__all__ = ["Counter", "Denoiser", "PartsDenoiser", "PhaseDenoiser", "SliceDenoiser"]
