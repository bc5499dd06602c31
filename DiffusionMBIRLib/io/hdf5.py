"""Fields of HDF5 files by name, so that each complaint names the file and the field.

Nothing is unpickled, and links to other files are not followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any

import numpy as np

from ..errors import EngineError, InputError
from ..geometry import Grid
from ..schema import json_object
from .files import require_file
from .hdf5_heap import GuardedFile
from .hdf5_types import is_sound
from .sizes import require_bytes

SUFFIXES = (".h5", ".hdf5", ".mrd", ".ismrmrd")
LARGE_BYTES = 2**30  # of arrays that are written and read by parts, as float32 if they are narrower
_MOST_LINKS = 8  # from name to name within a file
_GRID = ("shape", "spacing_mm", "origin_mm", "direction")
_GRID_IF_KNOWN = ("isocentre_mm",)


@contextmanager
def opened(path: Path) -> Iterator[Fields]:
    """The fields of a file, open for the block.

    Raises InputError for a file that is missing, truncated or no HDF5, and for what h5py finds wrong within the block;
    EngineError where memory runs out.
    """
    require_file(path)
    try:
        with _open(path) as file:
            yield Fields(path, file)
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from None
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        if not _of_h5py(error):
            raise
        raise InputError(f"{path}: cannot be read as HDF5; is it truncated or another format?") from error
    except MemoryError as error:
        raise EngineError(f"{path}: no memory for its data; close other programs or cut the measurement") from error


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """The h5py file, read under guard.

    It is opened by its name as well, which costs about 1 ms: only so HDF5 locks it, and refuses one that
    another program still writes.
    """
    import h5py

    with h5py.File(path, "r") as plain:
        plain.flush()  # what this very program may be writing to it
        with GuardedFile(path) as guarded, h5py.File(guarded, "r") as file:
            _, guarded.lengths = file.id.get_create_plist().get_sizes()
            yield file


def _of_h5py(error: BaseException) -> bool:
    """Whether an error comes out of h5py: what else fails while the file is open is no fault of its form."""
    return any(frame.f_globals.get("__name__", "").startswith("h5py") for frame, _ in walk_tb(error.__traceback__))


class Fields:
    """Fields of an open file by name; each complaint names the file and the field."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self.file = path, file
        self._bytes = path.stat().st_size

    def has(self, name: str) -> bool:
        return self._node(name) is not None

    def _node(self, name: str, links: int = 0) -> Any:
        """The group or dataset of that name, None if there is none; no link is followed out of this file."""
        import h5py

        node, before = self.file, "/"
        parts = [part for part in name.split("/") if part not in ("", ".")]
        for at, part in enumerate(parts):
            link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
            if links > _MOST_LINKS:
                raise InputError(f"{self.path}: the links to {name} lead in a circle; write it into this file")
            if link is None:
                return None
            if isinstance(link, h5py.ExternalLink):
                raise InputError(f"{self.path}: the dataset {name} lies in another file; write it into this one")
            if isinstance(link, h5py.SoftLink):
                begin = "" if link.path.startswith("/") else before
                return self._node("/".join([begin, link.path, *parts[at + 1 :]]), links + 1)
            node, before = node[part], f"{before}{part}/"
        return node

    def names(self, group: str) -> list[str]:
        """What a group holds."""
        node = self._node(group)
        return [] if node is None else list(node)

    def attributes(self, owner: str) -> dict[str, Any]:
        """All attributes of a group; errors as of :meth:`attribute`."""
        return {key: self.attribute(owner, key) for key in self._attributes(owner)}

    def _attributes(self, owner: str) -> Any:
        node = self._node(owner)
        return {} if node is None else node.attrs

    def attribute(self, owner: str, key: str, default: Any = None) -> Any:
        """A plain string, number or list of numbers."""
        attributes = self._attributes(owner)
        if key in attributes and not isinstance(attributes, dict):  # as fields of another file give them
            self.require_sound(key, attributes.get_id(key))
        value = attributes.get(key, default)
        if value is None:
            field = f"{owner.strip('/')}.{key}" if owner != "/" else key
            raise InputError(f"{self.path}: lacks the field {field}; see the layout in the documentation")
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, np.ndarray | np.generic):
            if value.dtype.kind not in "biufSU":
                raise InputError(f"{self.path}: the field {key} is of type {value.dtype}; write numbers or text")
            value = value.tolist()
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if not isinstance(value, str | int | float):
            raise InputError(f"{self.path}: the field {key} holds neither numbers nor text")
        return value

    def require_sound(self, name: str, field: Any) -> None:
        """Raise InputError for an attribute or a dataset (of h5py's low level) whose type is damaged."""
        if not is_sound(field.get_type()):
            raise InputError(f"{self.path}: the type of the field {name} is damaged; copy or export the file again")

    def number(self, key: str, default: float) -> float:
        value = self.attribute("/", key, default)
        if isinstance(value, str | list):
            raise InputError(f"{self.path}: the field {key} must be one number, not {value!r}")
        return float(value)

    def dataset(self, name: str) -> Any:
        """A dataset that lies in this file; its values are not read yet."""
        import h5py

        node = self._node(name)
        if node is None:
            raise InputError(f"{self.path}: lacks the dataset {name}; see the layout in the documentation")
        if not isinstance(node, h5py.Dataset) or node.size is None:
            raise InputError(f"{self.path}: {name} must be a dataset with values")
        self.require_sound(name, node.id)
        if node.file.filename != self.file.filename or node.external or node.is_virtual:
            raise InputError(f"{self.path}: the dataset {name} lies in another file; write it into this one")
        require_bytes(str(self.path), f"the dataset {name}", node.size * node.dtype.itemsize, self._bytes)
        if node.size and node.dtype.kind != "O" and not node.id.get_storage_size():
            raise InputError(
                f"{self.path}: the dataset {name} was never written; did the program that made it end early?"
            )
        return node

    def mapped(self, name: str, wanted: np.dtype[Any]) -> np.ndarray | None:
        """A large dataset that lies in one piece, as the memory map of its part of the file: read where it is looked
        at, and changed in memory only.  None for any other, and for one of another type.
        """
        node = self.dataset(name)
        offset = node.id.get_offset() if node.chunks is None else None
        if offset is None or node.dtype != wanted or not is_large(node):
            return None
        if offset + node.size * wanted.itemsize > self._bytes:
            raise InputError(f"{self.path}: the dataset {name} ends beyond the file; is it truncated?")
        return np.memmap(self.path, wanted, "c", offset, node.shape)

    def numbers(self, name: str) -> Any:
        node = self.dataset(name)
        if node.dtype.kind not in "iuf":
            raise InputError(f"{self.path}: the dataset {name} is of type {node.dtype}; real numbers are needed")
        return node

    def text(self, name: str, default: str) -> str:
        import h5py

        if not self.has(name):
            return default
        node = self.dataset(name)
        if h5py.check_string_dtype(node.dtype) is None or node.shape != ():
            raise InputError(f"{self.path}: the dataset {name} must be one text")
        return str(node.asstr(errors="replace")[()])

    def grid(self, name: str) -> Grid:
        """A grid that lies in the attributes of a group."""
        if not self.has(name):
            raise InputError(f"{self.path}: lacks the group {name}; see the layout in the documentation")
        try:
            known = [key for key in _GRID_IF_KNOWN if key in self._attributes(name)]
            return Grid.from_dict({key: self.attribute(name, key) for key in (*_GRID, *known)})
        except InputError as error:
            prefix = "" if str(error).startswith(str(self.path)) else f"{self.path}: {name}: "
            raise InputError(f"{prefix}{error}") from None

    def json(self, name: str) -> dict[str, Any]:
        """The JSON object of a dataset of text, empty if there is none."""
        return json_object(self.text(name, "{}"), f"{self.path}: {name}")


def is_large(array: Any) -> bool:
    """Whether an array, or a dataset, is written and read by parts."""
    return int(array.size) * max(4, array.dtype.itemsize) >= LARGE_BYTES


def recognising(test: Callable[[Fields], Any]) -> Callable[[Path], bool]:
    """Whether the fields of an HDF5 file pass a test; true of a file that cannot be read, as reading it tells why."""

    def recognises(path: Path) -> bool:
        try:
            with opened(path) as fields:
                return bool(test(fields))
        except (InputError, EngineError):
            return True

    return recognises


def reading(read: Callable[..., Any]) -> Callable[..., Any]:
    """What reads a path by its open fields; errors as of :func:`opened`."""

    def reads(path: Path, **told: Any) -> Any:
        with opened(path) as fields:
            return read(fields, **told)

    return reads
