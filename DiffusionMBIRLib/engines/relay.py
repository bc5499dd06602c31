"""Lets a job be computed elsewhere: brings its folder there, its lines and its result here, over as many connections
as it takes.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol

from ..errors import EngineError
from ..geometry import Grid
from ..jobs.control import ClientGone, Control
from ..jobs.folder import JobFolder
from ..jobs.messages import Event, Failed, Finished, Log, Prepared, Preview, Started, decode
from ..jobs.partial import NAME as PARTIAL
from ..jobs.partial import write_partial
from ..jobs.preview import NAME as PREVIEW
from ..jobs.preview import PreviewReader, PreviewWriter
from .base import Unreachable
from .fetching import fetch
from .link import Link
from .previews import unpack_preview
from .shipment import Shipment, shipment_of

PATIENCE_S = 1800.0  # without a connection, until the user is asked to resume
_PAUSES_S = (0.1, 0.3, 1.0, 3.0, 10.0)  # between two tries, the last one for all that follow
_PING_S = 10.0
_LISTEN_S = 0.05  # between two looks at what the client wants
_SHOWN_BYTES = 20 << 20  # an upload of more is told of


class Reachable(Protocol):
    """An engine on the other side of connections."""

    name: str
    where: str
    launcher: str
    options: tuple[str, ...]

    def connect(self) -> Link: ...


class Relay:
    """Obeys :class:`DiffusionMBIRLib.engines.base.Runs`."""

    def __init__(self, place: Reachable, folder: JobFolder, control: Control, send: Callable[[Event], None]) -> None:
        self._place, self._folder, self._control, self._send = place, folder, control, send
        self._attempt = secrets.token_hex(8)
        self._at = 0  # bytes of the events there that were told here
        self._told: dict[str, str] = {}  # commands, by what they are about
        self._prepared: Prepared | None = None
        self._writer: PreviewWriter | None = None
        self._step = 0
        self._said_loss = ""
        self._met = False

    def run(self) -> Event:
        """The last word of the job.  A connection that breaks is taken up again; the first one must succeed."""
        link: Link | None = None
        try:
            with ThreadPoolExecutor(1) as pool:  # both take their time
                connecting = pool.submit(self._place.connect)
                try:
                    shipment = shipment_of(self._folder)
                finally:
                    link = connecting.result()
            while link is not None:
                try:
                    return self._serve(link, shipment)
                except Unreachable:
                    link.close()
                    link = self._reconnect()
            self._warn(f"{self._place.where} cannot be told to end the job, which goes on there; resume it to reach it")
            return self.keep_partial()
        finally:
            if link is not None:
                link.close()
            if self._writer is not None:
                self._writer.close()

    def _reconnect(self) -> Link | None:
        """A new connection; None where the user gave up.  Raises Unreachable after a long time."""
        began, tries = time.monotonic(), 0
        where = self._place.where
        self._send(Log("info", f"the connection to {where} broke; the job there goes on, trying again"))
        while True:
            pause = time.monotonic() + _PAUSES_S[min(tries, len(_PAUSES_S) - 1)]
            while time.monotonic() < pause:
                self._require_client()
                if self._control.cancelled:
                    return None
                time.sleep(0.02)
            tries += 1
            try:
                link = self._place.connect()
            except Unreachable as error:
                if time.monotonic() - began > _patience_s():
                    raise Unreachable(f"{error}; the job is kept there") from None
                if tries == len(_PAUSES_S):
                    self._warn(f"{error}; trying on")
            else:
                self._send(Log("info", f"connected to {where} again"))
                return link

    def _require_client(self) -> None:
        if self._control.client_gone:
            raise ClientGone

    # --- one connection

    def _serve(self, link: Link, shipment: Shipment) -> Event:
        about = link.ask("hello")
        if not self._met:
            self._met = True
            text = f"computed on {self._place.where}: DiffusionMBIR {about['version']}, Python {about['python']}"
            self._send(Log("info", text))
        shipment.send(link, self._sending)
        self._control.begin()
        link.ask(
            "begin",
            job=shipment.job,
            attempt=self._attempt,
            launcher=self._place.launcher,
            options=list(self._place.options),
            request=shipment.request.to_json(),
            files=shipment.digests,
        )
        link.ask("follow", job=shipment.job, start=self._at)
        return self._follow(link, shipment.job)

    def _sending(self, have: int, total: int) -> None:
        self._require_client()
        if total > _SHOWN_BYTES:
            share = f"{have / total:.0%}"[:-2]  # tens of a hundred
            if self._told.get("sent") != share:
                self._told["sent"] = share
                self._send(Log("info", f"sent {have / 1e6:.0f} of {total / 1e6:.0f} MB to {self._place.where}"))

    def _follow(self, link: Link, job: str) -> Event:
        heard = time.monotonic()
        while True:
            self._require_client()
            self._pass_on(link, job)
            message = link.pushed(_LISTEN_S)
            if time.monotonic() - heard > _PING_S:
                link.ask("ping")
                heard = time.monotonic()
            if message is None:
                continue
            entries, payload = message
            self._at = max(self._at, int(entries.get("at", 0)))
            if "line" in entries:
                self._take(decode(entries["line"]))
            elif "preview" in entries:
                self._show(entries["preview"], payload)
            elif "standing" in entries:
                why = str(entries["standing"].get("why", ""))[:200]
                self._send(Log("info", f"{self._place.where}: {why or 'the job has begun'}"))
            elif "ended" in entries:
                return self._end(link, job, decode(entries["ended"]))

    def _pass_on(self, link: Link, job: str) -> None:
        """Tell the worker there what the client wants now, where that is news."""
        control = self._control
        wanted = {
            "preview": "preview on" if control.preview_on else "preview off",
            "interval": f"interval {control.interval_s:.3f}",
            "hold": "pause" if control.paused else "resume",
            "end": "cancel" if control.cancelled else "",
        }
        usual = {"preview": "preview on", "interval": "interval 0.500", "hold": "resume", "end": ""}
        for about, line in wanted.items():
            if line != self._told.get(about, usual[about]):
                link.ask("command", job=job, line=line)
                self._told[about] = line

    def _take(self, event: Event) -> None:
        if isinstance(event, Started):
            if event.resumed:
                self._send(Log("info", "goes on from its saved state"))
        elif isinstance(event, Prepared):
            self._prepare(event)
            self._send(event)
        elif not isinstance(event, Finished | Failed):  # the last word comes from the folder there
            self._send(event)

    def _prepare(self, event: Prepared) -> None:
        self._prepared = event
        slices, rows, columns = event.shape
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        try:
            self._writer = PreviewWriter(self._folder.path / PREVIEW, (slices, rows, columns))
        except OSError as error:
            self._warn(f"previews are off: {error.strerror}; make room on the disk")

    def _show(self, entries: dict[str, Any], payload: bytes) -> None:
        if self._writer is None or self._prepared is None:
            return
        try:
            volume = unpack_preview(entries, payload)
        except (ValueError, KeyError, TypeError):
            self._warn("a preview arrived damaged and is left out")
            return
        if list(volume.shape) == list(self._prepared.shape):
            self._say_loss(entries)
            self._write_preview(volume, int(entries["step"]))

    def _say_loss(self, entries: dict[str, Any]) -> None:
        """What previews leave out, once for every coarseness."""
        slices, rows, _ = entries["factors"]
        coarse = "" if slices == rows == 1 else f", every {slices}. slice and {rows}. row and column"
        if self._said_loss != (coarse or "all"):
            self._said_loss = coarse or "all"
            unit = self._prepared.unit if self._prepared else ""
            self._send(
                Log("info", f"previews are sent in 16 bits, off by {entries['error']:.2g} {unit} at most{coarse}")
            )

    def _write_preview(self, volume: Any, step: int) -> None:
        assert self._writer is not None
        self._step = step
        try:
            sequence = self._writer.write(volume, step)
        except OSError as error:
            self._writer.close()
            self._writer = None
            self._warn(f"previews are off: {error.strerror}; make room on the disk")
            return
        if self._control.preview_on:
            self._send(Preview(step, sequence))

    # --- the end

    def _end(self, link: Link, job: str, last: Event) -> Event:
        where = self._place.where
        if isinstance(last, Failed):
            self._keep_log(link, job)
            return Failed(f"{where}: {last.reason}", last.kind, last.resumable)
        if not isinstance(last, Finished):
            raise EngineError(f"{where}: the job ended with a word that is none; resume it")
        fetch(link, job, self._folder.path, self._require_client, partial=last.partial)
        if not last.partial:
            self._show_result(last)
            (self._folder.path / PARTIAL).unlink(missing_ok=True)
            with suppress(EngineError):
                link.ask("forget", job=job)
        return last

    def _show_result(self, last: Finished) -> None:
        """The newest preview is the result itself, at all its voxels."""
        if self._writer is None:
            return
        from ..io.volumes import read_volume

        self._write_preview(read_volume(self._folder.path / last.result).array, self._step)

    def _keep_log(self, link: Link, job: str) -> None:
        with suppress(EngineError):
            for line in link.ask("log", job=job)["lines"]:
                print("there:", line)  # into the log

    def keep_partial(self) -> Finished:
        """The last word of a job that was cancelled here; its newest preview is the partial volume."""
        path = self._folder.path / PARTIAL
        found = PreviewReader(self._folder.path / PREVIEW).read()
        if found is not None and self._prepared is not None:
            grid = Grid.from_dict(self._prepared.grid)
            write_partial(path, found[0], grid, unit=self._prepared.unit, step=found[1])
        return Finished(0.0, None, 0, 0.0, None, PARTIAL if path.is_file() else "", True)

    def _warn(self, text: str) -> None:
        self._send(Log("warning", text))


def _patience_s() -> float:
    return float(os.environ.get("DIFFUSIONMBIR_PATIENCE_S") or PATIENCE_S)
