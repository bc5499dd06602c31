"""Linear operators with exact adjoints."""

from .base import LinearOperator
from .difference import SliceDifference
from .projector import projector
from .stack import SliceProjector

__all__ = ["LinearOperator", "SliceDifference", "SliceProjector", "projector"]
