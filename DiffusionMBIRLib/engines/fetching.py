"""Brings results here: each file in pieces, from where an earlier connection broke, and only whole by its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from ..errors import EngineError
from ..jobs.partial import NAME as PARTIAL
from ..moves import move_over
from .hosted import is_output
from .link import Link

_TRIES = 3


def fetch(link: Link, job: str, folder: Path, meanwhile: Callable[[], None], *, partial: bool) -> None:
    """All that a run left, or the volume of a cancelled one alone.

    Raises what the link raises, OSError where it cannot be written here, EngineError where it keeps arriving damaged.
    """
    outputs = link.ask("outputs", job=job, within_s=600.0)["outputs"]
    for name, about in sorted(outputs.items()):
        if is_output(name) and (name == PARTIAL) == partial:
            _fetch_one(link, job, folder / name, int(about["size"]), str(about["digest"]), meanwhile)


def _fetch_one(link: Link, job: str, target: Path, size: int, digest: str, meanwhile: Callable[[], None]) -> None:
    part = target.with_name(f".{target.name}.{digest[:16]}.part")
    for _ in range(_TRIES):
        found = hashlib.sha256()
        with part.open("a+b") as stream:
            stream.seek(0)
            have = 0
            for block in iter(lambda: stream.read(1 << 20), b""):
                found.update(block)
                have += len(block)
            while have < size:
                meanwhile()
                piece = link.ask("get", job=job, name=target.name, offset=have)["payload"]
                if not piece:
                    break
                stream.write(piece)
                found.update(piece)
                have += len(piece)
        if have == size and found.hexdigest() == digest:
            move_over(part, target)
            return
        part.unlink()
    raise EngineError(f"{link.where}: {target.name} arrived damaged {_TRIES} times; resume the job")
