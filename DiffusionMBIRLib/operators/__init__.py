"""Linear operators with exact adjoints."""

from .base import LinearOperator
from .difference import SliceDifference
from .fourier import CartesianFourier, SenseFourier
from .projector import projector
from .stack import SliceProjector

__all__ = [
    "CartesianFourier",
    "LinearOperator",
    "SenseFourier",
    "SliceDifference",
    "SliceProjector",
    "projector",
]
