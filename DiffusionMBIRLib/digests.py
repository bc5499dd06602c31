"""Files that end with the SHA-256 of what stands before: torch itself does not notice a flipped bit."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

_DIGEST_BYTES = 32
_BLOCK_BYTES = 1 << 20


class Hashed:
    """A stream that knows the SHA-256 of what was written to it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._hash = stream, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()

    def digest(self) -> bytes:
        return self._hash.digest()


def is_whole(path: Path) -> bool:
    """Whether the digest at the file's end is that of the rest."""
    digest = hashlib.sha256()
    left = path.stat().st_size - _DIGEST_BYTES
    with path.open("rb") as stream:
        while left > 0 and (block := stream.read(min(_BLOCK_BYTES, left))):
            digest.update(block)
            left -= len(block)
        return left == 0 and stream.read() == digest.digest()
