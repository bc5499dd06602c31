"""Files by their SHA-256, where jobs are computed: a scan is sent once, and an upload that broke goes on."""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

from ..errors import EngineError
from ..models import sha256

_DIGEST = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = ".part"


class Damaged(EngineError):
    """What arrived is not what was sent."""


class Store:
    """A folder of files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise ValueError("not a SHA-256")
        return self._folder / digest

    def have(self, digest: str, size: int) -> int:
        """How many bytes of a file are there; all of them only where it is whole."""
        path = self.path(digest)
        if path.is_file():
            with suppress(OSError):
                os.utime(path)  # it is in use
            return size
        part = self._part(digest)
        return min(part.stat().st_size, max(0, size - 1)) if part.is_file() else 0

    def put(self, digest: str, size: int, offset: int, data: bytes) -> int:
        """Append bytes; returns how many are there.  Raises Damaged where the whole has another digest, and OSError."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = self._part(digest)
        with part.open("r+b" if part.is_file() else "w+b") as stream:
            stream.truncate(max(offset, 0))
            stream.seek(offset)
            stream.write(data)
            stream.flush()
            if offset + len(data) >= size:
                os.fsync(stream.fileno())
        if offset + len(data) < size:
            return offset + len(data)
        if sha256(part) != digest:
            part.unlink()
            raise Damaged("a file arrived damaged; it will be sent again")
        part.replace(self.path(digest))
        return size

    def bring(self, digest: str, target: Path) -> None:
        """Give a job's folder a file of the store: no second copy where the disk can do without.  Raises OSError."""
        target.unlink(missing_ok=True)
        try:
            os.link(self.path(digest), target)
        except OSError:
            shutil.copyfile(self.path(digest), target)

    def clean(self, older_than_s: float) -> int:
        """Delete files that were not asked for in so long; returns the bytes that went."""
        gone = 0
        for path in self._folder.glob("*") if self._folder.is_dir() else ():
            with suppress(OSError):
                found = path.stat()
                if time.time() - found.st_mtime >= older_than_s:
                    path.unlink()
                    gone += found.st_size
        return gone

    def _part(self, digest: str) -> Path:
        return self.path(digest).with_suffix(_UNFINISHED)
