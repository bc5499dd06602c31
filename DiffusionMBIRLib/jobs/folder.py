"""The folder of a job: made whole or not at all, and its state told by what lies in it.  Needs numpy at most."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..engines import LOCAL, Engine, engine_of
from ..engines.base import engine_from_json, engine_to_json
from ..errors import EngineError, InputError
from ..io.scan_npz import write_npz_to
from ..models import user_data
from ..moves import move_over
from ..names import require_unicode
from ..scans import Scan
from ..volume import Volume
from . import lock, partial, preview
from .files import read_text, rewriting, write_text
from .messages import Event, Failed, Finished, decode, encode
from .request import Request

REQUEST, INPUT, LOG, SUMMARY, BEGUN = "job.json", "scan.npz", "log.txt", "summary.json", "begun.json"
ENGINE, REMOTE = "engine.json", "remote.json"  # where it is computed, and what the job is there
STATE, RESULT, DEVIATION, PROVENANCE = "state", "result.nrrd", "deviation.nrrd", "provenance.json"
MEASURED = "measured.npz"  # the scan, for a report: kept where it is small
STATUSES = ("new", "running", "finished", "partial", "failed", "interrupted")
_BYTES_PER_VOXEL = 96  # two previews, a result, and two states of the largest stage (10 volumes of float32)
_UNFINISHED = ".new-"


def jobs_root() -> Path:
    """Where jobs live, an absolute path: $DIFFUSIONMBIR_JOBS or the user's data folder."""
    chosen = os.environ.get("DIFFUSIONMBIR_JOBS")
    return Path(chosen).absolute() if chosen else user_data() / "jobs"


@dataclass(frozen=True)
class JobFolder:
    """A job on disk."""

    path: Path

    @classmethod
    def create(
        cls,
        root: Path,
        request: Request,
        inside: Scan | Volume | None = None,
        *,
        engine: str = LOCAL,
        options: Sequence[str] = (),
    ) -> JobFolder:
        """Make the folder of a new job under ``root``; appears under its name only when it is complete.

        inside: the scan or volume of a request whose input lies in the folder.  engine, options: where it is computed
        (``engines.engine_of``).  Raises InputError where the folder
        cannot be written to or its disk lacks the space for the whole job: input, previews, state and result.
        """
        named = engine_to_json(engine, options) if engine != LOCAL else ""
        root = root.absolute()  # the worker has another working directory
        require_unicode(root)
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        temporary, path = root / f"{_UNFINISHED}{name}", root / name
        try:
            root.mkdir(parents=True, exist_ok=True)
            _require_space(root, _bytes_needed(request, inside))
            temporary.mkdir()
            _fill(temporary, request, inside)
            if named:
                write_text(temporary / ENGINE, named)
            move_over(temporary, path)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise InputError(
                f"{root}: the job's folder cannot be written ({error.strerror}); choose another jobs folder"
            ) from error
        return cls(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> JobFolder:
        """An existing job; raises InputError where there is none."""
        folder = cls(Path(path).expanduser().absolute())
        if not (folder.path / REQUEST).is_file():
            raise InputError(f"{path}: is not the folder of a job; `diffusionmbir job list` shows those at hand")
        return folder

    @property
    def request(self) -> Request:
        path = self.path / REQUEST
        try:
            text = read_text(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        except ValueError:
            raise InputError(f"{path}: is damaged and cannot be read; begin a new job") from None
        return Request.from_json(text, path)

    @property
    def engine(self) -> Engine:
        """Where the job is computed.  Raises InputError."""
        path = self.path / ENGINE
        try:
            return engine_from_json(read_text(path), path) if os.path.lexists(path) else engine_of(LOCAL)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None

    @property
    def is_remote(self) -> bool:
        """True where it is not computed by the process that serves the folder."""
        return os.path.lexists(self.path / ENGINE)

    @property
    def status(self) -> str:
        """One of STATUSES."""
        if lock.is_taken(self.path / lock.NAME):
            return "running"
        last = self.last_word()
        if isinstance(last, Finished):
            return "partial" if last.partial else "finished"
        if isinstance(last, Failed):
            return "failed"
        return "interrupted" if (self.path / BEGUN).exists() or (self.path / REMOTE).exists() else "new"

    def wait_until_free(self, timeout_s: float = 15.0) -> None:
        """Let a worker whose client is gone save its state and end; returns in any case."""
        end = time.monotonic() + timeout_s
        while self.status == "running" and time.monotonic() < end:
            time.sleep(0.05)

    @property
    def resumable(self) -> bool:
        """True if there is a state to go on from, here or where it is computed."""
        if (self.path / REMOTE).is_file():
            return True
        folder = self.path / STATE
        return folder.is_dir() and any(p.suffix == ".pt" for p in folder.iterdir())

    def summary(self) -> dict[str, Any]:
        """What the last event said, as plain entries; empty as long as there was none."""
        try:
            entries = json.loads(read_text(self.path / SUMMARY))
        except (OSError, ValueError, RecursionError):
            return {}
        return entries if isinstance(entries, dict) else {}

    def last_word(self) -> Event | None:
        """The event that ended the job, None as long as none did."""
        entries = self.summary()
        try:
            last = decode(json.dumps(entries)) if entries else None
        except RecursionError:
            return None
        return last if isinstance(last, Finished | Failed) else None

    @property
    def summary_is_damaged(self) -> bool:
        """True where the last word is there and says nothing."""
        return os.path.lexists(self.path / SUMMARY) and self.last_word() is None

    def write_last_word(self, event: Event) -> None:
        """Raises OSError."""
        write_text(self.path / SUMMARY, encode(event) + "\n")

    def begun(self) -> dict[str, Any]:
        """What the first run froze: version, device, precision and the SHA-256 of the prior; empty before."""
        try:
            entries = json.loads(read_text(self.path / BEGUN))
        except (OSError, ValueError, RecursionError):
            return {}
        return entries if isinstance(entries, dict) else {}

    def log_tail(self, lines: int = 50) -> list[str]:
        """The last lines of the log."""
        try:
            with (self.path / LOG).open("rb") as stream:
                stream.seek(0, os.SEEK_END)
                stream.seek(max(0, stream.tell() - 400 * lines))
                text = stream.read().decode("utf-8", "replace")
        except OSError:
            return []
        return text.splitlines()[-lines:]

    @property
    def result_path(self) -> Path | None:
        """The result, or the partial one of a cancelled job."""
        for name in (RESULT, partial.NAME):
            if (self.path / name).is_file():
                return self.path / name
        return None

    @property
    def bytes(self) -> int:
        """What the folder takes on disk."""
        total = 0
        for item in self.path.rglob("*"):
            with suppress(OSError):
                found = item.stat()
                total += found.st_size if stat.S_ISREG(found.st_mode) else 0
        return total

    def tidy(self) -> None:
        """Remove what a finished job no longer needs; the result, its record and the log stay."""
        if self.status == "finished":
            shutil.rmtree(self.path / STATE, ignore_errors=True)
            for name in (preview.NAME, INPUT):
                with suppress(OSError):
                    (self.path / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the folder.  Raises InputError while a worker runs it, EngineError where files cannot be deleted."""
        if self.status == "running":
            raise InputError(f"{self.path}: the job is running; cancel it first")
        try:
            shutil.rmtree(self.path)
        except OSError as error:
            raise EngineError(f"{self.path}: cannot be deleted ({error.strerror})") from error


def list_jobs(root: Path) -> list[JobFolder]:
    """The jobs under a folder, the oldest first."""
    if not root.is_dir():
        return []
    root = root.absolute()
    return [JobFolder(p) for p in sorted(root.iterdir()) if not p.name.startswith(".") and os.path.isfile(p / REQUEST)]


def clean(root: Path, statuses: Iterable[str] = ("finished", "partial", "failed"), keep: int = 0) -> list[JobFolder]:
    """Delete jobs of these statuses but for the ``keep`` newest, and what was left half made; returns what went."""
    wanted = set(statuses)
    ended = [folder for folder in list_jobs(root) if folder.status in wanted]
    gone = ended[: len(ended) - keep] if keep else ended
    for folder in gone:
        folder.remove()
    day_ago = time.time() - 86400
    for leftover in root.glob(f"{_UNFINISHED}*") if root.is_dir() else ():
        if leftover.stat().st_mtime < day_ago:
            shutil.rmtree(leftover, ignore_errors=True)
    return gone


def _fill(folder: Path, request: Request, inside: Scan | Volume | None) -> None:
    (folder / STATE).mkdir()
    prior = Path(str(request.settings.get("prior", "")))
    if prior.is_file():  # the worker has another working directory
        request = replace(request, settings=request.settings | {"prior": str(prior.absolute())})
    if inside is not None:
        with rewriting(folder / INPUT) as stream:
            write_npz_to(stream, inside)
    write_text(folder / REQUEST, request.to_json())


def _bytes_needed(request: Request, inside: Scan | Volume | None) -> int:
    voxels = int(np.prod(request.input.get("shape", (0,))))
    coarsen = max(1, int(request.scan.get("coarsen") or 1))
    stored = [getattr(inside, f.name) for f in fields(inside)] if inside is not None else []
    array_bytes = sum(value.nbytes for value in stored if isinstance(value, np.ndarray))
    return array_bytes + _BYTES_PER_VOXEL * voxels // coarsen**2


def _require_space(root: Path, needed: int) -> None:
    free = shutil.disk_usage(root).free
    if free < needed:
        raise InputError(
            f"{root}: the job needs {needed / 1e6:.0f} MB, its disk has {free / 1e6:.0f} MB left; make room or choose "
            "another jobs folder"
        )
