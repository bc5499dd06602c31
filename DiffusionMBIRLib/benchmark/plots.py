"""Plots of a benchmark: PSNR against seconds, network evaluations and views; profiles; pictures.  Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..io.files import replacing
from ..metrics import PLANES
from ..provenance import NOTICE
from ..report import matplotlib_canvas
from ..tasks import SPARSE_VIEW
from .results import Results
from .run import truth_key

Records = Sequence[Mapping[str, Any]]
_MARKERS = "osD^vP*Xh<>"


def save_plots(records: Records, results: Results) -> list[Path]:
    """Every plot that the records give data for; returns the files."""
    made = []
    for name, label, of in (
        ("seconds", "seconds", lambda r: r["seconds"]),
        ("evaluations", "network evaluations a slice", lambda r: max(r["nfe"], 0.8)),
    ):
        made.append(_trade_off(records, results.folder / f"psnr-{name}.png", label, of))
    views = [r for r in records if r["task"] == SPARSE_VIEW and r["dose"] == "noise-free"]
    if len({r["views"] for r in views}) > 1:
        made.append(_against_views(views, results.folder / "psnr-views.png"))
    for scan in dict.fromkeys((r["case"], r["scan"]) for r in records):
        chosen = [r for r in records if (r["case"], r["scan"]) == scan]
        made.append(_pictures(chosen, results))
        made.append(_profiles(chosen, results))
    return made


def mean_psnr(record: Mapping[str, Any]) -> float:
    """Mean over the three planes, in dB."""
    return float(np.mean([record[plane]["psnr"] for plane in PLANES]))


def _figure(columns: int, width: float, height: float) -> tuple[Any, Any]:
    figure_class, canvas_class = matplotlib_canvas()
    figure = figure_class(figsize=(width, height), dpi=110, layout="constrained")
    canvas_class(figure)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _save(figure: Any, path: Path) -> Path:
    figure.supxlabel(NOTICE, fontsize=7, color="#5b6470")
    with replacing(path, ".png") as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": "DiffusionMBIR"})
    return path


def _styles(records: Records) -> dict[str, tuple[str, str]]:
    methods = dict.fromkeys(record["method"] for record in records)
    return {name: (f"C{k % 10}", _MARKERS[k % len(_MARKERS)]) for k, name in enumerate(methods)}


def _trade_off(records: Records, path: Path, label: str, of: Callable[[Mapping[str, Any]], float]) -> Path:
    """The four scans that most methods were run on."""
    runs = [(r["case"], r["scan"]) for r in records]
    scans = sorted(dict.fromkeys(runs), key=runs.count, reverse=True)[:4]
    figure, axes = _figure(len(scans), 4.2 * len(scans) + 1.5, 4.0)
    styles = _styles(records)
    for axis, scan in zip(axes, scans, strict=True):
        for record in (r for r in records if (r["case"], r["scan"]) == scan):
            colour, marker = styles[record["method"]]
            axis.plot(of(record), mean_psnr(record), marker, color=colour, label=record["method"], markersize=8)
        axis.set(xscale="log", xlabel=label, title=f"{scan[0]}\n{scan[1]}")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("PSNR in dB, mean of three planes")
    pairs = [pair for axis in axes for pair in zip(*axis.get_legend_handles_labels(), strict=True)]
    handles = {name: handle for handle, name in pairs}
    chosen = {name: handles[name] for name in styles if name in handles}
    axes[-1].legend(chosen.values(), chosen, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _save(figure, path)


def _against_views(records: Records, path: Path) -> Path:
    """Means over the cases; numbers of views that a method was not run with in all of them are left out."""
    cases = len({record["case"] for record in records})
    figure, axes = _figure(len(PLANES), 13.5, 4.0)
    for axis, plane in zip(axes, PLANES, strict=True):
        for method, (colour, marker) in _styles(records).items():
            points: dict[int, list[float]] = {}
            for record in records:
                if record["method"] == method:
                    points.setdefault(record["views"], []).append(record[plane]["psnr"])
            views = sorted(n for n, found in points.items() if len(found) == cases)
            if not views:
                continue
            means = [float(np.mean(points[n])) for n in views]
            axis.plot(views, means, f"-{marker}", color=colour, label=method)
        axis.set(title=plane, xlabel="views")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("PSNR in dB")
    axes[-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _save(figure, path)


def _profiles(records: Records, results: Results) -> Path:
    """Values along the middle row of the axial slice and the middle column of the coronal one."""
    truth = results.slices(truth_key(records[0]))
    figure, axes = _figure(2, 13, 4.0)
    for axis, (plane, along) in zip(axes, (("axial", 0), ("coronal", 1)), strict=True):
        middle = truth[plane].shape[along] // 2
        axis.plot(np.take(truth[plane], middle, along), color="black", linewidth=2, label="Truth")
        for record in _shown(records):
            values = np.take(results.slices(record["key"])[plane], middle, along)
            axis.plot(values, linewidth=1, label=record["method"])
        where = "middle row" if along == 0 else "middle column"
        axis.set(title=f"{plane} slice, {where}", xlabel="voxel")
        axis.grid(alpha=0.3)
    axes[-1].legend(fontsize=7)
    case = f"{records[0]['case']}_{records[0]['scan']}".lower()
    return _save(figure, results.folder / f"profiles_{case}.png")


def _shown(records: Records) -> Records:
    """What a picture has room for: the best of the classical, slice-wise and volume methods, and ours."""
    ranked = sorted(records, key=mean_psnr)
    return ranked[-4:]


def _pictures(records: Records, results: Results) -> Path:
    """The middle slices of all methods and of the truth, one column each, one window for all."""
    truth = results.slices(truth_key(records[0]))
    figure_class, canvas_class = matplotlib_canvas()
    columns = len(records) + 1
    figure = figure_class(figsize=(2.1 * columns, 6.6), dpi=110, layout="constrained")
    canvas_class(figure)
    axes = figure.subplots(3, columns, squeeze=False)
    ct = records[0]["task"].endswith("-ct")
    low, high = (-160.0, 240.0) if ct else (0.0, float(np.percentile(truth["axial"], 99.5)))
    for column, record in enumerate([*records, None]):
        slices = results.slices(record["key"]) if record else truth
        for row, plane in enumerate(PLANES):
            image = slices[plane] if row == 0 else slices[plane][::-1]
            axes[row][column].imshow(image, cmap="gray", vmin=low, vmax=high, aspect="auto" if row else "equal")
            axes[row][column].set_axis_off()
            if record:
                axes[row][column].set_title(f"{record[plane]['psnr']:.2f} dB", fontsize=8)
        head = record["method"] if record else "Truth"
        axes[0][column].set_title(f"{head}\n{axes[0][column].get_title()}", fontsize=8)
    case = f"{records[0]['case']}_{records[0]['scan']}".lower()
    return _save(figure, results.folder / f"pictures_{case}.png")
