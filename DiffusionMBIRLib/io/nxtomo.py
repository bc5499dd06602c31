"""NXtomo (NeXus): HDF5 whose image_key tells projections (0), flat (1) and dark images (2) in the order of the scan.

Frames may lie in other files by HDF5 links or virtual datasets, where these are in the same folder or below.
"""

from __future__ import annotations

import mmap
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EngineError, InputError
from ..formats import CT, Format, register
from ..geometry import ParallelBeam, RayGeometry
from ..host_memory import require_room
from ..preparation.angles import in_degrees
from ..preparation.rays import RayScan, measurement_of_rays
from ..preparation.told import Told
from ..scans import Measurement
from .circles import circle
from .files import require_file
from .hdf5 import SUFFIXES, opened
from .hdf5_types import is_sound

_OWN = (".nxs", ".nx")
_SUFFIXES = (*_OWN, *SUFFIXES)
_PROJECTION, _FLAT, _DARK = 0, 1, 2
_MM = {"mm": 1.0, "m": 1e3, "meter": 1e3, "metre": 1e3, "um": 1e-3, "µm": 1e-3, "micron": 1e-3, "nm": 1e-6, "cm": 10.0}
_MOST_LINKS = 16  # steps from name to name
_SEARCHED = 1 << 28  # bytes


def read_nxtomo(
    path: Path, pixel_mm: float | None = None, axis: float | None = None, prepare: str | None = None
) -> Measurement:
    """The scan.  Raises InputError that names the field which is missing or does not fit."""
    with ExitStack() as files:
        scan = _Tomo(path, files).scan(pixel_mm)
    return measurement_of_rays(scan, Told(axis=axis, prepare=prepare))


class _Tomo:
    """An open file: its fields by name, links followed within the folder of the file."""

    def __init__(self, path: Path, files: ExitStack) -> None:
        self.path, self._files, self._folder = path, files, path.parent.resolve()
        self._entry = _entry_of(files.enter_context(opened(path)).file)

    def scan(self, pixel_mm: float | None) -> RayScan:
        detector = "instrument/detector"
        keys = self._values(f"{detector}/image_key").reshape(-1)
        frames = self._node(f"{detector}/data")
        listed = self._values("sample/rotation_angle").astype(float).reshape(-1)
        if frames.ndim != 3 or frames.dtype.kind not in "iuf":
            raise InputError(f"{self.path}: {detector}/data must be (frames, rows, columns) of numbers")
        if not len(frames) == len(keys) == len(listed):
            raise InputError(
                f"{self.path}: holds {len(frames)} frames, {len(keys)} image keys and {len(listed)} rotation angles; "
                "make them equal"
            )
        counts = self._frames(frames, keys == _PROJECTION)
        if not len(counts):
            raise InputError(f"{self.path}: no frame has the image key 0, of projections")
        angles, guess, doubt = in_degrees(listed[keys == _PROJECTION], self._unit("sample/rotation_angle"))
        scan = RayScan(str(self.path), "NXtomo", counts, self._geometry(angles, counts.shape, pixel_mm), "counts")
        scan.guessed += [guess] if guess else []
        scan.remarks += [doubt] if doubt else []
        if pixel_mm is None and self._pixel("x") is None:
            scan.guessed.append("pixels of 1 mm (the file does not tell)")
        if (keys == _FLAT).any():
            scan.flat, scan.flat_at = self._flats(frames, keys)
        if (keys == _DARK).any():
            scan.dark = self._frames(frames, keys == _DARK).mean(axis=0)
        if scan.flat is not None:
            scan.weigh_by(self._frames(frames, keys == _FLAT))
        scan.sense_known = False
        return scan

    def _flats(self, frames: Any, keys: np.ndarray) -> tuple[np.ndarray, tuple[float, ...]]:
        """Means of flat images that follow each other, and before which view each group was taken."""
        index = np.flatnonzero(keys == _FLAT)
        groups = np.split(index, np.flatnonzero(np.diff(index) > 1) + 1)
        at = [float(np.count_nonzero(keys[: group[0]] == _PROJECTION)) for group in groups]
        flats = [self._frames(frames, np.isin(np.arange(len(keys)), group)).mean(axis=0) for group in groups]
        return np.stack(flats), tuple(at)

    def _frames(self, frames: Any, which: np.ndarray) -> np.ndarray:
        shape = (int(which.sum()), *frames.shape[1:])
        if not shape[0]:
            return np.zeros(shape, np.float32)
        require_room(str(self.path), shape, 8)
        with np.errstate(over="ignore"):  # what leaves the range of float32 is told as not finite
            return np.asarray(frames[np.flatnonzero(which)], dtype=np.float32)

    def _geometry(self, angles: np.ndarray, shape: tuple[int, ...], pixel_mm: float | None) -> RayGeometry:
        across, down = (pixel_mm or self._pixel(side) or 1.0 for side in "xy")
        sod, odd = (self._length(f"instrument/{name}") for name in ("source/distance", "detector/distance"))
        if sod and odd and self._has("instrument/beam/extent_is_cone"):
            return circle(angles, (shape[1], shape[2]), (down, across), abs(sod), abs(sod) + abs(odd))
        return ParallelBeam(tuple(float(a) for a in angles), shape[2], across)

    def _pixel(self, side: str) -> float | None:
        return self._length(f"instrument/detector/{side}_pixel_size")

    def _length(self, name: str) -> float | None:
        """A positive length in mm; None where it is not told."""
        if not self._has(name):
            return None
        value = self._values(name).astype(float).reshape(-1)
        factor = _MM.get(self._unit(name).lower())
        if not len(value) or factor is None or not 0 < abs(value[0]) < np.inf:
            return None
        return float(value[0]) * factor

    def _unit(self, name: str) -> str:
        attributes = self._node(name).attrs
        if "units" in attributes and not is_sound(attributes.get_id("units").get_type()):
            raise InputError(f"{self.path}: the type of the units of {name} is damaged; copy or export the file again")
        unit = attributes.get("units", "")
        return unit.decode("utf-8", "replace") if isinstance(unit, bytes) else str(unit)

    def _values(self, name: str) -> np.ndarray:
        node = self._node(name)
        if node.dtype.kind not in "iuf" or node.size > 1 << 24:
            raise InputError(f"{self.path}: {name} holds no numbers")
        return np.asarray(node[()])

    def _has(self, name: str) -> bool:
        try:
            self._node(name)
        except InputError:
            return False
        return True

    def _node(self, name: str) -> Any:
        """The dataset of a name; raises InputError where it is missing, or lies outside the folder of the file."""
        import h5py

        node, place = self._entry, self.path
        parts = name.split("/")
        for _ in range(_MOST_LINKS):
            if not parts:
                break
            link = node.get(parts[0], getlink=True) if isinstance(node, h5py.Group) else None
            if link is None:
                raise InputError(f"{self.path}: lacks {name}")
            if isinstance(link, h5py.ExternalLink):
                place = self._beside(link.filename, place, name)
                node = self._files.enter_context(opened(place)).file
                parts = [*link.path.strip("/").split("/"), *parts[1:]]
                continue
            if isinstance(link, h5py.SoftLink):
                node = node.file if link.path.startswith("/") else node
                parts = [*link.path.strip("/").split("/"), *parts[1:]]
                continue
            node, parts = node[parts[0]], parts[1:]
        if parts or not isinstance(node, h5py.Dataset):
            raise InputError(f"{self.path}: {name} must be a dataset")
        if node.external:
            raise InputError(f"{self.path}: {name} lies in files that are no HDF5; write it into this one")
        return self._put_together(node, place, name) if node.is_virtual else node

    def _put_together(self, node: Any, place: Path, name: str) -> Any:
        """A virtual dataset, opened so that HDF5 finds its parts, which must all be there."""
        import h5py

        for part in node.virtual_sources():
            if part.file_name != ".":
                self._beside(part.file_name, place, name)
        return self._files.enter_context(h5py.File(place, "r"))[node.name]

    def _beside(self, file: str, place: Path, name: str) -> Path:
        whole = (place.parent / file).resolve()
        if not whole.is_relative_to(self._folder):
            raise InputError(f"{self.path}: {name} lies in {whole.name} in another folder; copy it beside this file")
        if not whole.is_file():
            raise InputError(f"{self.path}: {name} lies in {whole.name}, which is not there; copy it too")
        return whole


def _entry_of(file: Any) -> Any:
    """The group that holds instrument and sample: an entry, or the tomo_entry in one; None if there is none."""
    import h5py

    def holds(group: Any) -> bool:
        if not isinstance(group, h5py.Group) or not isinstance(group.get("instrument/detector", getclass=True), type):
            return False
        return "image_key" in group["instrument/detector"]

    for name in list(file)[:64]:
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            continue
        group = file[name]
        if holds(group):
            return group
        if isinstance(group, h5py.Group):
            inner = [group[n] for n in list(group)[:64] if isinstance(group.get(n, getlink=True), h5py.HardLink)]
            found = next((g for g in inner if holds(g)), None)
            if found is not None:
                return found
    return None


def _mentions(path: Path, word: bytes) -> bool:
    """Whether a word stands in a file's first or last bytes."""
    require_file(path)
    if not path.stat().st_size:
        return False
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(word, 0, _SEARCHED) >= 0 or content.find(word, max(0, len(content) - _SEARCHED)) >= 0


def is_nxtomo(path: Path) -> bool:
    """Whether a file has an image_key in an instrument's detector; a glance that raises nothing.

    Names stand in the file as they are: one without it is not opened here, as damaged files are hard on HDF5.
    """
    try:
        if path.suffix.lower() not in _OWN and not _mentions(path, b"image_key"):
            return False
        with opened(path) as fields:
            return _entry_of(fields.file) is not None
    except (InputError, EngineError, OSError):  # reading it tells why
        return path.suffix.lower() in _OWN


register(Format("NXtomo", CT, _SUFFIXES, read_nxtomo, is_nxtomo, asks=("pixel_mm", "axis", "prepare")))
