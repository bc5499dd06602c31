"""Write the tables of docs/ that the engine's own tables hold: methods, presets, settings and formats.

A page marks where a table stands by a line ``<!-- table NAME -->`` and one ``<!-- end of table -->``; what lies between
is written anew.  A test compares the pages with this.

    python Utilities/make_docs.py
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PLACE = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown, with a line's end."""
    names = list(head)
    lines = [names, ["---"] * len(names), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def methods() -> str:
    """What each method takes and asks for, and how often it asks the network with the usual preset."""
    from DiffusionMBIRLib.config import ReconSettings
    from DiffusionMBIRLib.estimate import evaluations
    from DiffusionMBIRLib.methods import METHODS, method
    from DiffusionMBIRLib.tasks import TASKS, task_info

    needs = {"": "-", "prior": "diffusion prior", "supervised": "one trained for it"}
    rows = []
    for name in METHODS:
        entry = method(name)
        task = next(task for task in TASKS if entry.fits(task))
        usual = ReconSettings.preset(task_info(task).preset, method=name)
        scans = " and ".join({"CT": "CT", "MR": "MRI", "slices": "thick slices"}[m] for m in entry.takes)
        rows.append((f"`{name}`", entry.label, scans, needs[entry.network], str(evaluations(usual, task))))
    return table(("`--method`", "in the panel", "scans", "network", "evaluations a slice"), rows)


def presets() -> str:
    """What each preset sets otherwise than the table of settings, or than the usual preset of its task."""
    from DiffusionMBIRLib.config import preset_values
    from DiffusionMBIRLib.tasks import TASKS, task_info
    from DiffusionMBIRLib.usual import ALL_VIEWS, BOUNDED, DISCS, METAL, OBJECT

    rows = []
    for info in map(task_info, TASKS):
        usual = defaults() | preset_values(info.preset)
        for name in info.presets:
            values = defaults() | preset_values(name)
            plainly, changed = differences(values, defaults()), differences(values, usual)
            as_usual = name != info.preset and len(changed) <= len(plainly)
            told = f"as `{info.preset}`, but {', '.join(changed)}" if as_usual else ", ".join(plainly) or "nothing"
            if values["method"] == defaults()["method"]:
                told += "".join(f"; {others}" for others in of_other_methods(name, values))
            rows.append((f"`{name}`", info.label, told))
    for name in (OBJECT, DISCS, BOUNDED, METAL, ALL_VIEWS):
        changed = differences(defaults() | preset_values(name), defaults())
        rows.append((f"`{name}`", "Measured scans", ", ".join(changed)))
    return table(("`--preset`", "task", "what it sets otherwise than the table of settings"), rows)


def of_other_methods(name: str, usual: dict[str, Any]) -> list[str]:
    """What a preset sets otherwise for other methods with a diffusion prior; those that differ alike in one entry."""
    from DiffusionMBIRLib.config import preset_values
    from DiffusionMBIRLib.methods import DIFFUSION_METHODS, method

    found: dict[str, list[str]] = {}
    for other in DIFFUSION_METHODS:
        read = {k: v for k, v in preset_values(name, other).items() if k in method(other).settings}
        told = ", ".join(differences(read, usual))
        if other != usual["method"] and told:
            found.setdefault(told, []).append(f"`{other}`")
    return [f"{', '.join(methods)}: {told}" for told, methods in found.items()]


def differences(values: dict[str, Any], others: dict[str, Any]) -> list[str]:
    return [f"`{name}` {plain(value)}" for name, value in values.items() if value != others[name]]


def settings() -> str:
    """Every setting of a reconstruction, with the methods that read it."""
    from DiffusionMBIRLib.config import ReconSettings

    rows = [(*described(item), readers(item.name)) for item in fields(ReconSettings)]
    return table(("setting", "default", "range or choices", "what it is", "read by"), rows)


def readers(setting: str) -> str:
    """Which methods read a setting, those with a network together."""
    from DiffusionMBIRLib.methods import DIFFUSION_METHODS, METHODS, SUPERVISED_METHODS, method
    from DiffusionMBIRLib.methods.base import OF_ALL

    if setting in OF_ALL:
        return "all"
    left = [name for name in METHODS if setting in method(name).settings]
    told = []
    for group, members in (("diffusion", DIFFUSION_METHODS), ("supervised", SUPERVISED_METHODS)):
        if set(members) <= set(left):
            told.append(group)
            left = [name for name in left if name not in members]
    return ", ".join([*told, *(f"`{name}`" for name in left)])


def scan_settings() -> str:
    """Every setting of a simulated scan."""
    from DiffusionMBIRLib.simulation.settings import SCANS

    rows = []
    for modality, kind in SCANS.items():
        for item in fields(kind):
            option = item.metadata.get("option") or item.name.replace("_", "-")
            rows.append((f"`--{option}`", {"MR": "MRI"}.get(modality, modality), *described(item)))
    return table(("option", "scan", "setting", "default", "range or choices", "what it is"), rows)


def scanners() -> str:
    """Every kind of X-ray scanner, with what its record holds."""
    from DiffusionMBIRLib.geometry import RayGeometry, geometry_kind, kinds_of

    rows = []
    for name in kinds_of(RayGeometry):
        kind: Any = geometry_kind(name)
        own = [f"`{item.name}`" for item in fields(kind) if item.init]
        data = "slices, views, columns" if kind.STACKED else "detector rows, views, columns"
        rows.append((f"`{name}`", kind.LABEL, data, ", ".join(own)))
    return table(("kind", "in the panel", "axes of the data", "fields"), rows)


def formats() -> str:
    """Every kind of file that is read."""
    from DiffusionMBIRLib.formats import formats as known

    holds = {"ct": "CT scan", "mr": "k-space", "scan": "CT scan or k-space", "volume": "volume"}
    order = list(holds)
    rows = []
    for entry in sorted(known(), key=lambda entry: (order.index(entry.holds), entry.name)):
        if entry.last and entry.suffixes:
            continue  # asked last, it tells only what is wrong
        rows.append((entry.name, holds[entry.holds], ", ".join(f"`{s}`" for s in entry.suffixes) or "a folder"))
    return table(("format", "holds", "files"), rows)


def defaults() -> dict[str, Any]:
    from DiffusionMBIRLib.config import ReconSettings

    return {item.name: item.default for item in fields(ReconSettings)}


def described(item: Any) -> tuple[str, str, str, str]:
    """(name, default, range or choices, help) of a setting."""
    about = item.metadata
    unit = f" {about['unit']}" if about["unit"] else ""
    if about["choices"]:
        span = ", ".join(f"`{choice}`" for choice in about["choices"]) if item.name != "method" else "see the methods"
    else:
        span = between(about["range"], unit) if about["range"] else ""
    return f"`{item.name}`", plain(item.default), span, about["help"]


def between(limits: tuple[float, float], unit: str) -> str:
    least, most = limits
    return f"{least:g} or more{unit}" if most > 1e14 else f"{least:g} to {most:g}{unit}"


def plain(value: Any) -> str:
    """A value as it stands in a TOML file, strings without quotes."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


TABLES: dict[str, Callable[[], str]] = {
    "methods": methods,
    "presets": presets,
    "settings": settings,
    "scan_settings": scan_settings,
    "scanners": scanners,
    "formats": formats,
}


def with_tables(text: str) -> str:
    """A page with its tables as they are now."""
    return PLACE.sub(lambda place: place[1] + TABLES[place[2]]() + place[3], text)


def main() -> None:
    for page in sorted((ROOT / "docs").glob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = with_tables(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            sys.stdout.write(f"{page.relative_to(ROOT)}\n")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
