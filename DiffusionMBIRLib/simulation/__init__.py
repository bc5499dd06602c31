"""Scans of a known volume, and the truth that a reconstruction of them is judged against.

Importing this costs no torch; a scan of CT loads it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..tasks import MR_TASK, SLICE_TASKS, SPARSE_VIEW
from ..volume import Volume
from .settings import CTScan, MRScan, scan_settings

if TYPE_CHECKING:
    from ..monitor import Monitor
    from ..scans import KSpace, Measurement, ThickSlices


def truth_for(volume: Volume, coarsen: int = 1, *, task: str | None = None) -> Volume:
    """What a reconstruction of the simulated scan is judged against: float32 in the volume's own axis order.

    Of MRI the magnitude, without unit: with ``task`` compressed-sensing-mri, and by default for a volume that is not
    in HU.  Of CT the volume in HU:

    Blocks of coarsen x coarsen voxels in the axial plane are averaged.  Values below -1000 HU, which mark what a
    scanner did not see, count as air here and in the scan.  Raises InputError where the factor does not divide the
    axial plane or the volume is not in HU.
    """
    if task in SLICE_TASKS:
        return replace(volume, array=volume.array.astype(np.float32))
    if task == MR_TASK or (task is None and volume.unit == ""):
        from .mr import magnitude_of

        scan_settings(MR_TASK, {"coarsen": coarsen if coarsen != 1 else None})
        return magnitude_of(volume)
    from .ct import coarse_truth

    return coarse_truth(volume, coarsen)


def simulate(
    volume: Volume,
    *,
    task: str = SPARSE_VIEW,
    scanner: str | None = None,
    views: int | None = None,
    angle_range_deg: float | None = None,
    sod_mm: float | None = None,
    sdd_mm: float | None = None,
    pitch: float | None = None,
    coarsen: int | None = None,
    photons: float | None = None,
    electronic_noise: float | None = None,
    axis_error_mm: float | None = None,
    dead_pixels: float | None = None,
    mu_water_per_mm: float | None = None,
    acceleration: float | None = None,
    acs: float | None = None,
    mask: str | np.ndarray | None = None,
    trajectory: str | None = None,
    spokes: int | None = None,
    arms: int | None = None,
    coils: int | None = None,
    phase: bool | None = None,
    noise: float | None = None,
    spacing_mm: float | None = None,
    thickness_mm: float | None = None,
    distance_mm: float | None = None,
    profile: str | None = None,
    beyond_limit: bool | None = None,
    seed: int = 0,
    device: str = "cpu",
    monitor: Monitor | None = None,
) -> Measurement | KSpace | ThickSlices:
    """Scan a volume: by task a CT of one in HU, an MRI of one that holds magnitudes, or thick slices of either.

    seed: of the noise, and of MRI's mask and phase; the same gives the same data, whatever the memory at hand.  All
    other settings stand in :mod:`DiffusionMBIRLib.simulation.settings`, with what is usual for a task where they are
    left out.

    CT is scanned in axial order with equidistant views from 0 degrees on, parallel and fan beams slice by slice.  Beams
    from a point need a whole turn to see every line, and are given it where no range is.  Besides the data and two
    float32 copies of the volume, memory holds a chunk of slices of the finer object and the matrix of a few views:
    about 1 GB for slices of up to 1024 x 1024.  Of cone beams it holds the whole finer object, up to eight times the
    volume.

    MRI is scanned in the planes of the volume's own axes, with k-space left out along its columns, or along radial or
    spiral trajectories.  mask may be bool
    (rows, columns) in place of acceleration and acs.  The maps of simulated coils are not handed over, as they are not
    by a scanner.  With a phase the volume is complex; noise is that of the real and of the imaginary part.

    Thick slices are stacked along the first axis of the array, and thin ones to be reconstructed on the volume's own
    grid.

    Raises InputError, naming the setting, for one that is out of range or belongs to the other kind of task, and what
    the monitor's tick raises.
    """
    if seed < 0:
        raise InputError(f"seed must be zero or positive, not {seed}")
    given = {
        "scanner": scanner,
        "views": views,
        "angle_range_deg": angle_range_deg,
        "sod_mm": sod_mm,
        "sdd_mm": sdd_mm,
        "pitch": pitch,
        "coarsen": coarsen,
        "photons": photons,
        "electronic_noise": electronic_noise,
        "axis_error_mm": axis_error_mm,
        "dead_pixels": dead_pixels,
        "mu_water_per_mm": mu_water_per_mm,
        "acceleration": acceleration,
        "acs": acs,
        "mask": mask if not isinstance(mask, np.ndarray) else None,
        "trajectory": trajectory,
        "spokes": spokes,
        "arms": arms,
        "coils": coils,
        "phase": phase,
        "noise": noise,
        "spacing_mm": spacing_mm,
        "thickness_mm": thickness_mm,
        "distance_mm": distance_mm,
        "profile": profile,
        "beyond_limit": beyond_limit,
    }
    settings = scan_settings(task, given)
    own_mask = mask if isinstance(mask, np.ndarray) else None
    if isinstance(settings, CTScan):
        from . import ct

        if own_mask is not None:
            raise InputError(f"setting mask is for MR only, not for the task {task}; leave it out")
        return ct.scan(volume, settings, task=task, seed=seed, device=device, monitor=monitor)
    if not isinstance(settings, MRScan):
        from . import slices

        return slices.scan(volume, settings, task=task, seed=seed)
    from . import mr

    return mr.scan(volume, settings, mask=own_mask, seed=seed, monitor=monitor)
