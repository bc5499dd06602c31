"""What a job needs on the other side: its request without names and paths, and files known by their digests."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import EngineError, InputError
from ..io.scan_npz import write_npz_to
from ..jobs.asking import read_input
from ..jobs.files import read_text, rewriting, write_text
from ..jobs.folder import INPUT, REMOTE, JobFolder
from ..jobs.request import Request, folder_input
from ..methods import NETWORK_METHODS
from ..models import find, is_bundled, sha256
from .hosted import PRIOR
from .link import Damage, Link

_PIECE = 1 << 20
_NAMELESS = "job"
_TRIES = 3


@dataclass(frozen=True)
class Parcel:
    """A file to be sent."""

    path: Path
    size: int
    digest: str


@dataclass(frozen=True)
class Shipment:
    """job: the id there.  files: by their names in the folder there."""

    job: str
    request: Request
    files: dict[str, Parcel]

    def send(self, link: Link, meanwhile: Callable[[int, int], None]) -> None:
        """Send what is not there yet, from where an earlier connection broke.

        meanwhile: called with the bytes that are there and those in all.  Raises what the link raises.
        """
        total, before = sum(parcel.size for parcel in self.files.values()), 0
        for parcel in self.files.values():
            _send(link, parcel, partial(_further, meanwhile, before, total))
            before += parcel.size

    @property
    def digests(self) -> dict[str, str]:
        return {name: parcel.digest for name, parcel in self.files.items()}


def _further(meanwhile: Callable[[int, int], None], before: int, total: int, have: int) -> None:
    meanwhile(before + have, total)


def _send(link: Link, parcel: Parcel, meanwhile: Callable[[int], None]) -> None:
    for attempt in range(_TRIES):
        try:
            have = link.ask("have", digest=parcel.digest, size=parcel.size)["have"]
            with parcel.path.open("rb") as stream:
                while have < parcel.size:
                    stream.seek(have)
                    piece = stream.read(_PIECE)
                    if not piece:
                        raise EngineError(f"{parcel.path}: became shorter while it was sent; begin a new job")
                    have = link.ask("put", piece, digest=parcel.digest, size=parcel.size, offset=have)["have"]
                    meanwhile(have)
            return
        except Damage:
            if attempt == _TRIES - 1:
                raise


def shipment_of(folder: JobFolder) -> Shipment:
    """What is to be sent of a job.  A scan that lies in files of this computer is read, and put into the folder.

    Raises InputError for what cannot be read, OSError where the folder cannot be written.
    """
    request, path = folder.request, folder.path / INPUT
    known = _known(folder)
    if not known:
        entries: dict[str, Any] = request.input
        if entries.get("kind") == "file":
            inside = read_input(entries)
            entries = folder_input(inside)
            with rewriting(path) as stream:
                write_npz_to(stream, inside)
        known = {"job": f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}", "input": entries}
        write_text(folder.path / REMOTE, json.dumps(known))
    if not path.is_file():
        raise InputError(f"{path}: the job's input is missing; begin a new job")
    files = {INPUT: path}
    settings = request.settings
    if settings.get("method") in NETWORK_METHODS:
        prior = find(settings["prior"])
        if not is_bundled(prior):  # the engine there brings the same
            files[PRIOR] = prior
            settings = settings | {"prior": PRIOR}
    told = replace(request, name=_NAMELESS, input=known["input"], settings=settings)
    parcels = {name: Parcel(p, p.stat().st_size, sha256(p)) for name, p in files.items()}
    return Shipment(str(known["job"]), told, parcels)


def _known(folder: JobFolder) -> dict[str, Any]:
    """What was noted of the job there, empty before it was sent."""
    path = folder.path / REMOTE
    if not path.is_file():
        return {}
    try:
        entries = json.loads(read_text(path))
        return {"job": str(entries["job"]), "input": dict(entries["input"])}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: is damaged and cannot be read; begin a new job") from None
