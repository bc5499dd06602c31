"""What a job is to do, frozen in ``job.json``.  Needs numpy at most."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..config import ReconSettings
from ..errors import InputError
from ..methods import methods_for
from ..names import require_unicode
from ..scans import Scan
from ..schema import MOST_COUNT, Listed, Mapped, Number, OneOf, Plain, Schema, Text, checked, json_object
from ..simulation.settings import CTScan, MRScan, SliceScan, scan_settings
from ..tasks import TASKS
from ..volume import Volume

KINDS = ("folder", "file")
OLDER_KINDS = ("volume", "sinogram", "k-space")  # of format 1, whose jobs are listed but run no more
FORMAT = 2
_NEEDED: Mapping[str, tuple[str, ...]] = {"folder": ("holds", "shape"), "file": ("path", "bytes", "mtime_ns")}
_CHOICES = Mapped(Plain())  # settings, whose own table checks each of them
_ENTRIES: Schema = {
    "format": Number(1, FORMAT, whole=True), "name": Text(), "input": Mapped(Plain()), "task": OneOf(tuple(TASKS)),
    "scan": _CHOICES, "settings": _CHOICES, "device": Text(256),
}  # fmt: skip
_INPUT: Schema = {
    "kind": OneOf((*KINDS, *OLDER_KINDS)), "holds": Text(64), "shape": Listed(Number(1, MOST_COUNT, whole=True), 3),
    "path": Text(1 << 15), "bytes": Number(0, 1 << 63, whole=True), "mtime_ns": Number(-(1 << 63), 1 << 63, whole=True),
    "pixel_mm": Number(), "axis": Number(), "weights": Text(1 << 15), "unit": Text(64), "grid": Mapped(Plain()),
    "trajectory": Text(1 << 15), "trajectory_unit": Text(64), "trajectory_axes": Text(64), "fov_mm": Number(0, 1e6),
    "matrix": Number(0, MOST_COUNT, whole=True), "delays": Text(256), "shift_mm": Text(256), "angles": Text(256),
    "sequence": Text(1 << 15),
}  # fmt: skip
PATHS = ("path", "weights", "trajectory", "sequence")  # entries of an input that name files


@dataclass(frozen=True)
class Request:
    """One reconstruction.

    name: shown to the user, never a path.
    input: one of
        {"kind": "folder", "holds": "volume", "ct" or "mr", "shape": [slices, rows, columns]}
            what lies in the job's folder (``folder.INPUT``), in the one form of all scans; a volume is scanned first
        {"kind": "file", "path": ..., "bytes": n, "mtime_ns": n}      a scan, or a volume to simulate a scan of
            with what the user told of it, by the names of ``read``: "pixel_mm" and "axis" of projections, "trajectory",
            "trajectory_unit", "fov_mm" and others of k-space along a trajectory
    scan: settings of a simulated scan, or of thick slices, by name, and its seed; empty for measured data.
    settings: every field of ReconSettings.
    """

    name: str
    input: dict[str, Any]
    task: str
    scan: dict[str, Any]
    settings: dict[str, Any]
    device: str = "auto"

    def __post_init__(self) -> None:
        checked({f.name: getattr(self, f.name) for f in fields(self)}, _ENTRIES, "request")
        kind = checked(self.input, _INPUT, "request: input", needed=("kind",), others=True)["kind"]
        checked(self.input, _INPUT, "request: input", needed=_NEEDED.get(kind, ()), others=True)
        self.scan_settings()
        method, known = self.recon_settings().method, methods_for(self.task)
        if method not in known:
            raise InputError(
                f"setting method: {method!r} does not fit the task {self.task}; use one of {', '.join(known)}"
            )

    def scan_settings(self) -> CTScan | MRScan | SliceScan:
        """The settings of the simulated scan, checked; raises InputError that names one."""
        return scan_settings(self.task, {name: value for name, value in self.scan.items() if name != "seed"})

    def recon_settings(self) -> ReconSettings:
        """The settings, checked; raises InputError that names one which is unknown or out of range."""
        known = {f.name for f in fields(ReconSettings)}
        unknown = sorted(set(self.settings) - known)
        if unknown:
            raise InputError(f"request: setting {unknown[0]!r} is not known to this version; begin a new job")
        return ReconSettings(**self.settings)

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str, path: Any = "job.json") -> Request:
        """The inverse of :meth:`to_json`; raises InputError that names the file for a damaged or newer one."""
        entries = json_object(text, str(path))
        if not Number(whole=True).complaint(entries.get("format")) and entries["format"] > FORMAT:
            raise InputError(f"{path}: was written by a newer version; update DiffusionMBIR")
        needed = ("format", *(f.name for f in fields(cls) if f.default is MISSING))
        known = checked(entries, _ENTRIES, str(path), needed=needed)
        del known["format"]
        try:
            return cls(**known)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


def folder_input(inside: Scan | Volume) -> dict[str, Any]:
    """The entries of an input that lies in the job's folder."""
    holds = inside.KIND if isinstance(inside, Scan) else "volume"
    return {"kind": "folder", "holds": holds, "shape": list(inside.grid.shape)}


def file_input(path: Path) -> dict[str, Any]:
    """The entries of an input that stays where it is: a file or a DICOM folder.  Raises InputError if it is missing."""
    require_unicode(path)
    path = path.expanduser().absolute()
    size, changed = _stamp(path)
    return {"kind": "file", "path": str(path), "bytes": size, "mtime_ns": changed}


def require_unchanged(entries: dict[str, Any]) -> None:
    """Raise InputError if a file is not the one that the job began with."""
    path = Path(entries["path"])
    if _stamp(path) != (entries["bytes"], entries["mtime_ns"]):
        raise InputError(f"{path}: has changed since the job was made; begin a new job")


def _stamp(path: Path) -> tuple[int, int]:
    """(bytes, time of the newest change in ns) of a file, or of all files in a folder."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    try:
        files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
        found = [p.stat() for p in files]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return sum(s.st_size for s in found), max((s.st_mtime_ns for s in found), default=0)
