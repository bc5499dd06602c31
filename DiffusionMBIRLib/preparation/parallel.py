"""A parallel-beam scan as counted to a ``Measurement``: every step in its order, and what was guessed and repaired."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from ..geometry import Grid, ParallelBeam
from ..scans import Measurement
from . import bad_pixels
from .consistency import are_shuffled, check_views, edges, roughness, sees_object
from .flat_dark import line_integrals
from .half_acquisition import is_half_acquisition, reach, stitched
from .lost_views import lost_views
from .rotation_axis import rotation_axis
from .zingers import without_zingers

_PIXEL_MM = 1.0
_CLEARLY_SMOOTHER = 0.7  # of the roughness, for another order of the views to be taken
_MOST_LOST = 0.5  # of the views
_LARGEST_LINE = 20.0
_TRANSMISSION_OF_AIR = 0.5


@dataclass
class ParallelScan:
    """counts: (views, rows, columns), or line integrals where flat and dark are None; flat, dark: (rows, columns).

    angles_deg: of the views.  alternatives: other angles that the views may have, with what they rest on; taken only
    where they clearly fit better.  guessed, remarks: what the reader has to say.
    """

    name: str
    source: str
    counts: np.ndarray
    flat: np.ndarray | None
    dark: np.ndarray | None
    angles_deg: np.ndarray
    alternatives: list[tuple[np.ndarray, str]] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Told:
    """What the user knows of a scan: size of the detector's pixels, column of the rotation axis (0 is the first)."""

    pixel_mm: float | None = None
    axis: float | None = None

    def __post_init__(self) -> None:
        if self.pixel_mm is not None and not 0 < self.pixel_mm < np.inf:
            raise InputError(f"pixel_mm must be a positive number of mm, not {self.pixel_mm}")
        if self.axis is not None and not np.isfinite(self.axis):
            raise InputError(f"axis must be a column of the detector, not {self.axis}")


def measurement_of(scan: ParallelScan, told: Told) -> Measurement:
    """All steps.  Raises InputError, naming the file, for what does not fit together or cannot be repaired."""
    _require_fit(scan)
    remarks = list(scan.remarks)
    line, angles = _cleaned(scan, remarks)
    line = np.ascontiguousarray(line.swapaxes(0, 1))  # (slices, views, columns)
    slices, _, columns = line.shape
    centre, how = _axis(line, angles, scan.name, told.axis)
    half = is_half_acquisition(line, angles, centre)
    whole = stitched(line, angles, centre) if half else line
    remarks += _doubts(whole, angles)
    pixel = told.pixel_mm or _PIXEL_MM
    width = whole.shape[-1]
    if half:
        remarks.append(
            f"half acquisition: the axis lies {reach(columns, centre)[0]:.0f} columns from the detector's edge, so the "
            f"grid is widened from {columns} to {width} pixels"
        )
    water = _typical_attenuation(whole, pixel)
    offset = ((columns - 1) / 2 - centre) * pixel
    return Measurement(
        line,
        ParallelBeam(tuple(float(a) for a in angles), columns, pixel, offset),
        Grid((slices, width, width), (pixel, pixel, pixel)),
        mu_water_per_mm=water,
        provenance={"source": scan.source, "guessed": _guesses(scan, told, centre, how, water), "remarks": remarks},
        name=scan.name,
    )


def _guesses(scan: ParallelScan, told: Told, centre: float, how: str, water: float) -> list[str]:
    guessed = [] if told.pixel_mm else [f"pixels of {_PIXEL_MM:g} mm (the file does not tell)"]
    guessed += [] if told.axis is not None else [f"rotation axis at column {centre:.2f}, {how}"]
    return [
        *guessed,
        f"mu_water_per_mm {water:.4g}, so that the object has about 0 HU",
        "sense of rotation; else the slices are mirrored",
        *scan.guessed,
    ]


def _require_fit(scan: ParallelScan) -> None:
    views, *pixels = scan.counts.shape
    for image in (scan.flat, scan.dark):
        if image is not None and list(image.shape) != pixels:
            raise InputError(
                f"{scan.name}: flat and dark images must have the size of the projections {tuple(pixels)}, "
                f"not {image.shape}"
            )
    if len(scan.angles_deg) != views:
        raise InputError(f"{scan.name}: lists {len(scan.angles_deg)} angles for {views} projections; make them equal")
    if not np.isfinite(scan.angles_deg).all():
        raise InputError(f"{scan.name}: an angle is NaN or infinite; repair it")


def _cleaned(scan: ParallelScan, remarks: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Line integrals (views, rows, columns) without what the detector got wrong, and their angles."""
    if scan.flat is None or scan.dark is None:
        line, blind = _given_lines(scan), np.zeros(scan.counts.shape[1:], dtype=bool)
    else:
        line, blind = line_integrals(scan.counts, scan.flat, scan.dark, scan.name)
    if not np.isfinite(line).all():
        bad = int(line.size - np.count_nonzero(np.isfinite(line)))
        raise InputError(f"{scan.name}: {bad} of {line.size} values are NaN or infinite; repair or mask them first")
    if blind.any():
        line = bad_pixels.fill(line, blind)
        remarks.append(f"{int(blind.sum())} blind pixels of the detector take their neighbour's value")
    lost = lost_views(line)
    if lost.any():
        if lost.mean() > _MOST_LOST:
            raise InputError(
                f"{scan.name}: {int(lost.sum())} of {len(lost)} views show no beam; is the flat image right?"
            )
        remarks.append(
            f"{int(lost.sum())} of {len(lost)} views are left out: no beam, or not this object ({_few(lost)})"
        )
        line = line[~lost]
    dead = bad_pixels.dead_pixels(line)
    if dead.any() and dead.mean() < _MOST_LOST:
        line = bad_pixels.fill(line, dead)
        remarks.append(f"{int(dead.sum())} dead or stuck pixels of the detector take their neighbour's value")
    angles = _best_angles(scan, line, ~lost, remarks)
    line, zingers = without_zingers(line, angles)
    if zingers:
        remarks.append(f"{zingers} zingers (single readings far too bright or dark) take their neighbours' median")
    return line, angles


def _few(which: np.ndarray) -> str:
    index = np.flatnonzero(which)
    return ", ".join(str(k) for k in index[:6]) + (" ..." if len(index) > 6 else "")


def _given_lines(scan: ParallelScan) -> np.ndarray:
    """Values without flat and dark images: they must be line integrals already."""
    line = scan.counts.astype(np.float32)
    low, high = float(line.min()), float(line.max())
    if not -_LARGEST_LINE < low <= high < _LARGEST_LINE:
        raise InputError(
            f"{scan.name}: values from {low:.4g} to {high:.4g} are no line integrals; add flat and dark images "
            "(flat*.tif, dark*.tif), or take -log(counts / open beam) first"
        )
    if min(edges(line)) > max(_TRANSMISSION_OF_AIR, float(np.median(line))):
        raise InputError(
            f"{scan.name}: its edges are brighter than the object, so these are no line integrals but transmissions; "
            "take -log of them first"
        )
    return line


def _best_angles(scan: ParallelScan, line: np.ndarray, kept: np.ndarray, remarks: list[str]) -> np.ndarray:
    """The listed angles, unless others fit the views (views, rows, columns) and these do not, or clearly worse."""
    angles, by_slice = scan.angles_deg[kept], line.swapaxes(0, 1)
    if not scan.alternatives:
        return angles
    first = check_views(by_slice, angles)
    if first is not None and not first.complaint:
        return angles
    best, chosen, said = roughness(by_slice, angles), angles, ""
    for other, rests_on in scan.alternatives:
        found, rough = check_views(by_slice, other[kept]), roughness(by_slice, other[kept])
        fits = found is not None and not found.complaint
        if rough < best * (1.0 if fits or said else _CLEARLY_SMOOTHER):
            best, chosen, said = rough, other[kept], rests_on
    if said:
        remarks.append(f"{said}: the views fit their angles clearly better so")
    return chosen


def _axis(line: np.ndarray, angles_deg: np.ndarray, name: str, told: float | None) -> tuple[float, str]:
    if told is None:
        return rotation_axis(line, angles_deg, name)
    if not -0.5 <= told <= line.shape[-1] - 0.5:
        raise InputError(f"{name}: axis {told:g} lies outside the detector of {line.shape[-1]} columns")
    return told, "as given"


def _doubts(line: np.ndarray, angles_deg: np.ndarray) -> list[str]:
    """What is off in line integrals (slices, views, columns) and cannot be repaired."""
    found = check_views(line, angles_deg)
    doubts = [found.complaint] if found and found.complaint else []
    if found is None and are_shuffled(line, angles_deg):
        doubts.append(
            "the views do not fit their angles: neighbouring ones are hardly more alike than distant ones; check the "
            "order of the views and the list of angles"
        )
    seen = float(np.median(line[..., [0, 1, 2, -3, -2, -1]])) if line.shape[-1] > 6 else 0.0
    if sees_object(seen, line):
        doubts.append(
            f"the edges of the detector see {seen:.2f} (air: 0); the object is cut off, or the beam has weakened"
        )
    return doubts


def _typical_attenuation(line: np.ndarray, pixel_mm: float) -> float:
    """Mean attenuation per mm over a disc as wide as the object.  line: (slices, views, columns)."""
    profiles = line.mean(axis=0, dtype=np.float64)
    across = np.count_nonzero(profiles > 0.2 * profiles.max(axis=1, keepdims=True), axis=1)
    wide = float(np.median(across)) * pixel_mm
    value = float(np.median(profiles.sum(axis=1))) * pixel_mm / (np.pi / 4 * wide**2) if wide else 0.0
    return value if value > 0 else 1.0
