"""A parallel-beam scan as counted to a ``Measurement``: every step in its order, and what was guessed and repaired."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import Grid, ParallelBeam, RayGeometry
from ..scans import Measurement
from .cleaning import cleaned
from .consistency import are_shuffled, check_views, roughness, sees_object
from .flat_dark import photons_counted, photons_text
from .half_acquisition import is_half_acquisition, reach, stitched
from .padding import widened
from .repair import repaired
from .rotation_axis import rotation_axis
from .told import Told
from .water import water_known

_PIXEL_MM = 1.0
_CLEARLY_SMOOTHER = 0.7  # of the roughness, for another order of the views to be taken


@dataclass
class ParallelScan:
    """counts: (views, rows, columns), or line integrals where flat and dark are None; flat, dark: (rows, columns).

    angles_deg: of the views.  alternatives: other angles that the views may have, with what they rest on; taken only
    where they clearly fit better.  flats: (images, rows, columns) that ``flat`` is the mean of, where the reader kept
    them.  guessed, remarks: what the reader has to say.
    """

    name: str
    source: str
    counts: np.ndarray
    flat: np.ndarray | None
    dark: np.ndarray | None
    angles_deg: np.ndarray
    flats: np.ndarray | None = None
    alternatives: list[tuple[np.ndarray, str]] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def measurement_of(scan: ParallelScan, told: Told) -> Measurement:
    """All steps.  Raises InputError, naming the file, for what does not fit together or cannot be repaired."""
    _require_fit(scan)
    remarks = list(scan.remarks)
    line, kept = cleaned(scan.name, scan.counts, scan.flat, scan.dark, told, remarks)
    angles = _best_angles(scan, line, kept, remarks)
    line, rings = repaired(line, angles, told, remarks)  # (slices, views, columns)
    slices, _, columns = line.shape
    near = rings.near(line) if rings else line
    centre, how = _axis(near, angles, scan.name, told.axis)
    half = is_half_acquisition(near, angles, centre)
    whole = stitched(near, angles, centre) if half else near
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
    geometry: RayGeometry = ParallelBeam(tuple(float(a) for a in angles), columns, pixel, offset)
    line = rings.taken_off(line, geometry, remarks) if rings else line
    grid = Grid((slices, width, width), (pixel, pixel, pixel))
    rays = _photons(scan, remarks)
    if told.wants("padding"):
        line, geometry, grid = widened(line, geometry, grid, rays, remarks)
    return Measurement(
        line,
        geometry,
        grid,
        mu_water_per_mm=water,
        **rays,
        # Pixels of an unknown size make no attenuation per mm.
        unit="1/mm" if told.pixel_mm else "HU",
        provenance={"source": scan.source, "guessed": _guesses(scan, told, centre, how, water), "remarks": remarks}
        | water_known(False),
        name=scan.name,
    )


def _guesses(scan: ParallelScan, told: Told, centre: float, how: str, water: float) -> list[str]:
    guessed = [] if told.pixel_mm else [f"pixels of {_PIXEL_MM:g} mm (the file does not tell)"]
    guessed += [] if told.axis is not None else [f"rotation axis at column {centre:.2f}, {how}"]
    if told.pixel_mm:
        values = f"values in 1/mm; {water:.4g} / mm, which most of the object has, stands where water does"
    else:
        values = f"values on the scale of HU: air -1000, what most of the object has ({water:.4g} a pixel) 0"
    return [
        *guessed,
        values,
        "sense of rotation; else the slices are mirrored",
        *scan.guessed,
    ]


def _photons(scan: ParallelScan, remarks: list[str]) -> dict[str, Any]:
    """The weights of the rays, where flat images tell them."""
    if scan.flats is None or scan.dark is None:
        return {}
    photons, profile = photons_counted(scan.flats, scan.dark)
    if profile is None:
        return {}
    remarks.append(photons_text(photons))
    return {"photons": photons, "photon_profile": np.ascontiguousarray(profile.swapaxes(0, 1))}


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
