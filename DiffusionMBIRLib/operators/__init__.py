"""Linear operators with exact adjoints."""

from .base import LinearOperator
from .difference import SliceDifference
from .projector import projector

__all__ = ["LinearOperator", "SliceDifference", "projector"]
