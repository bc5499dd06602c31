"""The pictures of the page, as PNG in memory: the same windows for every result, so that two pages can be compared."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from ..metrics import PLANES
from ..report import matplotlib_canvas
from ..uncertainty.candidates import Candidate
from ..volume import Volume

WINDOWS = {"soft tissue": (-160.0, 240.0), "lung": (-1350.0, 150.0), "bone": (-500.0, 1500.0)}  # HU
_ABREAST, _ABOUT = 6, 16  # pictures in a row, pixels on each side of a candidate
_INK, _PAPER = "#1b1f24", "#ffffff"


def planes_of(volume: Volume) -> dict[str, tuple[np.ndarray, float]]:
    """The middle slice in each plane, as it is looked at, and its height over its width in mm."""
    axial = volume.axial()[0]
    array, (x, y, z) = axial.array, axial.grid.spacing_mm
    k, r, c = (n // 2 for n in array.shape)
    cut = {"axial": array[k], "coronal": array[::-1, r], "sagittal": array[::-1, :, c]}
    sides = {"axial": (y, x), "coronal": (z, x), "sagittal": (z, y)}
    return {p: (cut[p], cut[p].shape[0] * sides[p][0] / (cut[p].shape[1] * sides[p][1])) for p in PLANES}


def windows_of(volume: Volume) -> dict[str, tuple[float, float]]:
    """Of CT in HU those of radiology; else from the least value to the 99.5th percentile."""
    if volume.unit == "HU":
        return WINDOWS
    return {"all": (float(min(0.0, volume.array.min())), float(np.percentile(volume.array, 99.5)) or 1.0)}


def three_planes(volume: Volume, window: tuple[float, float], *, colours: str = "gray", bar: str = "") -> str:
    """One row of pictures; bar: the label of a colour bar, none where empty."""
    figure_class, canvas_class = matplotlib_canvas()
    found = planes_of(volume)
    shapes = [max(0.2, min(1.4, found[p][1])) for p in PLANES]
    figure = figure_class(figsize=(10.2 + 0.8 * bool(bar), 3.4 * max(shapes) + 0.35), dpi=88, facecolor=_PAPER)
    figure.set_layout_engine("constrained")
    canvas_class(figure)
    axes = figure.subplots(1, 3)
    for place, plane in zip(axes, PLANES, strict=True):
        cut, _ = found[plane]
        aspect = found[plane][1] * cut.shape[1] / cut.shape[0]
        shown = place.imshow(cut, cmap=colours, vmin=window[0], vmax=window[1], aspect=aspect, interpolation="nearest")
        place.set_title(plane, fontsize=10, color=_INK)
        place.set_axis_off()
    if bar:
        figure.colorbar(shown, ax=axes, label=bar, fraction=0.025)
    return _encoded(figure)


def crops(volume: Volume, labels: Volume, candidates: Sequence[Candidate]) -> str:
    """The surroundings of some candidates in the slices of the stored array, each outlined, with its number, and in the
    window that shows most of its contrast.
    """
    figure_class, canvas_class = matplotlib_canvas()
    columns, rows = min(_ABREAST, len(candidates)), -(-len(candidates) // _ABREAST)
    windows = windows_of(volume)
    figure = figure_class(figsize=(1.7 * _ABREAST, 1.85 * rows), dpi=88, facecolor=_PAPER, layout="constrained")
    canvas_class(figure)
    axes = figure.subplots(rows, max(columns, _ABREAST), squeeze=False).flat
    pixel = volume.grid.spacing_mm[1] / volume.grid.spacing_mm[0]
    for place, candidate in zip_longest(axes, candidates):
        place.set_axis_off()
        if candidate is None:
            continue
        k, *middle = candidate.voxel
        cut = tuple(slice(max(0, m - _ABOUT), m + _ABOUT + 1) for m in middle)
        mine = labels.array[k][cut] == candidate.number
        value = float(volume.array[k][cut][mine].mean())
        name, window = _telling(windows, value, value - candidate.contrast)
        place.imshow(volume.array[k][cut], cmap="gray", vmin=window[0], vmax=window[1], aspect=pixel)
        place.contour(mine, [0.5], colors="#f59e0b", linewidths=1.0)
        place.set_title(
            f"{candidate.number}, {name}" if len(windows) > 1 else str(candidate.number), fontsize=9, color=_INK
        )
    return _encoded(figure)


def _telling(windows: Mapping[str, tuple[float, float]], one: float, other: float) -> tuple[str, tuple[float, float]]:
    """The first window in which two values lie furthest apart, as a share of its width."""
    return max(windows.items(), key=lambda w: abs(np.clip(one, *w[1]) - np.clip(other, *w[1])) / (w[1][1] - w[1][0]))


def curve(x: Any, y: Any, labels: tuple[str, str], *, style: str = ".-") -> str:
    """One small line plot."""
    figure_class, canvas_class = matplotlib_canvas()
    figure = figure_class(figsize=(5.0, 2.6), dpi=88, facecolor=_PAPER, layout="constrained")
    canvas_class(figure)
    axes = figure.subplots()
    axes.plot(x, y, style, color="#1d4ed8", linewidth=1.2, markersize=4)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    return _encoded(figure)


def scanner(geometry: Any, grid: Any) -> str:
    """Source path, detector and volume."""
    from ..scanner_picture import scanner_figure

    return _encoded(scanner_figure(geometry, grid, size=(9.5, 4.4)))


def sampling(mask: np.ndarray) -> str:
    """What of k-space was measured."""
    figure_class, canvas_class = matplotlib_canvas()
    figure = figure_class(figsize=(3.0, 3.0), dpi=88, facecolor=_PAPER, layout="constrained")
    canvas_class(figure)
    axes = figure.subplots()
    axes.imshow(mask, cmap="gray", interpolation="nearest")
    axes.set_axis_off()
    return _encoded(figure)


def _encoded(figure: Any) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor=figure.get_facecolor(), metadata={"Software": "DiffusionMBIR"})
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
