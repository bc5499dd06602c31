"""The paper's kind of table from the records of a benchmark, and an overview over the number of views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..io.files import replacing
from ..metrics import PLANES
from ..provenance import NOTICE
from ..report import markdown_table
from ..tasks import SPARSE_VIEW
from .plan import OURS, REFERENCE

Records = Sequence[Mapping[str, Any]]


def write_tables(records: Records, path: Path, *, machine: Mapping[str, Any]) -> None:
    """All figures as a Markdown page; the best PSNR of a scan and plane is bold."""
    where = machine["gpu"] or f"{machine['processor']}, {machine['threads']} threads"
    lines = [
        "# Benchmark",
        "",
        f"PSNR in dB / SSIM, means over the slices of each plane.  Seconds on: {where}.  {NOTICE}",
    ]
    lines += [*_against_reference(records, machine["gpu"]), *_beaten(records)]
    for case in dict.fromkeys(record["case"] for record in records):
        chosen = [record for record in records if record["case"] == case]
        lines += ["", f"## {case}", "", markdown_table({"cases": _cases(chosen)}), *_overview(chosen)]
    lines += [*_uncertainty(records), *_notes(records)]
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
    chosen = [r for r in records if r["task"] == SPARSE_VIEW and r["dose"] == "noise-free"]
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


def _against_reference(records: Records, gpu: str) -> list[str]:
    """How far our rows are from the paper's 4000 evaluations, in each scan over the cases that have both."""
    found = {(r["case"], r["scan"], r["method"]): r for r in records}
    scans = dict.fromkeys(scan for _, scan, method in found if method == REFERENCE)
    methods = dict.fromkeys(r["method"] for r in records if r["method"].startswith(OURS))
    lines: list[str] = []
    for scan, method in ((scan, method) for scan in scans for method in methods):
        cases = [case for case, at, m in found if (at, m) == (scan, REFERENCE) and (case, scan, method) in found]
        pairs = [(found[(case, scan, method)], found[(case, scan, REFERENCE)]) for case in cases]
        if not pairs:
            continue
        gains = [sum(a[p]["psnr"] - b[p]["psnr"] for a, b in pairs) / len(pairs) for p in PLANES]
        # Processor time counts what a run took and not what ran beside it; it knows nothing of a GPU.
        known = not gpu and all(r.get("cpu_seconds") for pair in pairs for r in pair)
        clock = "cpu_seconds" if known else "seconds"
        faster = sum(b[clock] for _, b in pairs) / sum(a[clock] for a, _ in pairs)
        evaluations = f"{pairs[0][0]['nfe']} against {pairs[0][1]['nfe']}"
        lines.append(
            _line([scan, method, evaluations, str(len(pairs)), *(f"{gain:+.2f}" for gain in gains), f"{faster:.0f}"])
        )
    if not lines:
        return []
    head = ["scan", "method", "evaluations", "cases", *PLANES, "times less time"]
    title = f"PSNR in dB above {REFERENCE}, mean over the cases that have both, and how many times less time it takes:"
    return ["", title, "", _line(head), _line(["---", "---", *["---:"] * (len(head) - 2)]), *lines]


def _beaten(records: Records) -> list[str]:
    """Where a row that is not ours has the highest PSNR or SSIM."""
    lines = []
    for case, scan in dict.fromkeys((r["case"], r["scan"]) for r in records):
        rows = [r for r in records if (r["case"], r["scan"]) == (case, scan)]
        if not any(r["method"].startswith(OURS) for r in rows):
            continue
        for plane, figure in ((p, f) for p in PLANES for f in ("psnr", "ssim")):
            best = max(rows, key=lambda r: r[plane][figure])
            ours = max((r for r in rows if r["method"].startswith(OURS)), key=lambda r: r[plane][figure])
            if best[plane][figure] > ours[plane][figure]:
                pair = f"{best[plane][figure]:.3f} against {ours[plane][figure]:.3f}"
                lines.append(
                    f"- {case}, {scan}, {plane} {figure.upper()}: {best['method']}, {pair} of {ours['method']}"
                )
    return ["", "Rows that are not ours and have the highest figure:", "", *lines] if lines else []


def _uncertainty(records: Records) -> list[str]:
    """What the standard deviation of posterior samples tells of the error."""
    chosen = [r for r in records if r.get("uncertainty")]
    if not chosen:
        return []
    head = ["case", "scan", "method", "correlation", "where 68 % are expected", "where 95 % are", "sd", "error"]
    lines = ["", "## Standard deviation of posterior samples against the error of their mean", ""]
    lines += [_line(head), _line(["---"] * 3 + ["---:"] * 5)]
    for r in chosen:
        u = r["uncertainty"]
        correlation = "-" if u["correlation"] is None else f"{u['correlation']:.2f}"
        figures = [correlation, f"{u['coverage_68']:.1%}", f"{u['coverage_95']:.1%}"]
        figures += [f"{u['deviation']:.4g}", f"{u['error']:.4g}"]
        lines.append(_line([r["case"], r["scan"], r["method"], *figures]))
    return lines


def _notes(records: Records) -> list[str]:
    notes = dict.fromkeys((r["method"], r["note"]) for r in records if r.get("note"))
    return ["", "## Notes", "", *(f"- {method}: {note}" for method, note in notes)] if notes else []


def _cell(value: float | None, best: float) -> str:
    if value is None:
        return "-"
    return f"**{value:.2f}**" if value == best else f"{value:.2f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
