"""The page itself, filled into a template by Jinja, which torch brings with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from ..errors import InputError
from ..io.files import replacing
from ..monitor import Monitor
from ..provenance import NOTICE
from ..report import matplotlib_canvas
from ..scans import KSpace, Measurement
from ..tasks import task_info
from ..uncertainty.candidates import MOST, SHOWN
from . import pictures
from .content import Content, command, gathered, residual_of_views
from .sources import REPORTS, PageSource

_TEMPLATES = Path(__file__).parent
_ABOUT = ("software", "version", "date_utc", "device", "precision", "seed", "python", "torch", "numpy")


def write_page(content: Content, path: Path) -> Path:
    """Write the page; raises InputError without Jinja or matplotlib, and where the folder is missing."""
    text = _template("page.html").render(**_filled(content))
    with replacing(path, ".html") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def write_pages(sources: Sequence[PageSource], index: Path | None, monitor: Monitor) -> list[Path]:
    """A page for each source, and the index of them, by default above the pages; the index comes last."""
    pages = []
    for number, source in enumerate(sources):
        monitor.tick("pages", number, len(sources))
        source.page.parent.mkdir(exist_ok=True)
        content = gathered(source.result, source.scan())
        pages.append((source.name, write_page(content, source.page), content))
    monitor.tick("pages", len(sources), len(sources))
    first = pages[0][1].parent
    index = index or (first.parent if first.name == REPORTS else first) / "index.html"
    return [*(page for _, page, _ in pages), write_index(pages, index)]


def write_index(pages: Sequence[tuple[str, Path, Content]], path: Path) -> Path:
    """A list of pages (name, file, content)."""
    rows = []
    for name, page, content in pages:
        numbers = content.record.get("doubt", {})
        rows.append(
            {
                "link": quote(Path(os.path.relpath(page, path.parent)).as_posix()),
                "name": name,
                "task": task_info(content.task).label,
                "method": content.settings.get("method", ""),
                "candidates": len(content.candidates) if content.labels is not None else "",
                "filled": f"{numbers['filled_in']:.0%}" if "filled_in" in numbers else "",
                "unlike": numbers.get("unlike", 0.0) > numbers.get("limit", np.inf),
                "warnings": len(_warnings(content)),
            }
        )
    text = _template("index.html").render(rows=rows, notice=NOTICE)
    with replacing(path, ".html") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def require_pages(result: Path) -> None:
    """Raise InputError before a run whose page could not be written: what lacks, or a file without a record."""
    _template("page.html")
    matplotlib_canvas()
    if result.suffix.lower() != ".nrrd":
        raise InputError(f"--report: {result.name} keeps no record of the run; write a .nrrd")


def _template(name: str) -> Any:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError:
        raise InputError("reports need Jinja2; install it with: python -m pip install jinja2") from None
    loader = FileSystemLoader(_TEMPLATES)
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    made.filters["short"] = _short
    return made.get_template(name)


def _short(number: float, sign: str = "") -> str:
    """Three digits that count, and no exponent where all before the point fit a table."""
    return format(number, f"{sign}.0f" if 1e3 <= abs(number) < 1e6 else f"{sign}.3g")


def _filled(content: Content) -> dict[str, Any]:
    """What the template is filled with; text alone, but for pictures."""
    volume, record = content.volume, content.record
    prior = record.get("prior", {})
    grid = volume.grid
    about = [(key.replace("_", " "), record[key]) for key in _ABOUT if record.get(key) not in (None, "")]
    about += [("prior", f"{prior['id']} ({prior.get('sha256', '')[:12]})")] if prior.get("id") else []
    return {
        "title": f"{task_info(content.task).label}, {content.settings.get('method', 'reconstruction')}",
        "notice": NOTICE,
        "unit": volume.unit,
        "facts": [
            ("size", " x ".join(map(str, reversed(grid.shape))) + " voxels (columns, rows, slices)"),
            ("voxels", " x ".join(f"{side:.4g}" for side in grid.spacing_mm) + " mm"),
            ("unit", volume.unit or "none (magnitude)"),
            *_measured(content),
        ],
        "warnings": _warnings(content),
        "guessed": record.get("measurement", {}).get("guessed", []),
        "windows": [
            (name, window, pictures.three_planes(volume, window))
            for name, window in pictures.windows_of(volume).items()
        ],
        "doubt": _doubt(content),
        "scanner": _scanner(content),
        "curves": _curves(content),
        "about": about,
        "settings": sorted(content.settings.items()),
        "command": command(content),
    }


def _warnings(content: Content) -> list[str]:
    record = content.record
    return [*record.get("remarks", []), *record.get("measurement", {}).get("remarks", [])]


def _measured(content: Content) -> list[tuple[str, str]]:
    scan: Any = content.scan
    if isinstance(scan, Measurement):
        dose = f"{scan.photons:.3g} photons a ray" if scan.photons else "no photon count"
        return [("measured", f"{scan.geometry.LABEL}, {scan.geometry.views} views; {dose}")]
    if isinstance(scan, KSpace):
        return [("measured", f"{scan.geometry.mask.mean():.0%} of k-space, {scan.data.shape[1]} coils")]
    return []


def _doubt(content: Content) -> dict[str, Any] | None:
    if not content.intervals and content.filled is None and content.deviation is None:
        return None
    unit = content.volume.unit
    shown = []
    for share, volume in content.intervals.items():
        if share != "95" and "95" in content.intervals:
            continue
        top = float(np.percentile(volume.array, 99))
        mean = f"mean {_short(volume.array.mean())} {unit}"
        text = f"Half-widths within which {share} % of the true values are expected; {mean}"
        shown.append((text, pictures.three_planes(volume, (0.0, top), colours="magma", bar=unit or "magnitude")))
    if content.filled is not None:
        text = "Share of the detail around a voxel that the prior filled in (0: the data determine it)"
        shown.append((text, pictures.three_planes(content.filled, (0.0, 1.0), colours="viridis", bar="share")))
    if content.against_tv is not None:
        top = float(np.percentile(np.abs(content.against_tv.array), 99)) or 1.0
        size = float(np.sqrt(np.mean(np.square(content.against_tv.array, dtype=np.float64))))
        text = f"The volume less that of total variation, which no prior was asked for: {_short(size)} {unit} (rms)"
        shown.append((text, pictures.three_planes(content.against_tv, (-top, top), colours="RdBu_r", bar=unit or "")))
    if content.deviation is not None and not content.intervals:
        top = float(np.percentile(content.deviation.array, 99))
        text = "Standard deviation of the samples: where to doubt, not how much"
        shown.append((text, pictures.three_planes(content.deviation, (0.0, top), colours="magma", bar=unit or "")))
    return {"pictures": shown, "numbers": content.record.get("doubt", {}), "candidates": _candidates(content)}


def _candidates(content: Content) -> dict[str, Any] | None:
    """None where nothing was looked for."""
    if content.labels is None:
        return None
    first = content.candidates[:SHOWN]
    picture = pictures.crops(content.volume, content.labels, first) if first else ""
    return {"all": len(content.candidates), "most": MOST, "first": first, "picture": picture}


def _scanner(content: Content) -> str:
    scan: Any = content.scan
    if isinstance(scan, Measurement):
        return pictures.scanner(scan.geometry, scan.grid)
    if isinstance(scan, KSpace):
        return pictures.sampling(scan.geometry.mask)
    return ""


def _curves(content: Content) -> list[tuple[str, str]]:
    curves = []
    if content.convergence:
        steps, residuals = zip(*content.convergence, strict=True)
        curves.append(("Residual |A x - y| / |y| while it ran", pictures.curve(steps, residuals, ("step", "residual"))))
    views = residual_of_views(content)
    if views is not None:
        angles, of_views = views
        text = "Residual of each view: one that stands out was disturbed, or its angle is wrong"
        curves.append((text, pictures.curve(angles, of_views, ("angle in degrees", "residual"), style="o")))
    return curves
