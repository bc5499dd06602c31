"""What goes through a connection in either direction: lines of JSON, each followed by as many bytes as it says."""

from __future__ import annotations

import json
import threading
from typing import Any, BinaryIO

LONGEST_LINE = 64 << 20
MOST_BYTES = 64 << 20


class Wire:
    """A pair of streams.  :meth:`send` may be called by several threads, :meth:`receive` by one."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._in, self._out = incoming, outgoing
        self._sending = threading.Lock()

    def send(self, entries: dict[str, Any], payload: bytes | memoryview = b"") -> None:
        """Raises OSError where nobody is at the other end, ValueError where the stream was closed."""
        told = entries | {"payload_bytes": len(payload)} if payload else entries
        line = json.dumps(told, separators=(",", ":")).encode() + b"\n"
        with self._sending:
            self._out.write(line)
            if payload:
                self._out.write(payload)
            self._out.flush()

    def receive(self) -> tuple[dict[str, Any], bytes] | None:
        """The next entries and their bytes; None at the end, be it in the middle of a message.

        Raises ValueError for what is no message.
        """
        line = self._in.readline(LONGEST_LINE)
        if not line.endswith(b"\n"):
            return None
        entries = json.loads(line)
        if not isinstance(entries, dict):
            raise ValueError("not a message")
        count = entries.get("payload_bytes", 0)
        if not isinstance(count, int) or not 0 <= count <= MOST_BYTES:
            raise ValueError("not a message")
        payload = self._in.read(count) if count else b""
        return None if len(payload) < count else (entries, payload)
