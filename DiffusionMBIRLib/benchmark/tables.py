"""The paper's kind of table from the records of a benchmark, and an overview over the number of views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..io.files import replacing
from ..metrics import PLANES
from ..provenance import NOTICE
from ..report import markdown_table

Records = Sequence[Mapping[str, Any]]


def write_tables(records: Records, path: Path, *, machine: Mapping[str, Any]) -> None:
    """All figures as a Markdown page; the best PSNR of a scan and plane is bold."""
    where = machine["gpu"] or f"{machine['processor']}, {machine['threads']} threads"
    lines = [
        "# Benchmark",
        "",
        f"PSNR in dB / SSIM, means over the slices of each plane.  Seconds on: {where}.  {NOTICE}",
    ]
    for case in dict.fromkeys(record["case"] for record in records):
        chosen = [record for record in records if record["case"] == case]
        lines += ["", f"## {case}", "", markdown_table({"cases": _cases(chosen)}), *_overview(chosen)]
    with replacing(path, ".md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cases(records: Records) -> list[dict[str, Any]]:
    """The records of one volume, grouped by scan, as :func:`DiffusionMBIRLib.report.markdown_table` takes them."""
    grouped: dict[str, dict[str, Any]] = {}
    for record in records:
        entry = grouped.setdefault(
            record["scan"], {"task": f"{record['task']}, {record['scan']}", "views": record["views"], "methods": {}}
        )
        settings = record.get("provenance", {}).get("measurement", {}).get("settings", {})
        entry["angle_range_deg"] = settings.get("angle_range_deg")
        entry["methods"][record["method"]] = record
    return list(grouped.values())


def _overview(records: Records) -> list[str]:
    """Mean PSNR of the three planes against the number of views, noise-free sparse views only."""
    chosen = [r for r in records if r["task"] == "sparse-view-ct" and r["dose"] == "noise-free"]
    views = sorted({record["views"] for record in chosen})
    if len(views) < 2:
        return []
    mean = {(r["method"], r["views"]): sum(r[plane]["psnr"] for plane in PLANES) / len(PLANES) for r in chosen}
    best = {n: max(value for (_, at), value in mean.items() if at == n) for n in views}
    head = ["method", *(f"{n} views" for n in views)]
    lines = ["", "Mean PSNR of the three planes:", "", _line(head), _line(["---", *["---:"] * len(views)])]
    for method in dict.fromkeys(record["method"] for record in chosen):
        cells = [_cell(mean.get((method, n)), best[n]) for n in views]
        lines.append(_line([method, *cells]))
    return lines


def _cell(value: float | None, best: float) -> str:
    if value is None:
        return "-"
    return f"**{value:.2f}**" if value == best else f"{value:.2f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
