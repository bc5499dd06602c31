"""Tells of a job through a connection: what it wrote since, its newest preview now and then, its last word."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import asdict

import numpy as np

from ..jobs.detached import EVENTS
from ..jobs.messages import Finished, Preview, decode, encode
from ..jobs.preview import NAME as PREVIEW
from ..jobs.preview import PreviewReader
from .hosted import HostedJob
from .launching import Standing
from .previews import pack_preview
from .wire import Wire

SHARE = 0.005  # of the time that packing previews may take here; the worker has its own share
_SHARE_OF_LINE = 0.25  # and sending them, of the connection
_LOOK_S = 0.05


class Following:
    """A thread that ends with the job, or where nobody is at the other end."""

    def __init__(self, wire: Wire, job: HostedJob, start: int) -> None:
        self._wire, self._job, self._at = wire, job, start
        self._launcher = job.launcher
        self._standing = Standing("running")
        self._asked = -1e9
        self._told_why = ""
        self._newest: Preview | None = None
        self._next_preview = 0.0
        self._reader = PreviewReader(job.path / PREVIEW)
        self._array: np.ndarray | None = None
        threading.Thread(target=self._run, name="following", daemon=True).start()

    def _run(self) -> None:
        with suppress(OSError, ValueError):
            while not self._tell():
                time.sleep(_LOOK_S)

    def _tell(self) -> bool:
        """Tell what is new; True once the last word is out.

        How the job stands is asked first, so that all that it wrote before is seen.
        """
        now = time.monotonic()
        if now - self._asked > self._launcher.poll_s:
            self._standing, self._asked = self._launcher.standing(self._job.path), time.monotonic()
        last = self._job.ended(self._standing, self._launcher)
        self._tell_standing()
        self._tell_lines()
        if last is None:
            if self._newest is not None and time.monotonic() >= self._next_preview:
                self._show(self._newest)
            return False
        if isinstance(last, Finished) and last.partial and self._newest is not None:
            self._show(self._newest)
        self._wire.send({"ended": encode(last)})
        return True

    def _tell_standing(self) -> None:
        why = self._standing.why if self._standing.phase == "waiting" else ""
        if why != self._told_why:
            self._told_why = why
            self._wire.send({"standing": asdict(self._standing)})

    def _tell_lines(self) -> None:
        path = self._job.path / EVENTS
        try:
            if path.stat().st_size <= self._at:
                return
            with path.open("rb") as stream:
                stream.seek(self._at)
                text = stream.read()
        except OSError:
            return
        for line in text.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            self._at += len(line)
            event = decode(line)
            if isinstance(event, Preview):
                self._newest = event
            else:
                self._wire.send({"line": line.decode("utf-8", "replace"), "at": self._at})

    def _show(self, event: Preview) -> None:
        """Send the newest preview, and wait with the next so that it costs no more than its share."""
        self._newest = None
        began = time.thread_time()
        found = self._reader.read(self._array)
        if found is None:
            return
        self._array, step = found
        entries, payload = pack_preview(self._array)
        cost, sending = time.thread_time() - began, time.monotonic()
        self._wire.send({"preview": entries | {"step": step}, "at": self._at}, payload)
        on_line = time.monotonic() - sending
        self._next_preview = time.monotonic() + max(cost / SHARE, on_line / _SHARE_OF_LINE)
