"""A picture of a scanner around the grid: source path, detector and volume, from its poses alone.

:func:`outlines` gives the lines in millimetres and needs numpy only; :func:`save_scanner_picture` draws them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .geometry import Grid, Poses, RayGeometry
from .report import matplotlib_canvas, save_figure

_FEW = 6  # detectors that are drawn
_POINTS = 33  # of a curved edge
_FLAT = 0.2  # height over width of a view
_INK, _QUIET, _SOURCE, _DETECTOR, _VOLUME = "#1b1f24", "#8a939e", "#c2410c", "#1d4ed8", "#4d7c0f"


@dataclass(frozen=True)
class Outlines:
    """Lines in the isocentre world, each (points, 3) in mm as (x, y, z).

    path: the source in each view, in the order of the angles; empty of parallel beams.  detectors: closed edges in a
    few views, the first view's first.  rays: from the source to the detector's corners in the first view.  volume: the
    grid's edges.
    """

    path: np.ndarray
    detectors: list[np.ndarray]
    rays: list[np.ndarray]
    volume: list[np.ndarray]


def outlines(geometry: RayGeometry, grid: Grid) -> Outlines:
    """What there is to draw of a scanner and the grid to reconstruct on."""
    poses = _stood_off(geometry.poses(), grid, stacked=geometry.STACKED)
    rows, columns = geometry.detector
    height = rows * np.linalg.norm(poses.v[0]) if not geometry.STACKED else grid.shape[0] * grid.spacing_mm[2]
    order = np.argsort(geometry.angles_deg, kind="stable")
    some = [0, *(int(order[k]) for k in np.linspace(0, len(order) - 1, _FEW + 1)[1:-1].astype(int))]
    edges = [_edge(poses, view, columns, float(height)) for view in dict.fromkeys(some)]
    corners = _edge(poses, 0, columns, 0.0 if geometry.STACKED else float(height))[[0, _POINTS - 1, _POINTS, -2]]
    if poses.source is None:
        assert poses.direction is not None
        away = 2 * _reach(grid) * poses.direction[0]
        rays = [np.stack([corner - away, corner]) for corner in corners]
    else:
        rays = [np.stack([poses.source[0], corner]) for corner in corners]
    path = np.empty((0, 3)) if poses.source is None else poses.source[order]
    return Outlines(path, edges, rays, _box(grid))


def _reach(grid: Grid) -> float:
    """Beyond the grid, from the isocentre."""
    x, y, _ = np.asarray(grid.shape[::-1]) * grid.spacing_mm / 2 + np.abs(grid.off_isocentre_mm)
    return 1.2 * float(np.hypot(x, y))


def _stood_off(poses: Poses, grid: Grid, *, stacked: bool) -> Poses:
    """As they are drawn: stacks of slices at the grid's height, detectors of parallel beams, which have no distance,
    beyond the grid.
    """
    lift = np.array([0.0, 0.0, grid.off_isocentre_mm[2] if stacked else 0.0])
    if poses.direction is not None:
        return replace(poses, centre=poses.centre + lift + _reach(grid) * poses.direction)
    assert poses.source is not None
    return replace(poses, centre=poses.centre + lift, source=poses.source + lift)


def _edge(poses: Poses, view: int, columns: int, height: float) -> np.ndarray:
    """The detector's edge, closed: along its lower side, back along the upper one."""
    steps = np.linspace(-columns / 2, columns / 2, _POINTS)[:, None]
    centre, u, v = poses.centre[view], poses.u[view], poses.v[view]
    up = v / np.linalg.norm(v) * height / 2
    if poses.arc and poses.source is not None:
        ahead = centre - poses.source[view]
        radius, pitch = float(np.linalg.norm(ahead)), float(np.linalg.norm(u))
        turn = steps * pitch / radius
        line = poses.source[view] + np.cos(turn) * ahead + np.sin(turn) * u * (radius / pitch)
    else:
        line = centre + steps * u
    return np.concatenate([line - up, (line + up)[::-1], (line - up)[:1]])


def _box(grid: Grid) -> list[np.ndarray]:
    half = np.asarray(grid.shape[::-1]) * grid.spacing_mm / 2
    corner = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)], float)
    rings = [np.column_stack([corner, np.full(5, side)]) for side in (-1.0, 1.0)]
    posts = [np.stack([rings[0][k], rings[1][k]]) for k in range(4)]
    return [line * half + grid.off_isocentre_mm for line in (*rings, *posts)]


def save_scanner_picture(path: str | os.PathLike[str], geometry: RayGeometry, grid: Grid) -> None:
    """Draw a scanner as a PNG.  Needs matplotlib; raises InputError without it."""
    save_figure(scanner_figure(geometry, grid), Path(path))


def scanner_figure(geometry: RayGeometry, grid: Grid, *, size: tuple[float, float] = (13, 6)) -> Any:
    """A figure of a scanner along the axis, and from the side of the first view's beam.  size: in inches."""
    figure_class, canvas_class = matplotlib_canvas()
    figure = figure_class(figsize=size, dpi=100, facecolor="#ffffff", layout="constrained")
    canvas_class(figure)
    lines = outlines(geometry, grid)
    angle = np.radians(geometry.angles_deg[0])
    beam = np.array([-np.sin(angle), np.cos(angle), 0.0])
    x, y, z = np.eye(3)
    left, right = figure.subplots(1, 2)
    _draw(left, lines, (x, y), ("x in mm (columns)", "y in mm (rows)"))
    left.invert_yaxis()  # rows of a slice run downwards
    _draw(right, lines, (beam, z), (f"along the beam at {geometry.angles_deg[0]:g} deg in mm", "z in mm (slices)"))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    figure.suptitle(_title(geometry), fontsize=12, color=_INK)
    return figure


def _draw(axes: Any, lines: Outlines, plane: tuple[np.ndarray, np.ndarray], labels: tuple[str, str]) -> None:
    def flat(line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return line @ plane[0], line @ plane[1]

    for k, line in enumerate(lines.volume):
        axes.plot(*flat(line), color=_VOLUME, linewidth=1.5, label="volume" if k == 0 else None)
    for line in lines.rays:
        axes.plot(*flat(line), color=_QUIET, linewidth=0.7)
    for k, line in enumerate(lines.detectors):
        name = ("detector, first view", "detector, other views")[k] if k < 2 else None
        axes.plot(
            *flat(line), color=_DETECTOR, linewidth=2.0 if k == 0 else 0.8, alpha=1 if k == 0 else 0.4, label=name
        )
    if len(lines.path):
        axes.plot(*flat(lines.path), ".-", color=_SOURCE, linewidth=0.6, markersize=3, label="source")
        axes.plot(*flat(lines.rays[0][:1]), "o", color=_SOURCE, markersize=7, label="source, first view")
    axes.plot(0, 0, "+", color=_INK, markersize=9, label="axis")
    axes.set_xlabel(labels[0], color=_INK)
    axes.set_ylabel(labels[1], color=_INK)
    axes.set_aspect("equal", adjustable="box")
    axes.tick_params(colors=_QUIET, labelsize=9)
    if np.ptp(axes.get_ylim()) < _FLAT * np.ptp(axes.get_xlim()):  # numbers of usual ticks would lie on each other
        heights = np.concatenate([line @ plane[1] for line in lines.volume])
        axes.set_yticks([heights.min(), heights.max()], [f"{heights.min():.4g}", f"{heights.max():.4g}"])
        for label, place in zip(axes.get_yticklabels(), ("top", "bottom"), strict=True):
            label.set_verticalalignment(place)


def _title(geometry: RayGeometry) -> str:
    told = geometry.summary()
    first, last = told["first_and_last_angle_deg"]
    parts = [geometry.LABEL, f"{geometry.views} views from {first:g} to {last:g} deg"]
    named = (("sod_mm", "source to axis {:g} mm"), ("sdd_mm", "to detector {:g} mm"), ("pitch", "pitch {:g}"))
    return ", ".join([*parts, *(form.format(told[name]) for name, form in named if name in told)])
