"""What a scan is reconstructed with where the user chooses nothing, and why.  Needs numpy only.

A diffusion prior pays where views are few and it has seen such objects.  Measured scans with all their views gain
nothing of it that filtered back-projection does not have at once, and an object that is no patient is nothing that the
bundled priors know.
"""

from __future__ import annotations

from dataclasses import dataclass

from .config import ReconSettings
from .geometry.coverage import angles_seen, sees_every_line
from .scans import HOLED_DISC, Measurement, Scan
from .tasks import LIMITED_ANGLE, task_info

OBJECT, ALL_VIEWS, DISCS, BOUNDED, METAL = "object", "all-views", "discs", "disc-bounds", "metal"  # presets
# Degrees of views below which the prior of discs does better than bounded total variation, in the mean of the Helsinki
# challenge's two scans: its rows stand in docs/measured-data.md.
DISCS_DEG = 75.0
_ENOUGH = 0.5  # views a column of the detector, from which on filtered back-projection shows few streaks
LONG_S = 3600.0  # what nobody has to wait for unasked


@dataclass(frozen=True)
class Usual:
    """settings: of the reconstruction.  why: one line for the user, empty where they are the usual ones of the task."""

    settings: ReconSettings
    why: str = ""


def usual_settings(scan: Scan, *, metal_hu: float = 0.0) -> Usual:
    """The preset that suits a scan: of simulated CT and of MRI the task's.

    metal_hu: what the user takes for metal; 0: none.
    """
    if metal_hu and isinstance(scan, Measurement) and sees_every_line(scan.geometry):
        why = "preset metal because without the rays through metal the data step needs more conjugate gradient"
        return Usual(ReconSettings.preset(METAL, metal_hu=metal_hu), why)
    if not isinstance(scan, Measurement) or not scan.was_counted:
        return Usual(ReconSettings.preset(task_info(scan.task).preset))
    views, columns = scan.geometry.views_of_a_point, min(max(scan.grid.in_plane), scan.geometry.detector[1])
    around = sees_every_line(scan.geometry)
    if around and views >= _ENOUGH * columns and scan.most_per_mm is None and is_filtered(scan):
        return Usual(
            ReconSettings.preset(ALL_VIEWS),
            f"method fbp because {views} views all around are enough for {columns} columns; --method admm-tv or dual "
            "for less noise and streaks",
        )
    if scan.provenance.get("object") == HOLED_DISC:
        return _of_a_disc(None if around else angles_seen(scan.geometry))
    if scan.of_unknown_object:
        lacking = (
            f"{views} views of {columns} columns"
            if around
            else f"views of {angles_seen(scan.geometry):.0f} degrees only"
        )
        return Usual(
            ReconSettings.preset(OBJECT),
            f"method admm-tv because there are {lacking}, and of no patient, so that the bundled prior knows nothing "
            "like it; --method dual for diffusion all the same",
        )
    task = scan.task if around else LIMITED_ANGLE
    return Usual(ReconSettings.preset(task_info(task).preset))


def _of_a_disc(degrees: float | None) -> Usual:
    """degrees: of views; None where they are all around."""
    discs, bounded = ReconSettings.preset(DISCS), ReconSettings.preset(BOUNDED)
    if degrees is None:
        return Usual(bounded, f"method admm-tv because views all around leave prior {discs.prior} nothing to make up")
    seen = f"views of {degrees:.0f} degrees only"
    if degrees < DISCS_DEG:
        why = f"method dual because there are {seen}, of an object such as prior {discs.prior} has learnt"
        return Usual(discs, f"{why}; --preset {BOUNDED} for total variation")
    why = (
        f"method admm-tv because there are {seen}, where bounds alone did better on such discs than prior {discs.prior}"
    )
    return Usual(bounded, f"{why}; --preset {DISCS} for that")


def instead_of_hours(scan: Scan, usual: Usual, seconds: float | None) -> Usual:
    """What is usual, but the direct reconstruction where it would take hours and there is one."""
    if seconds is None or seconds < LONG_S or not isinstance(scan, Measurement) or not scan.was_counted:
        return usual
    if usual.settings.method == "fbp" or not is_filtered(scan):
        return usual
    method = usual.settings.method
    return Usual(
        ReconSettings.preset(ALL_VIEWS),
        f"method fbp because {method} would take about {seconds / 3600:.0f} h here; --method {method} for it all the "
        "same",
    )


def is_filtered(scan: Measurement) -> bool:
    """Whether there is a filtered back-projection of the scan's geometry."""
    return scan.geometry.KIND != "posed-beam"
