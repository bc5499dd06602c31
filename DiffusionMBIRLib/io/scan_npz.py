"""Scans and volumes in NPZ, the form of a job's folder: numpy writes and reads it where there is no h5py, as in Slicer.

A zip of arrays without compression, and of ``fields.json`` for all that is no array; see ``scan_fields`` for the names.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, BinaryIO

import numpy as np

from ..errors import EngineError, InputError
from ..formats import SCAN, Format, register
from .files import replacing
from .hdf5 import Fields
from .scan_fields import content_of, holds_scan, scan_in
from .sizes import require_memory

SUFFIX = ".npz"
_FIELDS = "fields.json"
_LARGEST_FIELDS = 1 << 26


def write_npz(thing: Any, path: Path) -> None:
    """Write a scan or a volume, whole or not at all.

    Raises InputError for a missing folder, EngineError where writing fails.
    """
    with replacing(path, SUFFIX) as temporary, temporary.open("wb") as stream:
        write_npz_to(stream, thing)


def write_npz_to(stream: BinaryIO, thing: Any) -> None:
    """Write a scan or a volume to an open file.  Raises OSError."""
    content = content_of(thing)
    arrays = {name: value for name, value in content.items() if isinstance(value, np.ndarray)}
    others = {name: value for name, value in content.items() if name not in arrays}
    with zipfile.ZipFile(stream, "w", allowZip64=True) as archive:
        archive.writestr(_member(_FIELDS), json.dumps(others, indent=1))
        for name, array in arrays.items():
            with archive.open(_member(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _member(name: str) -> zipfile.ZipInfo:
    """Without the time of day: what is equal has equal bytes, and need not be sent twice."""
    found = zipfile.ZipInfo(name)
    found.external_attr = 0o600 << 16
    return found


def read_npz(path: Path) -> Any:
    """The scan or volume of a file.  Raises InputError, in one line that names it, for whatever is wrong with it."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            return scan_in(_Members(path, archive))
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from None
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError, NotImplementedError) as error:
        raise InputError(f"{path}: cannot be read as a scan; is it damaged or another format?") from error
    except MemoryError as error:
        raise EngineError(f"{path}: no memory for its data; close other programs or cut the scan") from error


class _Members(Fields):
    """The members of an archive, shown as the fields of an HDF5 file are."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        if archive.getinfo(_FIELDS).file_size > _LARGEST_FIELDS:
            raise InputError(f"{path}: {_FIELDS} is larger than any that we write")
        entries = json.loads(archive.read(_FIELDS))
        if not isinstance(entries, dict):
            raise InputError(f"{path}: {_FIELDS} must be a JSON object")
        super().__init__(path, archive)
        self._groups: dict[str, dict[str, Any]] = {}
        for key, value in entries.items():
            group, _, name = key.rpartition("/")
            self._groups.setdefault(group or "/", {})[name] = value
        self._arrays = {n.removesuffix(".npy"): n for n in archive.namelist() if n.endswith(".npy")}

    def has(self, name: str) -> bool:
        return name in self._arrays or name in self._groups or any(n.startswith(f"{name}/") for n in self._arrays)

    def names(self, group: str) -> list[str]:
        return [n.removeprefix(f"{group}/") for n in self._arrays if n.startswith(f"{group}/")]

    def _attributes(self, owner: str) -> Any:
        return self._groups.get(owner, {})

    def attribute(self, owner: str, key: str, default: Any = None) -> Any:
        value = self._attributes(owner).get(key, default)
        return value if isinstance(value, list) else super().attribute(owner, key, default)

    def dataset(self, name: str) -> Any:
        if name not in self._arrays:
            raise InputError(f"{self.path}: lacks the array {name}; see the layout in the documentation")
        return _Member(self.path, self.file, self._arrays[name])

    def mapped(self, name: str, wanted: np.dtype[Any]) -> np.ndarray | None:
        return None

    def json(self, name: str) -> dict[str, Any]:
        entries = self._attributes("/").get(name, {})
        if not isinstance(entries, dict):
            raise InputError(f"{self.path}: {name} must be a JSON object; repair or remove it")
        return entries


class _Member:
    """An array of an archive: its header is read, its values are not yet."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, name: str) -> None:
        self._path, self._archive, self._name = path, archive, name
        with archive.open(name) as stream:
            self.shape, _, self.dtype = _header(stream)
            size = archive.getinfo(name).file_size - stream.tell()
        self.ndim, self.size = len(self.shape), int(np.prod(self.shape, dtype=object))
        if self.dtype.hasobject or size != self.size * self.dtype.itemsize:
            raise InputError(f"{path}: the array {name} does not hold what its header announces; is it damaged?")

    def __getitem__(self, key: tuple[()]) -> np.ndarray:
        if self.size:
            require_memory(str(self._path), self.shape or (1,), self.dtype.itemsize)
        with self._archive.open(self._name) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        return read(stream)
    except (SyntaxError, TokenError, RecursionError):  # numpy reads the header as Python's literals
        raise ValueError("damaged header") from None


def _is_ours(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return holds_scan(_Members(path, archive))
    except (InputError, OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError, NotImplementedError):
        return False


register(Format("DiffusionMBIR (NPZ)", SCAN, (SUFFIX,), read_npz, _is_ours))
