"""NRRD and MetaImage headers, checked before ITK reads them: which files they name, and whether the data are there.

A header decides what is read.  Only files beside it are: not those of another folder, and no pattern but one counter.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..errors import InputError
from ..host_memory import require_room

_HEADER_BYTES = 1 << 20
_MOST_FILES = 1 << 16
_LONGEST = 500  # characters of a field of an NRRD header
_DENSEST = 1100  # bytes from one: the most that deflate reaches, and more than bzip2 does on images
_COUNTER = re.compile(r"%(?:0?\d{1,2})?d")
_NRRD_SIZES = {"char": 1, "short": 2, "int": 4, "long": 8, "float": 4, "double": 8, "int8": 1, "int16": 2, "int32": 4}
_META_SIZES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}


@dataclass
class _Announced:
    """shape: with components.  itemsize: bytes a value.  files: of the data, none where they follow the header."""

    shape: tuple[int, ...]
    itemsize: int
    encoding: str
    start: int  # of data that follow the header
    files: list[Path] = field(default_factory=list)
    skip: int = 0


def require_sound(path: Path) -> list[str]:
    """Remarks on what is read with a repair: none.

    Raises InputError for a header that names files elsewhere or missing ones, that announces more than there is or than
    memory holds, or whose spacing is no length; EngineError where memory is not free.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    announced = _nrrd(path, head) if path.suffix.lower() in (".nrrd", ".nhdr") else _meta_image(path, head)
    if announced is None:  # damaged, or another format: the reader's own words tell
        return []
    require_room(str(path), announced.shape, announced.itemsize)
    values = math.prod(announced.shape)
    needed = values * announced.itemsize
    own = path.stat().st_size - announced.start
    there = sum(f.stat().st_size for f in announced.files) if announced.files else own
    least = {"raw": needed + max(announced.skip, 0), "text": values}
    if there < least.get(announced.encoding, -(-needed // _DENSEST)):
        raise InputError(
            f"{path}: its data are {max(there, 0)} bytes, its header announces {needed}; is it truncated? Copy it again"
        )
    return []


def _data_files(path: Path, told: str, listed: list[str]) -> list[Path]:
    """The files that a header names: one, a pattern with a counter (name %d first last step), or a list."""
    words = told.split()
    if words[:1] and words[0].upper().startswith("LIST"):
        names = [line.strip() for line in listed if line.strip()]
    elif "%" in told:
        if len(words) < 4 or words[0].count("%") != 1 or not _COUNTER.search(words[0]):
            raise InputError(
                f"{path}: the names of its data files ({told[:80]}) are no pattern like name%03d.raw 1 9 1"
            )
        try:
            first, last, step = (int(word) for word in words[1:4])
            counters = range(first, last + (1 if step > 0 else -1), step)
        except ValueError:
            raise InputError(f"{path}: the numbers of its data files ({told[:80]}) are not three integers") from None
        if len(counters) > _MOST_FILES:
            raise InputError(f"{path}: names {len(counters)} data files; {_MOST_FILES} are the most")
        names = [words[0] % k for k in counters]
    else:
        names = [told.strip().strip('"')]
    return [_beside(path, name) for name in names]


def _beside(path: Path, name: str) -> Path:
    parts = re.split(r"[/\\]", name)
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or ".." in parts or "\0" in name:
        raise InputError(f"{path}: its data file {name[:80]} lies elsewhere; put it beside the header and name it so")
    file = path.parent / name
    if not name or not file.is_file():
        raise InputError(f"{path}: its data file {name[:80]} is not beside it; copy both")
    return file


def _require_lengths(path: Path, what: str, values: list[str]) -> None:
    for value in values:
        try:
            length = float(value)
        except ValueError:
            continue
        if not 0 < abs(length) < math.inf:
            raise InputError(f"{path}: {what} must be lengths, not {' '.join(values)[:80]}; repair the header")


def _nrrd(path: Path, head: bytes) -> _Announced | None:
    if not head.startswith(b"NRRD"):
        return None
    end = re.search(rb"\r?\n\r?\n", head)
    text = head[: end.start() if end else len(head)].decode("latin-1")
    fields, listed, found = {}, [], ""
    for line in text.splitlines()[1:]:
        key, mark, value = line.partition(":")
        if found.upper().startswith("LIST"):
            listed.append(line)
        elif len(line) > _LONGEST and line[:1] != "#" and value[:1] != "=" and not line.startswith("content:"):
            # The reader puts what it cannot parse into a message of fixed length, past whose end it writes.
            raise InputError(f"{path}: a line of its header is damaged ({line[:40]}...); copy or export the file again")
        elif mark and not line.startswith("#") and not value.startswith("="):
            fields[key.strip().lower().replace(" ", "")] = value.strip()
            found = fields.get("datafile", "")
    try:
        shape = tuple(int(n) for n in fields["sizes"].split())
        kind = fields["type"].lower().replace("signed", "").replace("un", "")
        itemsize = next(size for name, size in _nrrd_types() if name == re.sub(r"[\s_]|^u(?=int)|t$", "", kind))
    except (KeyError, ValueError, StopIteration):
        shape, itemsize = (), 0
    encoding = {"gz": "gzip", "txt": "text", "ascii": "text"}.get(*2 * [fields.get("encoding", "raw").lower()])
    files = _data_files(path, found, listed) if "datafile" in fields else []
    if len(shape) <= 3:
        _require_lengths(path, "spacings", fields.get("spacings", "").split())
        _require_vectors(path, fields.get("spacedirections", ""))
    skip = int(fields["byteskip"]) if re.fullmatch(r"\d+", fields.get("byteskip", "")) else 0
    if not itemsize or not shape:
        return None
    return _Announced(shape, itemsize, str(encoding), end.end() if end else len(head), files, skip)


def _nrrd_types() -> list[tuple[str, int]]:
    """Spellings of types without sign, blanks and the ending _t, and their sizes."""
    longer = [("shortint", 2), ("longlong", 8), ("longlongint", 8), ("int64", 8)]
    return [*((re.sub(r"t$", "", name), size) for name, size in (*_NRRD_SIZES.items(), *longer))]


def _require_vectors(path: Path, told: str) -> None:
    for vector in re.findall(r"\(([^)]*)\)", told):
        try:
            length = math.hypot(*(float(v) for v in vector.split(",")))
        except ValueError:
            continue
        if not 0 < length < math.inf:
            raise InputError(f"{path}: space directions must be vectors with a length, not ({vector[:60]}); repair it")


def _meta_image(path: Path, head: bytes) -> _Announced:
    """What a header announces; as the reader complains past our own line, nothing damaged is left to it."""
    text = head.decode("latin-1")
    named = list(re.finditer(r"ElementDataFile[\s=:]*([^\r\n]*)(\r?\n|$)", text, re.IGNORECASE))
    if not named:
        raise InputError(f"{path}: is no MetaImage file (it lacks ElementDataFile); is it truncated or another format?")
    files: list[Path] = []
    for k, one in enumerate(named):  # the reader takes one of them, however they are spelt: none may lead elsewhere
        if one[1].strip().upper() != "LOCAL":
            found = _data_files(path, one[1], text[one.end() :].splitlines())
            files = found if k == 0 else files
    header = text[: named[0].start()]

    def values(key: str) -> list[str]:
        match = re.search(rf"(?:^|\s){key}\s*[=:]\s*([^\r\n]*)", header)
        return match[1].split() if match else []

    _require_lengths(path, "ElementSpacing", values("ElementSpacing"))
    for key in ("NDims", "DimSize", "ElementType"):
        if not values(key):
            raise InputError(f"{path}: lacks the field {key}; is it truncated or another format?")
    try:
        dimensions = int(values("NDims")[0])
        channels = int((values("ElementNumberOfChannels") or ["1"])[0])
        extents = [int(n) for n in values("DimSize")][:dimensions]
        shape = (*extents, channels)
        kind = values("ElementType")[0].upper().removeprefix("MET_").removesuffix("_ARRAY")
        itemsize = _META_SIZES[kind if kind in _META_SIZES else kind.removeprefix("U")]
        skip = int((values("HeaderSize") or ["0"])[0])
    except (ValueError, IndexError, KeyError) as error:
        raise InputError(f"{path}: its MetaImage header is damaged or of a type not known here ({error})") from None
    if len(extents) != dimensions or dimensions < 1:
        raise InputError(f"{path}: DimSize must hold {dimensions} numbers, as NDims says; repair the header")
    _require_one_a_slice(path, named[0][1].split(), files, extents)
    truth = [(values(key) or ["false"])[0].lower() for key in ("CompressedData", "BinaryData")]
    packed, binary = truth[0] in ("true", "1"), truth[1] in ("true", "1") or "BinaryData" not in header
    announced = _Announced(
        shape, itemsize, "gzip" if packed else "raw" if binary else "text", named[0].end(), files, skip
    )
    if packed:
        _require_unpackable(path, announced)
    return announced


def _require_one_a_slice(path: Path, told: list[str], files: list[Path], extents: list[int]) -> None:
    """Raise InputError where a list has not one file for each slice: the reader would leave gaps as they are."""
    if len(files) < 2 and not (told[:1] and told[0].upper() == "LIST"):
        return
    own = int(told[1]) if told[0].upper() == "LIST" and len(told) > 1 and told[1].isdigit() else len(extents) - 1
    slices = math.prod(extents[own:])
    if len(files) != slices:
        raise InputError(f"{path}: names {len(files)} data files for {slices} slices; name one for each")


def _require_unpackable(path: Path, announced: _Announced) -> None:
    """Raise InputError where packed data end early or are damaged: the reader says so past our own line."""
    needed = math.prod(announced.shape) * announced.itemsize
    unpacker, length = zlib.decompressobj(), 0
    source = announced.files[0] if announced.files else path
    try:
        with source.open("rb") as stream:
            stream.seek(0 if announced.files else announced.start)
            while length < needed and (block := unpacker.unconsumed_tail or stream.read(1 << 16)):
                length += len(unpacker.decompress(block, 1 << 20))
    except zlib.error:
        length = -1
    if length < needed:
        raise InputError(f"{path}: its compressed data end early or are damaged; copy the file again")
