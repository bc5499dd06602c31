"""Scans: what was measured, of CT, of MRI, and finished volumes of thick slices.  Needs numpy only."""

from .base import Scan, same_scan, scan_kind
from .ct import HOLED_DISC, Measurement
from .mr import KSpace
from .slices import ThickSlices
from .trajectory import TrajectoryKSpace

__all__ = ["HOLED_DISC", "KSpace", "Measurement", "Scan", "ThickSlices", "TrajectoryKSpace", "same_scan", "scan_kind"]
