"""The one table of the settings of a simulated scan, a class for each modality.  Needs no torch.

Options of the command line, widgets of the panel, the request of a job and the keywords of :func:`.simulate` are these.
The seed is not among them, as it serves the reconstruction as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from inspect import signature
from typing import Any, cast

import numpy as np

from ..config import MASKS, check, setting
from ..discovery import Names
from ..errors import InputError
from ..geometry import CartesianMRI, ParallelBeam, RayGeometry, TrajectoryMRI, geometry_kind, kinds_of
from ..tasks import MODALITIES, SLICES, SPARSE_VIEW, task_info
from ..volume import MU_WATER_PER_MM

OF_SCANNERS = ("sod_mm", "sdd_mm", "pitch")  # what only some kinds of scanners have
HALF_TURN_DEG = 180.0
TRAJECTORIES = ("cartesian", "radial", "spiral")
MOST_PHOTONS = 1e15  # beyond it counts no longer fit and noise no longer matters
_USUAL = task_info(SPARSE_VIEW).usual
_KINDS = {"int": int, "float": float, "bool": bool, "str": str}


def _shown(item: Any, *, option: str = "", span: tuple[float, float] | None = None) -> Any:
    """A setting with its own name as an option, and with the part of its range that a slider spans."""
    return field(default=item.default, metadata={**item.metadata, "option": option, "span": span})


class Scanners(Names):
    """The kinds of scanners as choices; those of beams are known without ``-beam`` as well."""

    def __init__(self) -> None:
        super().__init__(lambda: list(kinds_of(RayGeometry)))

    def __contains__(self, name: object) -> bool:
        return super().__contains__(whole_name(str(name)))


def whole_name(scanner: str) -> str:
    """A scanner's name in files: fan-beam of fan."""
    return f"{scanner}-beam" if f"{scanner}-beam" in kinds_of(RayGeometry) else scanner


@dataclass(frozen=True)
class _Checked:
    """Checks and converts its settings; numbers may be NumPy's."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            value = value.item() if isinstance(value, np.generic) else value
            check(item.name, value, item.metadata, item.type)
            object.__setattr__(self, item.name, _KINDS[str(item.type)](value))


@dataclass(frozen=True)
class CTScan(_Checked):
    """A scan of a volume in HU with equidistant views from 0 degrees on; slices lie in axial order."""

    scanner: str = setting(
        ParallelBeam.KIND,
        "Scanner",
        "Kind of scanner; fan and cone stand for fan-beam and cone-beam.",
        choices=Scanners(),
    )
    views: int = _shown(
        setting(_USUAL["views"], "Views", "Number of directions that the scan looks from.", range=(1, 100_000)),
        span=(2, 360),
    )
    angle_range_deg: float = _shown(
        setting(
            _USUAL["angle_range_deg"],
            "Angle range",
            "Range that the views are spread over; a helix has its views in each turn.",
            unit="deg",
            range=(0.1, 360.0),
        ),
        option="angle-range",
    )
    sod_mm: float = _shown(
        setting(0.0, "Source to axis", "Of beams from a point; 0: fitted to the volume.", unit="mm", range=(0.0, 1e5)),
        option="sod",
    )
    sdd_mm: float = _shown(
        setting(
            0.0,
            "Source to detector",
            "Of beams from a point; 0: 1.75 times the distance to the axis.",
            unit="mm",
            range=(0.0, 1e5),
        ),
        option="sdd",
    )
    pitch: float = setting(
        1.0,
        "Pitch",
        "Of a helix: travel of the table in a turn over the detector's height on the axis.",
        range=(0.1, 2.0),
    )
    coarsen: int = setting(
        1, "Coarser grid", "Reconstruct on means of this many voxels along rows and columns.", range=(1, 64)
    )
    photons: float = setting(
        0.0, "Photons a ray", "Incident photons a ray of a simulated scan; 0: no noise.", range=(0.0, MOST_PHOTONS)
    )
    electronic_noise: float = setting(
        0.0,
        "Electronic noise",
        "Standard deviation of the detector's own noise of a simulated scan, in photons.",
        range=(0.0, MOST_PHOTONS),
    )
    axis_error_mm: float = _shown(
        setting(
            0.0,
            "Axis error",
            "How far the detector stands aside from where the scan says, along its columns.",
            unit="mm",
            range=(-1e3, 1e3),
        ),
        option="axis-error",
    )
    dead_pixels: float = setting(
        0.0, "Dead pixels", "Share of the detector's pixels that count no photon in any view.", range=(0.0, 0.5)
    )
    mu_water_per_mm: float = _shown(
        setting(
            MU_WATER_PER_MM, "Water", "Attenuation of water in a simulated scan.", unit="1/mm", range=(1e-4, 100.0)
        ),
        option="mu-water",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scanner", whole_name(self.scanner))
        if 0 < self.sdd_mm < self.sod_mm:
            raise InputError(
                f"setting sod_mm: {self.sod_mm:g} is above sdd_mm {self.sdd_mm:g}; the source stands nearer to "
                "the axis than to the detector"
            )
        if 0 < self.photons < 1:
            raise InputError(f"setting photons: {self.photons} is neither 0 (noise-free) nor at least 1")
        if self.electronic_noise > 0 and self.photons == 0:
            raise InputError(
                "setting electronic_noise: it is counted in photons; set photons as well, or electronic_noise to 0"
            )
        if self.dead_pixels > 0 and self.photons == 0:
            raise InputError(
                "setting dead_pixels: they are known by their photons; set photons as well, or dead_pixels to 0"
            )

    @property
    def kind(self) -> type[RayGeometry]:
        """The class of the scanner."""
        return cast(type[RayGeometry], geometry_kind(self.scanner))

    @property
    def views_of_a_point(self) -> int:
        """How many views see a point: of a helix fewer than in a turn where the table is fast."""
        return max(1, round(self.views / self.pitch)) if self.kind.WHOLE_TURNS else self.views


@dataclass(frozen=True)
class MRScan(_Checked):
    """A scan of a volume of magnitudes, in its own planes, with k-space left out along its columns."""

    acceleration: float = setting(2.0, "Acceleration", "Full k-space lines for each one measured.", range=(1.0, 64.0))
    acs: float = setting(
        0.15, "ACS share", "Share of the lines in the middle of k-space that is always measured.", range=(0.001, 1.0)
    )
    mask: str = setting(MASKS[0], "Mask", "How the other lines or points of k-space are drawn.", choices=MASKS)
    trajectory: str = setting(
        TRAJECTORIES[0],
        "Trajectory",
        "How k-space is sampled: on lines of a grid, golden-angle spokes with twofold oversampling, or spiral arms.",
        choices=TRAJECTORIES,
    )
    spokes: int = setting(0, "Spokes", "Of a radial trajectory; 0: 64.", range=(0, 10_000))
    arms: int = setting(
        0, "Arms", "Of a spiral trajectory, 48 of which sample k-space completely; 0: 16.", range=(0, 10_000)
    )
    coils: int = setting(1, "Coils", "Receive coils of a simulated MRI scan.", range=(1, 64))
    phase: bool = setting(False, "Random phase", "Give a simulated MRI scan a smooth random phase.")
    noise: float = setting(
        0.0,
        "Noise",
        "Noise of a simulated MRI scan, in multiples of the volume's 99.5th percentile.",
        range=(0.0, 10.0),
    )

    @property
    def scanner(self) -> str:
        """The kind of geometry of its scans."""
        return CartesianMRI.KIND if self.trajectory == TRAJECTORIES[0] else TrajectoryMRI.KIND

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, owner in (("spokes", "radial"), ("arms", "spiral")):
            if getattr(self, name) and self.trajectory != owner:
                raise InputError(f"setting {name}: is of the trajectory {owner}, not {self.trajectory}; leave it out")


@dataclass(frozen=True)
class SliceScan(_Checked):
    """Thick slices of a volume: a finished one is taken as it is, those of a simulated scan are averaged first."""

    spacing_mm: float = _shown(
        setting(
            0.0,
            "New slice spacing",
            "Of thin slices, from one to the next; 0: the pixels' size, or as near to it as the usual limit allows.",
            unit="mm",
            range=(0.0, 100.0),
        ),
        option="spacing-mm",
    )
    thickness_mm: float = _shown(
        setting(
            0.0,
            "Slice thickness",
            "Of the thick slices; 0: as their file tells, or as they are apart.",
            unit="mm",
            range=(0.0, 100.0),
        ),
        option="thickness-mm",
    )
    distance_mm: float = _shown(
        setting(
            0.0,
            "Slice distance",
            "Of simulated thick slices, from one to the next: larger than the thickness leaves gaps; 0: the thickness.",
            unit="mm",
            range=(0.0, 100.0),
        ),
        option="distance-mm",
    )
    profile: str = setting(
        "box",
        "Slice profile",
        "What a slice averages over: box, gaussian (the thickness is its full width at half maximum), or a text file "
        "of distance in mm and sensitivity.",
    )
    beyond_limit: bool = setting(
        False,
        "Beyond the limit",
        "Allow more thin slices of a thick one than 4 in CT and 3 in MRI: detail between slices is then made up.",
    )


SCANS: Mapping[str, type[CTScan] | type[MRScan] | type[SliceScan]] = dict(
    zip((*MODALITIES, SLICES), (CTScan, MRScan, SliceScan), strict=True)
)


def scan_names(task: str) -> tuple[str, ...]:
    """The names of the settings that a task's scan has."""
    return tuple(item.name for item in fields(SCANS[task_info(task).data]))


def scan_settings(task: str, given: Mapping[str, Any] | None = None) -> CTScan | MRScan | SliceScan:
    """The settings of a scan: those given, and what is usual for the task.  None counts as not given.

    Raises InputError that names a setting which is unknown, of the other modality, or out of range.
    """
    info = task_info(task)
    values = {name: value for name, value in (given or {}).items() if value is not None}
    for name in values:
        if name not in scan_names(task):
            raise InputError(_unfit(name, task))
    scan = SCANS[info.data](**{**info.usual, **values})
    if isinstance(scan, CTScan) and "angle_range_deg" not in values and scan.angle_range_deg == HALF_TURN_DEG:
        return replace(scan, angle_range_deg=scan.kind.EVERY_LINE_DEG)
    return scan


def scanner_settings(scanner: str) -> tuple[str, ...]:
    """Which of the settings of a scanner one of this kind has, such as its distances."""
    known = signature(CTScan(scanner=scanner).kind.covering).parameters
    return tuple(name for name in OF_SCANNERS if name in known)


def _unfit(name: str, task: str) -> str:
    owners = [modality for modality, table in SCANS.items() if name in {item.name for item in fields(table)}]
    if not owners:
        return f"setting {name!r} is not one of a simulated scan"
    return f"setting {name} is for {owners[0]} only, not for the task {task}; leave it out"
