"""A scan of known geometry as counted to a ``Measurement``: every step in its order, what was guessed and repaired."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import ConeBeam, FanBeam, Grid, ParallelBeam, RayGeometry
from ..scans import Measurement
from ..volume import MU_WATER_PER_MM
from . import axis_of_rays
from .binning import binned, bins, view_stride
from .cleaning import cleaned
from .consistency import edges, sees_object
from .field_of_view import grid_seen, pixel_mm
from .flat_dark import drift, photons_counted, photons_text
from .padding import widened
from .repair import repaired
from .told import Told
from .typical import typical_attenuation
from .water import water_known, without_beam_hardening

_ATTENUATIONS = (2e-4, 50.0)  # 1/mm, from gas to heavy metals at low energies
_LINES_BELOW = 20.0  # line integrals
_DARK = 0.1  # of the largest value
_BEAM = 99.5  # percentile of the counts that stands for the open beam where no flat image tells it
_MOVABLE = (ParallelBeam, FanBeam, ConeBeam)  # whose axis can be looked for


@dataclass
class RayScan:
    """What a reader found.

    counts: (views, rows, columns) of a detector of many rows or of a stack of slices.  kind: "counts", "lines" for line
    integrals, "" where the file does not tell.  flat: (rows, columns), or (groups, rows, columns) that were taken at
    the views flat_at.  white: the open beam's counts where there is no flat image.  dark: (rows, columns).
    grid: to reconstruct on, None for what the detector sees.  axis_known: the file tells where the axis lies.
    sense_known: the file tells the sense of rotation for sure.  water: attenuation of water at the scan's energy, in
    1/mm, of medical scans, whose values are HU.  photons, photon_profile: as in a ``Measurement``, but the profile is
    (views or 1, rows or 1, columns).  most, least: ``most_per_mm`` and ``least_per_mm`` of a ``Measurement``.
    material: attenuation in 1/mm of
    the one material that the object is made of, where that is known.  kind_of_object: what it is, as :mod:`..usual`
    knows it.  guessed, remarks: what the reader
    has to say.
    """

    name: str
    source: str
    counts: np.ndarray
    geometry: RayGeometry
    kind: str = ""
    flat: np.ndarray | None = None
    flat_at: tuple[float, ...] = ()
    white: float | None = None
    dark: np.ndarray | None = None
    grid: Grid | None = None
    slice_mm: float | None = None
    axis_known: bool = False
    sense_known: bool = True
    water: float | None = None
    photons: float = 0.0
    photon_profile: np.ndarray | None = None
    most: np.ndarray | None = None
    least: np.ndarray | None = None
    material: float | None = None
    kind_of_object: str = ""
    guessed: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def weigh_by(self, flats: np.ndarray) -> None:
        """Take the photons of the open beam from how flat images (images, rows, columns) scatter."""
        dark = np.zeros(flats.shape[1:], np.float32) if self.dark is None else self.dark
        if self.photons:
            return
        self.photons, self.photon_profile = photons_counted(flats, dark)
        if self.photons:
            self.remarks.append(photons_text(self.photons))

    def flip(self, axes: tuple[int, ...]) -> None:
        """Have images run the other way along axes (-2: rows, -1: columns), as the geometry has them."""
        for name in ("counts", "flat", "dark", "photon_profile"):
            image = getattr(self, name)
            if image is not None:
                setattr(self, name, np.flip(image, axes))


def measurement_of_rays(scan: RayScan, told: Told) -> Measurement:
    """All steps.  Raises InputError, naming the file, for what does not fit together or cannot be repaired."""
    _require_fit(scan)
    guessed, remarks = list(scan.guessed), list(scan.remarks)
    line, kept = _lines(scan, told, guessed, remarks)
    geometry = scan.geometry if kept.all() else scan.geometry.take(np.flatnonzero(kept).tolist())
    line, rings = repaired(line, np.asarray(geometry.angles_deg), told, remarks)
    geometry = _with_axis(scan, rings.near(line) if rings else line, geometry, told, guessed, remarks)
    line = rings.taken_off(line, geometry, remarks) if rings else line
    if told.wants("binning"):
        line, geometry, kept = _thinned(scan, line, geometry, kept, guessed)
    grid = scan.grid or grid_seen(geometry, line.shape[0], scan.slice_mm)
    if told.wants("water"):
        line = without_beam_hardening(line, geometry, remarks)
    measured, rays = line, _photons(scan, kept)
    if scan.grid is None and told.wants("padding"):
        line, geometry, grid = widened(line, geometry, grid, rays, remarks, scan.water)
    typical = scan.water or scan.material or typical_attenuation(line, geometry, grid)
    remarks += _doubts(measured, typical, scan)
    if not scan.water:
        whose = "the object's material" if scan.material else "which most of the object has"
        guessed.append(f"values in 1/mm; {typical:.4g} / mm, {whose}, stands where water does")
    if not scan.sense_known:
        guessed.append("sense of rotation; else the slices are mirrored")
    return Measurement(
        line,
        geometry,
        grid,
        mu_water_per_mm=float(typical),
        unit="HU" if scan.water else "1/mm",
        **rays,
        most_per_mm=scan.most,
        least_per_mm=scan.least,
        provenance={
            "source": scan.source,
            "guessed": guessed,
            "remarks": remarks,
            **water_known(bool(scan.water)),
            **({"object": scan.kind_of_object} if scan.kind_of_object else {}),
        },
        name=scan.name,
    )


def _require_fit(scan: RayScan) -> None:
    views, *pixels = scan.counts.shape
    if scan.geometry.views != views:
        raise InputError(f"{scan.name}: lists {scan.geometry.views} angles for {views} images; make them equal")
    rows, columns = scan.geometry.detector
    if pixels[1] != columns or not (scan.geometry.STACKED or pixels[0] == rows):
        raise InputError(
            f"{scan.name}: the images have {pixels[0]} x {pixels[1]} pixels, the geometry says {rows} x {columns}"
        )
    for what, image in (("flat", scan.flat), ("dark", scan.dark)):
        if image is not None and list(image.shape[-2:]) != pixels:
            raise InputError(
                f"{scan.name}: {what} images must have the size of the projections {tuple(pixels)}, not {image.shape}"
            )


def _lines(scan: RayScan, told: Told, guessed: list[str], remarks: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Line integrals (views, rows, columns) of the views that are kept, and which these are."""
    flat, dark = scan.flat, scan.dark
    counted = scan.kind == "counts" or flat is not None or scan.white is not None
    if not counted and scan.kind != "lines":
        counted = float(scan.counts.max()) > _LINES_BELOW
    if not counted:
        return cleaned(scan.name, scan.counts, None, None, told, remarks)
    if flat is None:
        white = scan.white
        if white is None:
            _require_bright_edges(scan)
            white = float(np.percentile(scan.counts, _BEAM))
            guessed.append(
                f"open beam of {white:.5g} counts, the brightest of the images, for want of a flat image; where the "
                "beam is uneven, so is the picture"
            )
        flat = np.full(scan.counts.shape[1:], white, np.float32)
    if dark is None:
        dark = np.zeros(scan.counts.shape[1:], np.float32)
    mean = flat.mean(axis=0) if flat.ndim == 3 else flat
    if float(np.median(mean)) > 50 * max(float(scan.counts.max()), 0.0):
        raise InputError(
            f"{scan.name}: the flat image counts {np.median(mean):.4g}, the projections {scan.counts.max():.4g} at "
            "most; are these line integrals already? Then leave the flat image out"
        )
    line, kept = cleaned(scan.name, scan.counts, mean, dark, told, remarks)
    if flat.ndim == 3 and len(flat) > 1 and scan.flat_at:
        line = line + drift(flat, scan.flat_at, dark, len(kept))[kept]
    return line, kept


def _require_bright_edges(scan: RayScan) -> None:
    """Line integrals are small numbers, least beside the object; counts are most there."""
    most = float(scan.counts.max())
    beside = float(np.median(scan.counts[..., [0, -1]]))
    if 0 < most <= _LINES_BELOW and beside < _DARK * most:
        raise InputError(
            f"{scan.name}: values are {beside:.2g} beside the object and up to {most:.3g} in it, as of line integrals; "
            'say so (values = "line integrals")'
        )


def _with_axis(
    scan: RayScan, line: np.ndarray, geometry: RayGeometry, told: Told, guessed: list[str], remarks: list[str]
) -> RayGeometry:
    """The geometry with the axis where it was told, is known or is found.  line: (rows, views, columns)."""
    if not isinstance(geometry, _MOVABLE):
        if told.axis is not None:
            raise InputError(f"{scan.name}: axis cannot be told for {geometry.LABEL.lower()}; mend its geometry")
        return geometry
    columns = geometry.detector[1]
    listed = axis_of_rays.column_of(geometry)
    if told.axis is not None:
        if not -columns <= told.axis <= 2 * columns:
            raise InputError(f"{scan.name}: axis {told.axis:g} lies far outside the detector of {columns} columns")
        return axis_of_rays.with_column(geometry, told.axis)
    found = axis_of_rays.found(line, geometry) if told.wants("axis") else None
    if found is None:
        if not scan.axis_known:
            guessed.append(f"rotation axis at column {listed:.2f}, as nothing in the views tells another")
        return geometry
    turned = axis_of_rays.runs_backwards(line, geometry, found)
    if turned and not scan.sense_known:
        remarks.append("the views fit clearly better with angles that run the other way; they are turned round")
        geometry = replace(geometry, angles_deg=tuple(-a for a in geometry.angles_deg))
        found = axis_of_rays.found(line, geometry) or found
    elif turned:
        remarks.append("the views fit clearly better with angles that run the other way; check the sense of rotation")
    if scan.axis_known:
        if abs(found.column - listed) > 0.5:
            remarks.append(
                f"the rotation axis is at column {listed:.2f} by the file, at {found.column:.2f} by the views"
            )
        return geometry
    guessed.append(f"rotation axis at column {found.column:.2f}, {found.how}")
    return axis_of_rays.with_column(geometry, found.column)


def _thinned(
    scan: RayScan, line: np.ndarray, geometry: RayGeometry, kept: np.ndarray, guessed: list[str]
) -> tuple[np.ndarray, RayGeometry, np.ndarray]:
    """Line integrals (rows, views, columns) of fewer pixels or views, their geometry, and which views are kept."""
    by = bins(geometry) if scan.grid is None and scan.photon_profile is None else 1
    if by > 1:
        guessed.append(
            f"{geometry.views} views do not tell {geometry.detector[1]} columns apart: {by} x {by} pixels are averaged "
            "and the grid is as coarse (--prepare binning=off: all of them)"
        )
        line, geometry = binned(line, geometry, by)
        scan.photons *= by * by
        scan.slice_mm = scan.slice_mm and scan.slice_mm * by
    stride = view_stride(geometry, scan.grid or grid_seen(geometry, line.shape[0], scan.slice_mm))
    if stride > 1:
        guessed.append(
            f"one of {stride} of the {geometry.views} views is used, as the matrix of all would need more than "
            "usual memories hold (--prepare binning=off: all of them)"
        )
        line, geometry = np.ascontiguousarray(line[:, ::stride]), geometry.take(slice(None, None, stride))
        left = np.zeros_like(kept)
        left[np.flatnonzero(kept)[::stride]] = True
        kept = left
    return line, geometry, kept


def _photons(scan: RayScan, kept: np.ndarray) -> dict[str, Any]:
    if not scan.photons:
        return {}
    profile = scan.photon_profile
    if profile is None:
        return {"photons": float(scan.photons)}
    if profile.shape[0] > 1:
        profile = profile[kept]
    profile = np.ascontiguousarray(profile.swapaxes(0, 1), np.float32)
    return {"photons": float(scan.photons), "photon_profile": profile}


def _doubts(line: np.ndarray, typical: float, scan: RayScan) -> list[str]:
    """What is off in line integrals (rows, views, columns) and cannot be repaired."""
    doubts = []
    pixel = pixel_mm(scan.geometry)[0]
    if not scan.water and not _ATTENUATIONS[0] < typical < _ATTENUATIONS[1]:
        doubts.append(
            f"most of the object has an attenuation of {typical:.3g} / mm with pixels of {pixel:.4g} mm: are the "
            "lengths in mm?"
        )
    if scan.water and not 0.2 < typical_attenuation(line, scan.geometry, None) / scan.water < 5:
        doubts.append(
            f"most of the object has not the attenuation of water, {scan.water or MU_WATER_PER_MM:.4g} / mm: are the "
            "lengths in mm?"
        )
    first, last = edges(line)
    if min(first, last) < -0.2:
        doubts.append(f"the edges of the detector see {min(first, last):.2f} (air: 0): is the flat image too dark?")
    elif sees_object(first, line) or sees_object(last, line):
        doubts.append(f"the edges of the detector see {first:.2f} and {last:.2f} (air: 0); the object is cut off")
    return doubts
