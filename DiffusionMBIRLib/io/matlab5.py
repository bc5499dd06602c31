"""Arrays of numbers, and structures of them, in MATLAB files of version 5 to 7, by the format's published description.

Every length is checked before it is believed, nothing but numbers and text is read, and only what is asked for is
unpacked.
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .sizes import require_bytes, require_memory

_HEADER = 128  # bytes
_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMBERS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_STRUCTURE, _TEXT = 2, 4
_COMPLEX = 0x0800
_DEEPEST = 32  # axes
_DEEPEST_STRUCTURE, _MOST_FIELDS, _LONGEST_TEXT = 4, 256, 1 << 16
_NAMED_WITHIN = 4096  # bytes, in which a variable's flags, sizes and name lie


@dataclass(frozen=True)
class Variable:
    """One variable; type: of its numbers, "" for text, structures and what else there is.  at, length: in the file."""

    name: str
    shape: tuple[int, ...]
    type: str
    is_complex: bool
    is_structure: bool
    at: int
    length: int
    compressed: bool


class MatlabFile:
    """An open file: its variables, and their values on demand."""

    def __init__(self, path: Path, content: Any) -> None:
        self._path, self._content = path, content
        if len(content) < _HEADER or content[126:128] not in (b"IM", b"MI"):
            raise InputError(f"{path}: is no MATLAB file of version 5 to 7.3; save it with -v7")
        self._order = "<" if content[126:128] == b"IM" else ">"
        self.variables = list(self._variables())

    def values(self, variable: Variable) -> np.ndarray:
        """The numbers of a variable, axes in MATLAB's order.  Raises InputError where they are cut or no numbers."""
        count = prod(variable.shape)
        size = [max(n, 1) for n in variable.shape]
        itemsize = np.dtype(variable.type).itemsize * (2 if variable.is_complex else 1)
        require_bytes(str(self._path), f"its variable {variable.name}", count, len(self._content))
        require_memory(str(self._path), size, max(itemsize, 16))
        body = self._content[variable.at : variable.at + variable.length]
        if variable.compressed:
            body = self._unpacked(body, _NAMED_WITHIN + 8 * 4 + count * itemsize)
            _, begin, length, _ = self._tag(body, 0)
            body = body[begin : begin + length]
        return self._array(body, variable)

    def structure(self, variable: Variable) -> dict[str, Any]:
        """The fields of a structure: arrays of real numbers, texts and structures; what else there is is left out.

        Raises InputError where it is cut or damaged.
        """
        body = self._content[variable.at : variable.at + variable.length]
        if variable.compressed:
            announced = int.from_bytes(self._unpacked(body, 8)[4:8], self._endian)
            require_bytes(str(self._path), f"its variable {variable.name}", announced, len(body))
            require_memory(str(self._path), [max(announced, 1)], 2)
            body = self._unpacked(body, announced + 8)
            _, begin, length, _ = self._tag(body, 0)
            body = body[begin : begin + length]
        return self._fields(body, 0)

    def _fields(self, body: Any, depth: int) -> dict[str, Any]:
        at = 0
        for _ in range(3):  # flags, sizes and name
            *_, at = self._tag(body, at)
        _, first, size, at = self._tag(body, at)
        longest = int.from_bytes(body[first : first + size], self._endian)
        _, first, size, at = self._tag(body, at)
        if not 0 < longest <= _NAMED_WITHIN or size > longest * _MOST_FIELDS or depth > _DEEPEST_STRUCTURE:
            raise self._damaged()
        names = [
            bytes(body[k : k + longest]).split(b"\0")[0].decode("latin-1") for k in range(first, first + size, longest)
        ]
        found: dict[str, Any] = {}
        for name in names:
            kind, first, size, at = self._tag(body, at)
            if kind != _MATRIX:
                raise self._damaged()
            if size:
                found[name] = self._entry(body[first : first + size], depth)
        return {name: value for name, value in found.items() if value is not None}

    def _entry(self, body: Any, depth: int) -> Any:
        """Array, text or structure; None for anything else."""
        variable = self._variable(body, 0, 0, len(body), False)
        if variable.is_structure and prod(variable.shape) == 1:
            return self._fields(body, depth + 1)
        if variable.type and not variable.is_complex:
            return self._array(body, variable)
        if int.from_bytes(body[8:9], self._endian) != _TEXT or prod(variable.shape) > _LONGEST_TEXT:
            return None
        at = 0
        for _ in range(3):
            *_, at = self._tag(body, at)
        kind, first, size, _ = self._tag(body, at)
        if kind in (1, 2, 16):  # bytes, such as UTF-8
            return bytes(body[first : first + size]).decode("utf-8", "replace")
        return bytes(body[first : first + size]).decode("utf-16-le" if self._order == "<" else "utf-16-be", "replace")

    def _array(self, body: Any, variable: Variable) -> np.ndarray:
        at, parts, count = 0, [], prod(variable.shape)
        for part in range(3 + 1 + variable.is_complex):
            kind, begin, length, at = self._tag(body, at)
            if part >= 3:
                parts.append(self._numbers(body, kind, begin, length, count))
        with np.errstate(over="ignore", invalid="ignore"):  # found not to be finite later
            made = parts[0] + 1j * parts[1] if variable.is_complex else parts[0]
        wanted = np.result_type(variable.type, np.complex64) if variable.is_complex else np.dtype(variable.type)
        return made.astype(wanted, copy=False).reshape(variable.shape, order="F")

    def _numbers(self, body: Any, kind: int, begin: int, length: int, count: int) -> np.ndarray:
        stored = np.dtype(self._order + _STORED.get(kind, "u1"))
        if kind not in _STORED or length != count * stored.itemsize:
            raise self._damaged()
        return np.frombuffer(body[begin : begin + length], dtype=stored)

    # --- elements

    def _variables(self) -> Iterator[Variable]:
        at = _HEADER
        while at + 8 <= len(self._content):
            kind, begin, length, after = self._tag(self._content, at)
            if kind == _COMPRESSED:
                body = self._unpacked(self._content[begin : begin + length], _NAMED_WITHIN)
                inner, first = int.from_bytes(body[:4], self._endian), 8
                after = begin + length  # not padded
            else:
                body, inner, first = self._content[begin : min(begin + length, begin + _NAMED_WITHIN)], kind, 0
            if inner == _MATRIX and length:
                yield self._variable(body, first, begin, length, kind == _COMPRESSED)
            at = after

    def _variable(self, body: Any, at: int, begin: int, length: int, compressed: bool) -> Variable:
        _, first, size, at = self._tag(body, at)
        if size != 8:
            raise self._damaged()
        flags = int.from_bytes(body[first : first + 4], self._endian)
        kind, first, size, at = self._tag(body, at)
        if _STORED.get(kind) != "i4" or not 8 <= size <= 4 * _DEEPEST:  # of an object, whose sizes lie elsewhere
            return Variable("", (), "", False, False, begin, length, compressed)
        shape = np.frombuffer(body[first : first + size], dtype=f"{self._order}i4")
        if shape.min() < 0:
            raise self._damaged()
        _, first, size, _ = self._tag(body, at)
        name = bytes(body[first : first + size]).decode("latin-1")
        dimensions = tuple(int(n) for n in shape)
        kind, is_complex = flags & 0xFF, bool(flags & _COMPLEX)
        numbers = _NUMBERS.get(kind, "")
        return Variable(name, dimensions, numbers, is_complex, kind == _STRUCTURE, begin, length, compressed)

    @property
    def _endian(self) -> Any:
        return "little" if self._order == "<" else "big"

    def _tag(self, body: Any, at: int) -> tuple[int, int, int, int]:
        """Type, begin and length of the element at a place, and where the next begins."""
        if at + 8 > len(body):
            raise self._damaged()
        first = int.from_bytes(body[at : at + 4], self._endian)
        if first >> 16:  # up to four bytes lie in the tag itself
            kind, length, begin, after = first & 0xFFFF, first >> 16, at + 4, at + 8
            if length > 4:
                raise self._damaged()
        else:
            kind, length, begin = first, int.from_bytes(body[at + 4 : at + 8], self._endian), at + 8
            after = begin + length + -length % 8
        if begin + length > len(body):
            raise self._damaged()
        return kind, begin, length, after

    def _unpacked(self, packed: bytes, most: int) -> bytes:
        try:
            return zlib.decompressobj().decompress(packed, most)
        except zlib.error:
            raise self._damaged() from None

    def _damaged(self) -> InputError:
        return InputError(f"{self._path}: cannot be read as a MATLAB file; is it truncated?")


@contextmanager
def opened(path: Path) -> Iterator[MatlabFile]:
    """The file, open for the block.  Raises InputError for a file that is no MATLAB file of these versions."""
    with path.open("rb") as stream:
        if not path.stat().st_size:
            raise InputError(f"{path}: is empty; copy the file again")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield MatlabFile(path, content)
