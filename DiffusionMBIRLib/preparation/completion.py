"""Rows of a detector that is narrower than the object, completed by what the object is likely to be beyond it.

Of a homogeneous disc the square of a line integral is 4 mu^2 (R^2 - (s - c)^2), s being the ray's distance from the
axis: a parabola beyond the edge, that its value and slope at the edge and mu tell (the water cylinder of Hsieh et al.
2004, doi 10.1118/1.1776673).  In patients mu is that of water, and the slope is that of each direction.  Of other
objects mu is not known: one disc is fitted to all rays, after what a first reconstruction shows within the field of
view has been made even.  Either is joined to what each view reads at its edge.  Completed columns are no measurement:
reconstructions that fit data trust them little.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..geometry import ConeBeam, FanBeam, ParallelBeam, RayGeometry
from .consistency import edges, sees_object
from .field_of_view import edge_distances, ray
from .half_acquisition import OFF_CENTRE
from .rotation_axis import is_full_turn

TRUST = 5e-2  # of a completed ray beside a measured one, where data are fitted
_COMPLETABLE = (ParallelBeam, FanBeam, ConeBeam)
_EDGE = 3  # columns at a side
_MOST = 0.5  # columns to add at a side, of the detector's
_FADE = 0.2  # of the detector's columns, over which the edge's own reading goes over into the fit
_DIRECTIONS, _PLACES, _GROUPS = 90, 96, 16  # of the coarse rays that the fit looks at; groups of rows
_RIM, _TAPER = 0.75, 0.1  # of the field of view: beyond it lies its rim; what is taken off ends towards its edge
_NEAR_AIR = 0.2  # of the usual line integral: errors of squares are not told apart below
_WATER_AT_EDGE = 0.25  # of the field of view's radius, over which the slope is taken,
_SMOOTH = 25  # and over so many directions (of 2 degrees) to each side


@dataclass(frozen=True)
class Completed:
    """line: integrals (rows, views, columns) and their geometry with the columns added.  trust: (1, 1, columns), less
    for those.  added: how many on the left and on the right.  reach_mm: of the object from the axis, about.
    """

    line: np.ndarray
    geometry: RayGeometry
    trust: np.ndarray
    added: tuple[int, int]
    reach_mm: float


def cut_sides(line: np.ndarray, geometry: RayGeometry) -> tuple[bool, bool]:
    """Whether the first and the last columns of line integrals (rows, views, columns) see the object where the
    detector ends: not the edge near the axis of a shifted detector in a whole turn, which sees it as it should.
    """
    first, last = (sees_object(edge, line) for edge in edges(line))
    near, far = edge_distances(geometry)
    beside = min(near, far) < OFF_CENTRE * max(near, far) and is_full_turn(np.asarray(geometry.angles_deg))
    if not beside:
        return first, last
    return (False, last) if near < far else (first, False)


def with_outer_columns(line: np.ndarray, geometry: RayGeometry, water: float | None = None) -> Completed | None:
    """Line integrals (rows, views, columns) with the columns that a detector as wide as the object would have.

    water: attenuation in 1/mm of patients.  None where no side is cut off, where the geometry is one of poses or of a
    helix, or where the fit ends at the detector.
    """
    sides = cut_sides(line, geometry)
    if not any(sides) or not isinstance(geometry, _COMPLETABLE):
        return None
    columns, radius = geometry.columns, _radius(geometry)
    left, right = (round(_MOST * columns) * side for side in sides)
    place, direction = _rays(_widened(geometry, left, right))
    place = place / radius
    measured = slice(left, left + columns)
    groups = np.array_split(np.arange(len(line)), min(_GROUPS, len(line)))
    outlines = []
    for group in groups:
        rays = _Coarse.of(line[group].mean(axis=0), place[:, measured], direction[:, measured])
        outlines.append(_of_water(rays, water * radius) if water else _of_a_disc(rays))
    seen = np.max([o.lines(place, direction) for o in outlines], axis=0).max(axis=0) > 0
    seen[measured] = True
    first, last = int(seen.argmax()), len(seen) - int(seen[::-1].argmax())
    left, right = left - first, last - left - columns
    if not left and not right:
        return None
    place, direction = place[:, first:last], direction[:, first:last]
    middles = [float(group.mean()) for group in groups]
    lines = np.stack(
        [
            _joined(view, _Outline.between(outlines, middles, row).lines(place, direction), left, right)
            for row, view in enumerate(line)
        ]
    )
    trust = np.full((1, 1, last - first), TRUST, np.float32)
    trust[..., left : left + columns] = 1
    wide = _widened(geometry, left, right)
    return Completed(np.asarray(lines, np.float32), wide, trust, (left, right), max(edge_distances(wide)))


def _widened(geometry: Any, left: int, right: int) -> Any:
    offset = geometry.offset_mm + (right - left) / 2 * geometry.pitch_mm
    return replace(geometry, columns=geometry.columns + left + right, offset_mm=offset)


def _radius(geometry: RayGeometry) -> float:
    """How far from the axis is seen from all around, in mm."""
    near, far = sorted(edge_distances(geometry))
    return far if is_full_turn(np.asarray(geometry.angles_deg)) else near


def _rays(geometry: Any) -> tuple[np.ndarray, np.ndarray]:
    """Of the rays in the plane of the axis's middle: distance s from the axis in mm, and direction phi in radians of
    their normal, x cos phi + y sin phi = s; both (views, columns).
    """
    columns = geometry.columns
    found = [ray(geometry, k - (columns - 1) / 2, 0.0) for k in range(columns)]
    point, along = (np.stack([pair[i] for pair in found], axis=1)[..., :2] for i in (0, 1))
    normal = np.stack([along[..., 1], -along[..., 0]], axis=-1) / np.linalg.norm(along, axis=-1, keepdims=True)
    return (normal * point).sum(-1), np.arctan2(normal[..., 1], normal[..., 0])


@dataclass(frozen=True)
class _Outline:
    """The square of line integrals at the distance s = 1 + e from the axis: value + slope e + curve e^2.

    value, slope: by the direction from the axis to the ray, (2 x _DIRECTIONS,) from 0 to 360 degrees.  The field of
    view's radius is 1.
    """

    value: np.ndarray
    slope: np.ndarray
    curve: float

    def lines(self, place: np.ndarray, direction: np.ndarray) -> np.ndarray:
        outwards = np.where(place > 0, direction, direction + np.pi) % (2 * np.pi)
        at = np.linspace(0, 2 * np.pi, len(self.value) + 1)
        value, slope = (np.interp(outwards, at, np.append(v, v[0])) for v in (self.value, self.slope))
        e = np.abs(place) - 1
        return np.asarray(np.sqrt(np.maximum(value + slope * e + self.curve * e**2, 0)))

    @classmethod
    def between(cls, outlines: list[_Outline], rows: list[float], row: float) -> _Outline:
        """That of a row, between those of others."""
        k = int(np.clip(np.searchsorted(rows, row), 1, max(len(rows) - 1, 1)))
        low, high = outlines[k - 1], outlines[min(k, len(rows) - 1)]
        share = float(np.interp(row, rows, np.arange(len(rows)))) - (k - 1)
        mix = [(1 - share) * a + share * b for a, b in ((low.value, high.value), (low.slope, high.slope))]
        return cls(mix[0], mix[1], (1 - share) * low.curve + share * high.curve)


def _of_water(rays: _Coarse, mu: float) -> _Outline:
    """Value and slope from near the edge, direction by direction.  mu: of water, in 1 / radius."""
    columns = round(_WATER_AT_EDGE * _PLACES / 2)
    e = rays.places[-columns:] - 1
    edge = np.concatenate([rays.line[:, -columns:], rays.line[:, :columns][:, ::-1]])
    curve = -4 * mu**2
    slope, value = np.polyfit(e, (edge * np.abs(edge) - curve * e**2).T, 1)
    window = np.hanning(2 * _SMOOTH + 3)[1:-1]
    around = np.concatenate([slope[-_SMOOTH:], slope, slope[:_SMOOTH]])
    return _Outline(value, np.convolve(around, window / window.sum(), "valid"), curve)


def _of_a_disc(rays: _Coarse) -> _Outline:
    """One disc, fitted to all rays, and once more without what lies within the field of view."""
    disc = _disc(rays.line, rays)
    return _disc(rays.line - rays.projected(rays.detail(rays.completed(disc))), rays)


def _disc(line: np.ndarray, rays: _Coarse) -> _Outline:
    known, (s, phi) = rays.known, np.broadcast_arrays(rays.places, rays.directions[:, None])
    s, phi, values = s[known], phi[known], np.maximum(line[known], 0)
    weights = 1 / np.maximum(values, max(_NEAR_AIR * float(np.median(values)), 1e-9))
    terms = np.stack([np.ones_like(s), s * np.cos(phi), s * np.sin(phi), s**2], axis=-1)
    even, cos, sin, curve = np.linalg.lstsq(terms * weights[:, None], values**2 * weights, rcond=1e-6)[0]
    outwards = np.arange(2 * _DIRECTIONS) * np.pi / _DIRECTIONS
    across = cos * np.cos(outwards) + sin * np.sin(outwards)
    return _Outline(even + across + curve, across + 2 * curve, float(curve))


@dataclass(frozen=True)
class _Coarse:
    """Parallel rays (directions, places) within the field of view, whose radius is 1, and which of them are known."""

    line: np.ndarray
    known: np.ndarray

    directions = np.arange(_DIRECTIONS) * np.pi / _DIRECTIONS
    places = (np.arange(_PLACES) - (_PLACES - 1) / 2) * 2 / _PLACES

    @classmethod
    def of(cls, line: np.ndarray, place: np.ndarray, direction: np.ndarray) -> _Coarse:
        """Means of rays (views, columns) that are next to each other; gaps in a direction are bridged."""
        turns = np.floor(direction / np.pi)
        sense = np.where(turns % 2 == 0, 1.0, -1.0)
        i = np.rint((direction - turns * np.pi) / np.pi * _DIRECTIONS).astype(int)
        sense, i = np.where(i == _DIRECTIONS, -sense, sense), i % _DIRECTIONS
        j = np.floor((sense * place + 1) / 2 * _PLACES).astype(int)
        inside = (j >= 0) & (j < _PLACES)
        index = i[inside] * _PLACES + j[inside]
        number = np.bincount(index, minlength=_DIRECTIONS * _PLACES).reshape(_DIRECTIONS, _PLACES)
        total = np.bincount(index, line[inside], minlength=number.size).reshape(number.shape)
        mean, known = total / np.maximum(number, 1), np.asarray(number > 0)
        seen = np.asarray(known.any(axis=1))
        around, turned = np.concatenate([mean, mean[:, ::-1]]), np.concatenate([known, known[:, ::-1]])
        every = np.arange(2 * _DIRECTIONS)
        for j in np.flatnonzero(turned.any(axis=0)):
            at = every[turned[:, j]]
            mean[:, j] = np.interp(every[:_DIRECTIONS], at, around[at, j], period=2 * _DIRECTIONS)
        read = turned.any(axis=0)
        for k in range(_DIRECTIONS):
            mean[k] = np.interp(cls.places, cls.places[read], mean[k, read])
        return cls(mean, np.broadcast_to(seen[:, None], known.shape))

    def completed(self, outline: _Outline) -> np.ndarray:
        """The rays and as many again on each side."""
        wide = (np.arange(3 * _PLACES) - (3 * _PLACES - 1) / 2) * 2 / _PLACES
        return _joined(self.line, outline.lines(wide, self.directions[:, None]), _PLACES, _PLACES)

    def detail(self, line: np.ndarray) -> np.ndarray:
        """What of a filtered back-projection differs from the mean of the field of view's rim: (places, places)."""
        length = 2 ** int(np.ceil(np.log2(2 * line.shape[1])))
        n = np.minimum(np.arange(length), length - np.arange(length))
        ramp = np.where(n % 2 == 1, -1 / (np.pi * np.maximum(n, 1)) ** 2, 0.0)
        ramp[0] = 0.25
        step = 2 / _PLACES
        smooth = 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, length // 2 + 1))
        response = np.fft.rfft(ramp).real * smooth / step
        rows = np.fft.irfft(np.fft.rfft(line, length) * response, length)[:, _PLACES : 2 * _PLACES]
        x, y = np.meshgrid(self.places, self.places)
        image = np.zeros((_PLACES, _PLACES))
        for row, phi in zip(rows, self.directions, strict=True):
            image += np.interp(x * np.cos(phi) + y * np.sin(phi), self.places, row)
        image *= np.pi / _DIRECTIONS
        away = np.hypot(x, y)
        rim = float(image[(away > _RIM) & (away < 1 - _TAPER / 2)].mean())
        return (image - rim) * np.clip((1 - away) / _TAPER, 0, 1)

    def projected(self, image: np.ndarray) -> np.ndarray:
        """Line integrals of an image (places, places) along the rays."""
        x, y = np.meshgrid(self.places, self.places)
        held = image != 0
        x, y, values = x[held], y[held], image[held]
        out = np.zeros_like(self.line)
        for k, phi in enumerate(self.directions):
            at = (x * np.cos(phi) + y * np.sin(phi) + 1) / 2 * _PLACES - 0.5
            low = np.clip(np.floor(at).astype(int), 0, _PLACES - 2)
            share = at - low
            out[k] = np.bincount(low, values * (1 - share), _PLACES) + np.bincount(low + 1, values * share, _PLACES)
        return out * 2 / _PLACES


def _joined(line: np.ndarray, fit: np.ndarray, left: int, right: int) -> np.ndarray:
    """Line integrals (views, columns) between what was fitted (views, columns and those beside them), which begins at
    what each view reads at its edges.
    """
    columns = line.shape[1]
    out = fit.copy()
    inner = out[:, left : left + columns]
    fade = max(_FADE * columns, 1.0)

    def off(edge: slice, added: int) -> np.ndarray:
        gap = (line[:, edge] - inner[:, edge]).mean(axis=1, keepdims=True)
        return np.asarray(gap * np.cos(np.pi / 2 * np.minimum((np.arange(added) + 1) / fade, 1)) ** 2)

    before, after = off(slice(0, _EDGE), left)[:, ::-1], off(slice(-_EDGE, None), right)
    out[:, :left] += before
    out[:, left + columns :] += after
    np.maximum(out, 0, out=out)
    inner[:] = line
    return out
