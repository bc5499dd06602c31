"""What a benchmark hands back: a picture of each case, a table and a JSON file of the figures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .io.files import replacing
from .metrics import PLANES
from .provenance import NOTICE, plain

_INK, _QUIET, _PAPER = "#1b1f24", "#5b6470", "#ffffff"


def save_metrics(path: str | os.PathLike[str], metrics: Mapping[str, Any]) -> None:
    """Write figures as JSON through a temporary name; values that are not finite become null."""
    text = json.dumps(plain(metrics), indent=2, allow_nan=False) + "\n"
    with replacing(Path(path), ".json") as temporary:
        temporary.write_text(text, encoding="utf-8")


# --- tables

_HEAD = ("task", "views", "range", "method", *PLANES, "residual", "time", "NFE")


def markdown_table(metrics: Mapping[str, Any]) -> str:
    """The figures of all cases as a Markdown table, the best PSNR of a case and plane in bold.

    metrics: ``{"cases": [{"task", "views", "angles_deg", "methods": {name: {"axial": {"psnr", "ssim"}, "coronal",
    "sagittal", "residual", "seconds", "nfe"}}}]}`` with ``angles_deg`` the view angles or their range; what a method
    lacks is shown as a dash.
    """
    lines = [_HEAD, *(("---",) * 4 + ("---:",) * (len(_HEAD) - 4),), *_rows(metrics, bold="**")]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def text_table(metrics: Mapping[str, Any]) -> str:
    """The same for a terminal, in aligned columns, the best PSNR marked by an asterisk; a rule between cases."""
    rows = [_HEAD, *_rows(metrics, bold="*")]
    widths = [max(len(row[k]) for row in rows) for k in range(len(_HEAD))]
    lines = []
    for number, row in enumerate(rows):
        if row[0] and number:
            lines.append("-" * (sum(widths) + 2 * len(widths) - 2))
        cells = [cell.ljust(w) if k < 4 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\nPSNR in dB / SSIM, means over the slices of each plane.  " + NOTICE


def _rows(metrics: Mapping[str, Any], *, bold: str) -> Iterator[tuple[str, ...]]:
    """One row a method; the case is named on its first row only."""
    for case in metrics["cases"]:
        methods = case["methods"]
        best = {p: max((m[p]["psnr"] for m in methods.values() if _has(m, p)), default=None) for p in PLANES}
        head = (str(case.get("task", "")), *_scan(case))
        for name, figures in methods.items():
            planes = []
            for plane in PLANES:
                text = score_text(figures.get(plane))
                first = _has(figures, plane) and figures[plane]["psnr"] == best[plane] and len(methods) > 1
                planes.append((f"{bold}{text}{bold}" if bold == "**" else f"{bold}{text}") if first else text)
            tail = (("residual", "{:.2e}"), ("seconds", "{:.1f} s"), ("nfe", "{:.0f}"))
            yield (*head, name, *planes, *(_number(figures.get(key), form) for key, form in tail))
            head = ("", "", "")


def _has(figures: Mapping[str, Any], plane: str) -> bool:
    return bool(figures.get(plane)) and figures[plane].get("psnr") is not None


def score_text(figures: Mapping[str, Any] | None) -> str:
    """'33.49 / 0.942': PSNR in dB and SSIM; a dash for what is missing."""
    if not figures:
        return "-"
    return f"{_number(figures.get('psnr'), '{:.2f}')} / {_number(figures.get('ssim'), '{:.3f}')}"


def _number(value: Any, form: str) -> str:
    return "-" if value is None else form.format(value)


def _scan(case: Mapping[str, Any]) -> tuple[str, str]:
    """How much was measured: views and their range, of MRI the acceleration and the share of lines in the middle."""
    if case.get("acceleration") is not None:
        return f"x{case['acceleration']:g}", _number(case.get("acs"), "ACS {:.0%}")
    return _number(case.get("views"), "{}"), _angles(case)


def _angles(case: Mapping[str, Any]) -> str:
    """The range that the views cover: the case's own ``angle_range_deg``, else a number or the span of a list."""
    value = case.get("angle_range_deg", case.get("angles_deg"))
    if isinstance(value, list | tuple):
        value = max(value) - min(value) if value else None
    return _number(value, "{:g} deg")


# --- pictures


def save_montage(
    path: str | os.PathLike[str],
    methods: Mapping[str, np.ndarray],
    truth: np.ndarray,
    *,
    spacing_mm: tuple[float, float, float],
    title: str,
    subtitle: str = "",
    scores: Mapping[str, Mapping[str, Any]] | None = None,
    level_hu: float = 40.0,
    window_hu: float = 400.0,
    error_hu: float = 200.0,
    unit: str = "HU",
    width_px: int = 1680,
) -> None:
    """One case as a PNG: methods and truth over their errors, in the middle axial, coronal and sagittal slices.

    methods: name -> volume (slices, rows, columns) in axial order, in the order to be shown; truth likewise.  unit: of
    their values, in which level, window and error are given whatever their names say; "" for none.
    spacing_mm: (x, y, z), for the shape of the pictures.  scores: name -> the result of
    :func:`DiffusionMBIRLib.metrics.per_plane`, printed under the pictures.  All pictures share one window, all errors
    (method minus truth) one colour bar of +- ``error_hu``.  Needs matplotlib; raises InputError without it.
    """
    for name, volume in methods.items():
        if volume.shape != truth.shape:
            raise InputError(f"{name}: shape {volume.shape} differs from the truth's {truth.shape}")
    if not methods:
        raise InputError("save_montage: give at least one method to show")
    figure_class, canvas_class = matplotlib_canvas()
    sheet = _Sheet(truth.shape, spacing_mm, len(methods) + 1, width_px)
    figure = figure_class(figsize=(sheet.width / 100, sheet.height / 100), dpi=100, facecolor=_PAPER)
    canvas_class(figure)
    grey = {"cmap": "gray", "vmin": level_hu - window_hu / 2, "vmax": level_hu + window_hu / 2}
    colour = {"cmap": "RdBu_r", "vmin": -error_hu, "vmax": error_hu}
    for column, (name, volume) in enumerate([*methods.items(), ("Truth", truth)]):
        sheet.name_column(figure, column, name)
        for row, plane in enumerate(PLANES):
            sheet.axes(figure, row, column).imshow(_mid_slice(volume, row), aspect="auto", **grey)
            if scores and name in scores:
                sheet.caption(figure, row, column, _caption(scores[name].get(plane)))
            if name in methods:
                axes = sheet.axes(figure, row + 3, column)
                drawn = axes.imshow(_mid_slice(volume, row) - _mid_slice(truth, row), aspect="auto", **colour)
    sheet.name_rows(figure)
    sheet.write_titles(figure, title, subtitle)
    sheet.write_foot(
        figure,
        f"Pictures: {grey['vmin']:g} to {grey['vmax']:g}{unit and f' {unit}'} "
        f"(level {level_hu:g}, window {window_hu:g}).  {NOTICE}",
    )
    bar = figure.colorbar(drawn, cax=sheet.bar_axes(figure), extend="both", orientation="horizontal")
    bar.set_label(f"Error{unit and f' in {unit}'}: method \N{MINUS SIGN} truth", fontsize=11, color=_INK, labelpad=8)
    bar.ax.tick_params(labelsize=10, colors=_QUIET)
    bar.outline.set_visible(False)
    save_figure(figure, Path(path))


class _Sheet:
    """Where things lie on the page, in pixels: three rows of pictures over three of errors, all at one scale of mm."""

    left, right, top, bottom, gap, caption_height, block_gap = 84, 20, 104, 44, 8, 24, 14

    def __init__(
        self, shape: tuple[int, ...], spacing_mm: tuple[float, float, float], columns: int, width_px: int
    ) -> None:
        depth, height, width = (n * s for n, s in zip(shape, spacing_mm[::-1], strict=True))
        self.sizes_mm = ((height, width), (depth, width), (depth, height))
        self.columns, self.width = columns, width_px
        self.cell = (width_px - self.left - self.right - self.gap * (columns - 1)) / columns
        self.px_per_mm = self.cell / max(width, height)
        self.heights = [rows * self.px_per_mm for rows, _ in self.sizes_mm] * 2
        below = [self.caption_height] * 3 + [self.gap] * 3
        steps = [h + b for h, b in zip(self.heights, below, strict=True)]
        self.tops = [self.top + sum(steps[:row]) + (self.block_gap if row > 2 else 0) for row in range(6)]
        self.height = round(self.tops[-1] + self.heights[-1] + self.bottom)

    def axes(self, figure: Any, row: int, column: int) -> Any:
        width = self.sizes_mm[row % 3][1] * self.px_per_mm
        axes = self._box(figure, self._middle(column) - width / 2, self.tops[row], width, self.heights[row])
        axes.set_axis_off()
        return axes

    def bar_axes(self, figure: Any) -> Any:
        """Under the truth, where no error has to be shown."""
        return self._box(
            figure, self._middle(self.columns - 1) - 0.42 * self.cell, self.tops[3] + 12, 0.84 * self.cell, 14
        )

    def name_column(self, figure: Any, column: int, name: str) -> None:
        self._text(figure, self._middle(column), self.top - 7, name, size=12.5, ha="center", va="bottom")

    def caption(self, figure: Any, row: int, column: int, text: str) -> None:
        y = self.tops[row] + self.heights[row] + 2
        self._text(figure, self._middle(column), y, text, size=11, ha="center", va="top")

    def name_rows(self, figure: Any) -> None:
        for row, plane in enumerate([*PLANES, *(f"{plane}\nerror" for plane in PLANES)]):
            y = self.tops[row] + self.heights[row] / 2
            self._text(figure, self.left - 12, y, plane, size=11, ha="right", va="center")

    def write_titles(self, figure: Any, title: str, subtitle: str) -> None:
        self._text(figure, self.left, 14, title, size=16, va="top", weight="bold")
        self._text(figure, self.left, 44, subtitle, size=11, va="top", color=_QUIET)

    def write_foot(self, figure: Any, text: str) -> None:
        self._text(figure, self.left, self.height - 14, text, size=11, va="bottom", color=_QUIET)

    def _middle(self, column: int) -> float:
        return self.left + column * (self.cell + self.gap) + self.cell / 2

    def _box(self, figure: Any, left: float, top: float, width: float, height: float) -> Any:
        """Axes at pixels from the upper left corner."""
        bounds = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        return figure.add_axes(bounds)

    def _text(
        self, figure: Any, x: float, y: float, text: str, *, size: float, va: str, ha: str = "left",
        color: str = _INK, weight: str = "normal",
    ) -> None:  # fmt: skip
        figure.text(
            x / self.width, 1 - y / self.height, text, fontsize=size, va=va, ha=ha, color=color, weight=weight,
            linespacing=1.05,
        )  # fmt: skip


def _mid_slice(volume: np.ndarray, axis: int) -> np.ndarray:
    """The middle slice as radiologists hang it: anterior up or left, superior up."""
    picture = np.take(volume, volume.shape[axis] // 2, axis)
    return picture if axis == 0 else picture[::-1]


def _caption(figures: Mapping[str, Any] | None) -> str:
    figures = figures or {}
    return f"{_number(figures.get('psnr'), '{:.2f} dB')}   SSIM {_number(figures.get('ssim'), '{:.3f}')}"


def matplotlib_canvas() -> tuple[Any, Any]:
    """Figure and Agg canvas; pyplot is left alone, so no global state and no window."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("pictures need matplotlib; install it with: python -m pip install matplotlib") from None
    return Figure, FigureCanvasAgg


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as a PNG through a temporary name."""
    paper = figure.get_facecolor()
    with replacing(path, ".png") as temporary:
        figure.savefig(temporary, format="png", facecolor=paper, metadata={"Software": "DiffusionMBIR"})
