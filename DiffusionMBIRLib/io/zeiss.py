"""Zeiss (Xradia) scans: .txrm, an OLE file, through olefile: ``pip install ".[ct]"``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..formats import CT, Format, register
from ..geometry import ParallelBeam, RayGeometry
from ..host_memory import require_room
from ..preparation.rays import RayScan, measurement_of_rays
from ..preparation.told import Told
from ..scans import Measurement
from .circles import circle

_TYPES = {5: "u2", 10: "f4"}
_CONE = 1  # of ImageInfo/XrayGeometry; others are optics that see parallel beams
_MOST = 1 << 16


def read_txrm(path: Path, axis: float | None = None, prepare: str | None = None) -> Measurement:
    """The scan.  Raises InputError for a file that is damaged or lacks what is needed, and without olefile."""
    try:
        import olefile
    except ImportError:
        raise InputError(
            f'{path}: Zeiss files need the package olefile; install it with pip install "diffusionmbir[ct]"'
        ) from None
    try:
        if not olefile.isOleFile(str(path)):
            raise InputError(f"{path}: is no Zeiss file (no OLE file); is it damaged or renamed?")
        with olefile.OleFileIO(str(path)) as file:
            scan = _scan(_Streams(path, file))
    except (InputError, MemoryError):
        raise
    except Exception as error:  # what a damaged file makes the parser run into is of many kinds
        raise InputError(f"{path}: cannot be read as a Zeiss file; is it truncated?") from error
    return measurement_of_rays(scan, Told(axis=axis, prepare=prepare))


class _Streams:
    """Streams of an open file by name; each complaint names the file and the stream."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self._file, self._bytes = path, file, path.stat().st_size

    def has(self, name: str) -> bool:
        return bool(self._file.exists(name))

    def values(self, name: str, kind: str, count: int) -> np.ndarray:
        if not self.has(name):
            raise InputError(f"{self.path}: lacks {name}")
        stored = np.dtype(f"<{kind}")
        size = self._file.get_size(name)
        if count < 1 or count * stored.itemsize > min(size, self._bytes):
            raise InputError(f"{self.path}: {name} holds {size} bytes, {count} numbers need more; is it truncated?")
        return np.frombuffer(self._file.openstream(name).read(count * stored.itemsize), stored)

    def whole(self, name: str) -> int:
        value = int(self.values(name, "i4", 1)[0])
        if not 1 <= value <= _MOST:
            raise InputError(f"{self.path}: {name} is {value}; is the file damaged?")
        return value

    def number(self, name: str) -> float:
        return float(self.values(name, "f4", 1)[0])


def _scan(streams: _Streams) -> RayScan:
    views, rows, columns = (streams.whole(f"ImageInfo/{n}") for n in ("NoOfImages", "ImageHeight", "ImageWidth"))
    kind = _TYPES.get(int(streams.values("ImageInfo/DataType", "i4", 1)[0]))
    if kind is None:
        raise InputError(f"{streams.path}: its images are of a type that is not known; export them as 16 bit")
    require_room(str(streams.path), (views, rows, columns), 8)
    counts = np.empty((views, rows, columns), np.float32)
    for k in range(views):
        image = streams.values(f"ImageData{k // 100 + 1}/Image{k + 1}", kind, rows * columns)
        counts[k] = image.reshape(rows, columns)
    angles = streams.values("ImageInfo/Angles", "f4", views).astype(float)
    scan = RayScan(str(streams.path), "Zeiss .txrm", counts, _geometry(streams, angles, rows, columns), "counts")
    scan.sense_known = False
    scan.flip((-2,))
    if streams.has("ReferenceData/Image"):
        flat = streams.values("ReferenceData/Image", _reference_kind(streams), rows * columns)
        scan.flat = flat.astype(np.float32).reshape(rows, columns)[::-1]
    _shifts(streams, scan, views)
    return scan


def _reference_kind(streams: _Streams) -> str:
    name = "ReferenceData/DataType"
    known = int(streams.values(name, "i4", 1)[0]) if streams.has(name) else 10
    return _TYPES.get(known, "f4")


def _geometry(streams: _Streams, angles: np.ndarray, rows: int, columns: int) -> RayGeometry:
    at_object = streams.number("ImageInfo/PixelSize") / 1000  # of a pixel as it appears on the axis, in um
    cone = streams.has("ImageInfo/XrayGeometry") and streams.values("ImageInfo/XrayGeometry", "i4", 1)[0] == _CONE
    if not cone:
        return ParallelBeam(tuple(float(a) for a in angles), columns, at_object)
    sod, odd = (abs(streams.number(f"ImageInfo/{name}")) for name in ("StoRADistance", "DtoRADistance"))
    if not sod > 0:
        raise InputError(f"{streams.path}: its distance from source to axis is {sod:g} mm")
    pitch = at_object * (sod + odd) / sod
    return circle(angles, (rows, columns), (pitch, pitch), sod, sod + odd)


def _shifts(streams: _Streams, scan: RayScan, views: int) -> None:
    """Shifts by which the images are to be moved, rounded to whole pixels as the microscope's own software does."""
    names = "Alignment/X-Shifts", "Alignment/Y-Shifts"
    if not all(streams.has(name) for name in names):
        return
    x, y = (np.rint(streams.values(name, "f4", views)) for name in names)
    if not np.isfinite([x, y]).all() or max(np.abs(x).max(), np.abs(y).max()) > min(scan.counts.shape[1:]) / 4:
        scan.remarks.append("the file's alignment shifts are not usable and left out")
        return
    if not x.any() and not y.any():
        return
    moved = [_moved(image, int(dy), int(dx)) for image, dx, dy in zip(scan.counts, x, -y, strict=True)]
    scan.counts = np.stack(moved)
    scan.remarks.append(
        f"images are moved by the file's alignment shifts, up to {max(abs(x).max(), abs(y).max()):g} pixels"
    )


def _moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """An image moved by whole pixels; its edge's values come in."""
    rows = np.clip(np.arange(image.shape[0]) - down, 0, image.shape[0] - 1)
    columns = np.clip(np.arange(image.shape[1]) - right, 0, image.shape[1] - 1)
    return np.asarray(image[rows][:, columns])


register(Format("Zeiss .txrm", CT, (".txrm",), read_txrm, asks=("axis", "prepare")))
