"""A folder that holds one scan: a file that describes it, of whatever format, beside its images."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..formats import CT, Format, format_of, register
from ..scans import Measurement
from .files import require_file

_MOST_FILES = 1 << 16
_HEADERS = (".toml", ".xtekct", ".log", ".xml", ".json", ".config", ".txt", ".txrm", ".mat", ".nxs", ".h5", ".hdf5")


def described(folder: Path) -> list[Path]:
    """The files of a folder that describe a scan by themselves."""
    if not folder.is_dir():
        return []
    found = []
    for k, path in enumerate(sorted(folder.iterdir())):
        if k > _MOST_FILES or not path.name.lower().endswith(_HEADERS) or not path.is_file():
            continue
        known = format_of(path, CT)
        if known is not None and known.suffixes and not known.last:
            found.append(path)
    return found


def read_header_folder(
    folder: Path, pixel_mm: float | None = None, axis: float | None = None, prepare: str | None = None
) -> Measurement:
    """The scan of the one file that describes it.  Raises InputError where there are several."""
    found = described(folder)
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:6])
        raise InputError(f"{folder}: holds {len(found)} descriptions of scans ({names}); give one of them")
    path = found[0]
    require_file(path)
    known = format_of(path, CT)
    assert known is not None
    told = {"pixel_mm": pixel_mm, "axis": axis, "prepare": prepare}
    given = {name: value for name, value in told.items() if value is not None}
    for name in given:
        if name not in known.asks:
            raise InputError(f"{path}: {name} is for measured projections that do not tell it; leave it out")
    scan: Measurement = known.read(path, **given)
    return scan


register(
    Format(
        "folder with a description of the scan", CT, (), read_header_folder, lambda path: bool(described(path)),
        asks=("pixel_mm", "axis", "prepare"),
    )
)  # fmt: skip
