"""Model cards: what a prior is, read from the header of its safetensors file without loading torch."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import struct
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .errors import InputError, one_line
from .schema import Listed, Mapped, Number, Plain, Rule, Text, checked, json_object

HEADER_LIMIT = 16 << 20  # a header beyond this is not one of ours: refuse before reading it
FILES = (".safetensors", ".pt", ".pth", ".ckpt")  # of priors; other names are ids, unless a folder stands before them
ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"  # an id is a file name without its suffix on every system


@dataclass(frozen=True)
class ValueScale:
    """The prior sees (value - offset) / scale, with value in ``unit``.

    unit: 'HU' for CT.  MR has no units of its own: 'p99.5' counts in multiples of a volume's 99.5th percentile.
    """

    offset: float = -1000.0
    scale: float = 2000.0
    unit: str = "HU"


_NUMBER, _LEVEL = Number(-1e9, 1e9), Number(1e-9, 1e9)
_VALUE: dict[str, Rule] = {"offset": _NUMBER, "scale": _LEVEL, "unit": Text(32)}
_CARD: dict[str, Rule] = {
    "id": Text(100, ID_PATTERN),
    "modality": Text(32),
    "title": Text(1000),
    "value": Plain(),
    "channels": Number(1, 16, whole=True),
    "sigma_data": _LEVEL,
    "sigma_min": _LEVEL,
    "sigma_max": _LEVEL,
    "network": Plain(),
    "training": Plain(),
    "licence": Text(),
    "data": Listed(Mapped(Text(), 64), 1 << 14),
    "source": Mapped(Text(), 64),
    "limits": Text(),
}

UNLIKE_PIXELS = 1.3  # times finer or coarser than a prior has seen: bodies differ by as much
MR_PERCENTILE = 99.5
MR_VALUE = ValueScale(0.0, 1.0, "p99.5")


@dataclass(frozen=True)
class ModelCard:
    """What a user must know of a prior before trusting it.  ``network`` rebuilds the architecture.

    source: of an imported prior, the file it came from (name, sha256) and the sha256 of its weights.
    """

    id: str
    modality: str
    title: str = ""
    value: ValueScale = field(default_factory=ValueScale)
    channels: int = 1
    sigma_data: float = 0.25
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    network: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    data: list[dict[str, str]] = field(default_factory=list)
    source: dict[str, str] = field(default_factory=dict)
    limits: str = "Research use only, not for diagnosis."

    def __post_init__(self) -> None:
        numbers = {"sigma_data": self.sigma_data, "sigma_min": self.sigma_min, "value.scale": self.value.scale}
        for name, number in numbers.items():
            if not 0 < number < math.inf:
                raise InputError(f"model card {self.id!r}: {name} must be positive, not {number}")
        if not self.sigma_min <= self.sigma_max < math.inf:
            raise InputError(f"model card {self.id!r}: sigma_max {self.sigma_max} is below sigma_min")

    def remark_on_pixels(self, pixel_mm: float) -> str:
        """A line where the prior has seen nothing like pixels of this side; empty else, and where it does not tell."""
        seen = self.training.get("pixel_spacings_mm")
        if not isinstance(seen, list) or len(seen) != 2 or not all(isinstance(side, int | float) for side in seen):
            return ""
        if seen[0] / UNLIKE_PIXELS <= pixel_mm <= seen[1] * UNLIKE_PIXELS:
            return ""
        return f"prior {self.id} was trained with pixels of {seen[0]:g} to {seen[1]:g} mm; these have {pixel_mm:.3g} mm"

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, path: Any = "model card") -> ModelCard:
        """The inverse of :meth:`to_json`; entries of later versions are passed over.

        Raises InputError that names ``path`` and the entry that does not fit.
        """
        where = f"{path}: the model card in its header"
        entries = checked(json_object(text, where), _CARD, where, needed=("id", "modality"), others=True)
        for key in ("network", "training"):
            if not isinstance(entries.get(key, {}), dict):
                raise InputError(f"{where}: {key} must be an object")
        entries["value"] = ValueScale(**checked(entries.get("value", {}), _VALUE, f"{where}: value", others=True))
        try:
            return cls(**entries)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


def resources() -> Path:
    """The folder with bundled models, presets and sample data: inside an installed package or beside a checkout's."""
    here = Path(__file__).resolve().parent
    for folder in (here / "Resources", here.parent / "Resources"):
        if folder.is_dir():
            return folder
    raise InputError(f"the folder Resources is missing beside {here}; install the package again")


def user_data() -> Path:
    """The user's data folder, absolute, which may not exist yet.  Raises InputError where nobody knows of a home."""
    base = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_DATA_HOME")
    try:
        return (Path(base) if base else Path.home() / ".local" / "share").absolute() / "DiffusionMBIR"
    except RuntimeError:
        raise InputError("the home folder is not known; set HOME or XDG_DATA_HOME to a folder") from None


def user_models() -> Path:
    """Where imported and trained priors live: $DIFFUSIONMBIR_MODELS or the user's data folder."""
    chosen = os.environ.get("DIFFUSIONMBIR_MODELS")
    return Path(chosen).absolute() if chosen else user_data() / "models"


def read_card(path: str | os.PathLike[str]) -> ModelCard:
    """The card in the header of a safetensors file; raises InputError for a truncated or foreign file."""
    metadata = _metadata(Path(path))
    if "card" not in metadata:
        raise InputError(f"{path}: the file holds no DiffusionMBIR model card; train or import the prior first")
    return ModelCard.from_json(metadata["card"], path)


def has_card(path: str | os.PathLike[str]) -> bool:
    """False for a safetensors file that is not one of ours; raises InputError as :func:`read_card` does otherwise."""
    return "card" in _metadata(Path(path))


def _metadata(path: Path) -> dict[str, str]:
    """What the writer of a safetensors file put into its header beside the tensors."""
    try:
        with path.open("rb") as stream:
            prefix = stream.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if not 2 <= length <= HEADER_LIMIT:
                raise InputError(
                    f"{path}: not a safetensors file, nor a torch checkpoint (.pth, .pt); give the file of a prior"
                )
            text = stream.read(length)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from None
    try:
        metadata = json_object(text, str(path)).get("__metadata__", {})
    except InputError:
        raise InputError(f"{path}: the safetensors header is damaged; copy the file again") from None
    texts = isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    return metadata if texts else {}


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def installed() -> dict[str, Path]:
    """Every prior at hand by id; see :func:`damaged` for files that are none."""
    return _at_hand()[0]


def damaged() -> dict[Path, str]:
    """Files among the priors that cannot serve, with the reason: unreadable, or with the id of a bundled prior."""
    return _at_hand()[1]


def _at_hand() -> tuple[dict[str, Path], dict[Path, str]]:
    found: dict[str, Path] = {}
    wrong: dict[Path, str] = {}
    folders = [resources() / "Models"]
    with suppress(InputError):  # no home folder
        folders.append(user_models())
    for folder in folders:
        for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
            try:
                name = read_card(path).id
                if name in found and is_bundled(found[name]) and not is_bundled(path):
                    raise InputError(f"{path}: its id {name!r} belongs to a bundled prior, which is used instead")
                found[name] = path
            except InputError as error:
                wrong[path] = one_line(error)
    return found, wrong


def find(id_or_file: str | os.PathLike[str]) -> Path:
    """The file of a prior named by id or by path; an unknown one raises InputError that lists those at hand.

    An installed id comes first.  A path is no string, or has a folder or the suffix of a prior's file, so that no file
    which happens to lie in the working folder is taken for a prior.
    """
    name = os.fspath(id_or_file)
    in_folder = not isinstance(id_or_file, str) or any(mark in name for mark in "/\\")
    is_path = in_folder or name.lower().endswith(FILES)
    priors = {} if in_folder and Path(name).is_file() else installed()
    if name in priors:
        return priors[name]
    if is_path and Path(name).is_file():
        return Path(name)
    names = ", ".join(sorted(priors or installed())) or "none"
    raise InputError(f"prior {name[:200]!r} is neither a file nor an installed id; installed: {names}")


def check_id(name: str) -> str:
    """``name``, if it can be the id of a prior; raises InputError otherwise."""
    if not re.fullmatch(ID_PATTERN, name):
        raise InputError(f"id {name!r}: use letters, digits, '.', '_' and '-' only, beginning with a letter or digit")
    return name


def is_bundled(path: Path) -> bool:
    """True for a file that came with the software."""
    return path.parent == resources() / "Models"


def place_for(name: str, *, force: bool = False) -> Path:
    """The file in the user's folder that a prior of this id is to be written to.

    Raises InputError if the id cannot be a file's name or is taken: by a bundled prior, or by one of the user's unless
    ``force`` says that it may be replaced.
    """
    path = user_models() / f"{check_id(name)}.safetensors"
    taken = installed().get(name)
    if taken is not None and is_bundled(taken):
        raise InputError(f"id {name!r} belongs to a bundled prior; choose another id")
    if (taken is not None or path.exists()) and not force:
        raise InputError(f"id {name!r} is taken; choose another id, remove that prior first or replace it by --force")
    return taken or path


def remove(name: str) -> Path:
    """Delete an imported or trained prior by its id, readable or not.  Returns the path that it had."""
    path = user_models() / f"{check_id(name)}.safetensors"
    known = installed().get(name, path)
    if is_bundled(known):
        raise InputError(f"prior {name!r} is bundled with the software and cannot be removed")
    if not known.is_file():
        raise InputError(f"prior {name!r} is not in {user_models()}; `diffusionmbir models` lists those at hand")
    known.unlink()
    return known
