"""Scans: what was measured, of CT, of MRI, and finished volumes of thick slices.  Needs numpy only."""

from .base import Scan, same_scan, scan_kind
from .ct import HOLED_DISC, Measurement
from .mr import KSpace
from .slices import ThickSlices
from .storage import STORAGES, in_float16
from .trajectory import TrajectoryKSpace

__all__ = [
    "HOLED_DISC",
    "STORAGES",
    "KSpace",
    "Measurement",
    "Scan",
    "ThickSlices",
    "TrajectoryKSpace",
    "in_float16",
    "same_scan",
    "scan_kind",
]
