"""How whole volumes are seen by a 2D prior; each denoiser wraps another one."""

from .bounded import BoundedDenoiser
from .complex import PartsDenoiser, PhaseDenoiser
from .resolution import ResolutionPrior, at_pixel_size
from .slices import Counter, Denoiser, SliceDenoiser
from .tiles import TiledPrior

__all__ = [
    "BoundedDenoiser",
    "Counter",
    "Denoiser",
    "PartsDenoiser",
    "PhaseDenoiser",
    "ResolutionPrior",
    "SliceDenoiser",
    "TiledPrior",
    "at_pixel_size",
]
