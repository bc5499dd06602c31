"""Linear operators with exact adjoints."""

from .base import LinearOperator
from .difference import SliceDifference
from .fourier import CartesianFourier, SenseFourier
from .projector import projector
from .space import Space, slices_last
from .stack import SliceProjector

__all__ = [
    "CartesianFourier",
    "LinearOperator",
    "SenseFourier",
    "SliceDifference",
    "SliceProjector",
    "Space",
    "projector",
    "slices_last",
]
