"""The XML header of ISMRMRD, which fastMRI's files carry as well: matrix, field of view and order of k-space.

Read with expat itself: document types and entities are refused, nothing is fetched, only the leaves named here are
kept, so that names and dates of a patient never reach the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.parsers import expat

from ..errors import InputError
from .ramps import Ramp

_LARGEST_BYTES = 16 << 20
_DEEPEST = 64
_WHOLE = 0.01  # within which a number counts as a whole one that a program wrote badly
_DESCRIPTION = "encoding/trajectoryDescription/"
_PARAMETERS = tuple(f"{_DESCRIPTION}userParameter{kind}" for kind in ("Long", "Double"))


@dataclass(frozen=True)
class EncodingSpace:
    """Matrix and field of view in mm along (readout, phase, partition); a field of view of 0 is not known."""

    matrix: tuple[int, int, int]
    field_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Header:
    """The first encoding.

    centre_line, centre_partition: index of the lowest frequency, None where not told.  last_partition: likewise.
    ramp: the gradient of an echo-planar readout in microseconds, where its times are told.  guessed: what was mended.
    """

    trajectory: str
    encoded: EncodingSpace | None
    image: EncodingSpace | None
    centre_line: int | None
    centre_partition: int | None
    last_line: int | None
    last_partition: int | None
    calibration: str
    encodings: int
    ramp: Ramp | None = None
    guessed: tuple[str, ...] = ()

    @property
    def oversampling(self) -> float:
        """Encoded over wanted field of view along the readout, by the matrices where the fields are not known."""
        if self.encoded is None or self.image is None:
            return 1.0
        wide, narrow = self.encoded.field_mm[0], self.image.field_mm[0]
        if wide <= 0 or narrow <= 0:
            wide, narrow = self.encoded.matrix[0], self.image.matrix[0]
        return max(wide / narrow, 1.0)


def parse_header(xml: bytes | str, name: str) -> Header:
    """Read a header.  Raises InputError, naming the file, for XML that is damaged, huge or has a document type."""
    raw = xml.encode("utf-8") if isinstance(xml, str) else xml
    leaves, encodings = _leaves(raw.strip().rstrip(b"\0"), name)
    fields = _Fields(leaves, name)
    limits = "encoding/encodingLimits/kspace_encoding_step_"
    return Header(
        trajectory=leaves.get("encoding/trajectory", "").lower(),
        encoded=fields.space("encoding/encodedSpace"),
        image=fields.space("encoding/reconSpace"),
        centre_line=fields.whole(f"{limits}1/center"),
        centre_partition=fields.whole(f"{limits}2/center"),
        last_line=fields.whole(f"{limits}1/maximum"),
        last_partition=fields.whole(f"{limits}2/maximum"),
        calibration=leaves.get("encoding/parallelImaging/calibrationMode", "").lower(),
        encodings=encodings,
        ramp=fields.ramp(),
        guessed=tuple(fields.guessed),
    )


def require_cartesian(header: Header, name: str, also: tuple[str, ...] = ()) -> None:
    """Raise InputError for a trajectory that is not Cartesian, nor one of ``also``, and for none at all."""
    if not header.encodings:
        raise InputError(f"{name}: its header describes no encoding; is it an ISMRMRD header?")
    if header.trajectory not in ("cartesian", "", *also):
        raise InputError(
            f"{name}: its trajectory is {header.trajectory!r}; only Cartesian k-space can be read, grid it first"
        )


def _leaves(raw: bytes, name: str) -> tuple[dict[str, str], int]:
    """Text of each element by its path below the root, of the first of its name; and the number of encodings."""
    if len(raw) > _LARGEST_BYTES:
        raise InputError(f"{name}: its XML header has {len(raw) / 1e6:.0f} MB; is the file damaged?")
    path: list[str] = []
    texts: list[list[str]] = []
    leaves: dict[str, str] = {}
    parameter: dict[str, str] = {}  # of the trajectory, name and value of the one at hand
    encodings = 0

    def start(tag: str, _: dict[str, str]) -> None:
        nonlocal encodings
        path.append(tag.rpartition(" ")[2])
        texts.append([])
        if len(path) > _DEEPEST:
            raise InputError(f"{name}: its XML header is nested too deeply; is the file damaged?")
        encodings += path[1:] == ["encoding"]

    def end(_: str) -> None:
        if encodings <= 1:
            text, place = "".join(texts[-1]).strip(), "/".join(path[1:])
            leaves.setdefault(place, text)
            if place in _PARAMETERS:
                leaves.setdefault(_DESCRIPTION + parameter.pop("name", ""), parameter.pop("value", ""))
            elif place.rpartition("/")[0] in _PARAMETERS:
                parameter[path[-1]] = text
        path.pop()
        texts.pop()

    def refuse(*_: object) -> None:
        raise InputError(f"{name}: its XML header has a document type or entities; remove them")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = lambda text: texts[-1].append(text) if texts else None
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(raw, True)
    except expat.ExpatError as error:
        raise InputError(f"{name}: its XML header is damaged ({error})") from None
    return leaves, encodings


@dataclass(frozen=True)
class _Fields:
    leaves: dict[str, str]
    name: str
    guessed: list[str] = field(default_factory=list)

    def number(self, key: str) -> float | None:
        if key not in self.leaves:
            return None
        try:
            value = float(self.leaves[key])
        except ValueError:
            value = -1.0
        if not 0 <= value < 1e6:
            raise InputError(f"{self.name}: the header's {key} is {self.leaves[key][:40]!r}; a number is needed")
        return value

    def whole(self, key: str) -> int | None:
        value = self.number(key)
        if value is None:
            return None
        nearest = round(value)
        if abs(value - nearest) > _WHOLE:
            raise InputError(f"{self.name}: the header's {key} is {self.leaves[key][:40]!r}; a whole number is needed")
        if value != nearest:
            self.guessed.append(f"the header's {key.removeprefix('encoding/')} {value:g} means {nearest}")
        return nearest

    def space(self, key: str) -> EncodingSpace | None:
        matrix = [self.whole(f"{key}/matrixSize/{axis}") for axis in "xyz"]
        if matrix[0] is None or matrix[1] is None:
            return None
        lengths = [self.number(f"{key}/fieldOfView_mm/{axis}") or 0.0 for axis in "xyz"]
        x, y, z = (max(n or 1, 1) for n in matrix)
        return EncodingSpace((x, y, z), (lengths[0], lengths[1], lengths[2]))

    def ramp(self) -> Ramp | None:
        """The gradient of an echo-planar readout, None where the header describes none that rises while it is read."""
        up, flat, down, dwell = (
            self.number(_DESCRIPTION + key) for key in ("rampUpTime", "flatTopTime", "rampDownTime", "dwellTime")
        )
        if not up or not flat:
            if up:
                self.guessed.append("samples lie evenly along the readout (its gradient's flatTopTime is not told)")
            return None
        return Ramp(up, flat, up if down is None else down, dwell or 0.0, self.number(f"{_DESCRIPTION}acqDelayTime"))
