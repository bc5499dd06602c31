"""Scans: what was measured, of CT and of MRI.  Needs numpy only."""

from .base import Scan, same_scan, scan_kind
from .ct import Measurement
from .mr import KSpace
from .trajectory import TrajectoryKSpace

__all__ = ["KSpace", "Measurement", "Scan", "TrajectoryKSpace", "same_scan", "scan_kind"]
