"""Where voxels lie and how data of them were taken: grids, and one file for each kind of scanner.  Needs numpy only."""

from ..discovery import import_all
from .base import Geometry, forget_geometry, geometry_from_dict, geometry_kind, kinds_of
from .cartesian import CartesianMRI
from .cone import ConeBeam
from .fan import FanBeam
from .grid import AxisOrder, Grid, axial_order, contiguous
from .helical import HelicalCone
from .parallel import ParallelBeam, view_angles
from .point_source import PointSource
from .posed import PosedBeam
from .rays import Poses, RayGeometry, mixes_slices
from .slices import SliceProfiles
from .trajectory import TrajectoryMRI

__all__ = [
    "GEOMETRIES",
    "AxisOrder",
    "CartesianMRI",
    "ConeBeam",
    "FanBeam",
    "Geometry",
    "Grid",
    "HelicalCone",
    "ParallelBeam",
    "PointSource",
    "PosedBeam",
    "Poses",
    "RayGeometry",
    "SliceProfiles",
    "TrajectoryMRI",
    "axial_order",
    "contiguous",
    "forget_geometry",
    "geometry_from_dict",
    "geometry_kind",
    "kinds_of",
    "mixes_slices",
    "view_angles",
]

GEOMETRIES = kinds_of(Geometry)

import_all(__name__, __path__)  # further scanners register themselves
