"""What a job is to do, frozen in ``job.json``.  Needs numpy at most."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..config import ReconSettings
from ..errors import InputError
from ..methods import methods_for
from ..tasks import TASKS

KINDS = ("volume", "sinogram", "k-space", "file")
FORMAT = 1


@dataclass(frozen=True)
class Request:
    """One reconstruction.

    name: shown to the user, never a path.
    input: one of
        {"kind": "volume", "file": "input.npy", "grid": Grid.to_dict(), "unit": "HU"}       a scan is simulated from it
        {"kind": "sinogram", "file": "input.npy", "geometry": ParallelBeam.to_dict(), "grid": Grid.to_dict()}
            with, if they are known, "photons", "electronic_noise" and "mu_water_per_mm"
        {"kind": "k-space", "file": "input.npy", "grid": Grid.to_dict()}
            complex (slices, coils, rows, columns), centred, zero where not sampled; with "noise_std" if it is known
        {"kind": "file", "path": ..., "bytes": n, "mtime_ns": n}      a measurement, or a volume to simulate a scan of
    scan: keyword arguments of ``simulate`` besides the task; empty for measured data.
    settings: every field of ReconSettings.
    """

    name: str
    input: dict[str, Any]
    task: str
    scan: dict[str, Any]
    settings: dict[str, Any]
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.input.get("kind") not in KINDS:
            raise InputError(f"request: input.kind {self.input.get('kind')!r} is none of {', '.join(KINDS)}")
        for key in ("file", "grid") if self.input["kind"] != "file" else ("path", "bytes", "mtime_ns"):
            if key not in self.input:
                raise InputError(f"request: input.{key} is missing")
        if self.task not in TASKS:
            raise InputError(f"request: task {self.task!r} is none of {', '.join(TASKS)}")
        method, known = self.recon_settings().method, methods_for(self.task)
        if method not in known:
            raise InputError(
                f"setting method: {method!r} does not fit the task {self.task}; use one of {', '.join(known)}"
            )

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
        try:
            entries = json.loads(text)
            if entries.pop("format") != FORMAT:
                raise InputError(f"{path}: was written by a newer version; update DiffusionMBIR")
            return cls(**entries)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise InputError(f"{path}: {error}") from None
            raise InputError(f"{path}: is damaged and cannot be read; begin a new job") from None


def file_input(path: Path) -> dict[str, Any]:
    """The entries of an input that stays where it is: a file or a DICOM folder.  Raises InputError if it is missing."""
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
