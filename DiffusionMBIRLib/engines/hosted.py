"""A job on the side where it is computed: its folder, and how its worker is started and found again.

Whoever is connected may go away at any time; what is to be known later lies in the folder.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..jobs.detached import COMMANDS, EVENTS
from ..jobs.files import write_text
from ..jobs.folder import INPUT, REQUEST, STATE, SUMMARY, JobFolder
from ..jobs.messages import Event, Failed, Finished
from ..jobs.request import Request
from .launchers import launcher_in, launcher_of, note_launcher
from .launching import Launcher, ProcessLauncher, Standing
from .store import Store

PRIOR = "prior.safetensors"
_ATTEMPT = "attempt.txt"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{7,63}")
_OUTPUT = re.compile(r"(result|deviation)[A-Za-z0-9-]*\.nrrd|provenance\.json")
_PRIVATE = 0o077


def root_there() -> Path:
    """Where engines, scans and jobs lie on a computer that others compute on: $DIFFUSIONMBIR_REMOTE or
    ~/.diffusionmbir.
    """
    chosen = os.environ.get("DIFFUSIONMBIR_REMOTE")
    return Path(chosen).absolute() if chosen else Path.home() / ".diffusionmbir"


def is_output(name: str) -> bool:
    """Whether a file's name is one of what a run leaves: nothing else goes from one side to the other."""
    return _OUTPUT.fullmatch(name) is not None


class HostedJob:
    """One job by its id, which names nobody."""

    def __init__(self, root: Path, job: str) -> None:
        if not _ID.fullmatch(job):
            raise ValueError("not the id of a job")
        self.path = root / "jobs" / job
        self.folder = JobFolder(self.path)
        self._store = Store(root / "files")

    @property
    def launcher(self) -> Launcher:
        return launcher_in(self.path)

    def begin(self, attempt: str, launcher: str, options: Sequence[str], request: str, files: dict[str, str]) -> str:
        """Bring the job to run: 'running', 'waiting' or 'gone', where it has ended already.

        attempt: of whoever asks; within one of them the job is started once, however often the connection breaks.
        request: ``job.json`` as text; files: digests of scan and prior by their names in the folder.
        May raise OSError.
        """
        if not (self.path / REQUEST).is_file():
            self._make(request, files)
        phase = self.launcher.standing(self.path).phase
        last = self.folder.last_word()
        done = isinstance(last, Finished) and not last.partial
        if phase != "gone" or done or self._attempt() == attempt:
            write_text(self.path / _ATTEMPT, attempt)
            return phase
        for name in (EVENTS, COMMANDS, SUMMARY):
            (self.path / name).unlink(missing_ok=True)
        note_launcher(self.path, launcher)
        launcher_of(launcher).launch(self.path, options)
        write_text(self.path / _ATTEMPT, attempt)
        return "running"

    def _attempt(self) -> str:
        try:
            return (self.path / _ATTEMPT).read_text()
        except OSError:
            return ""

    def _make(self, request: str, files: dict[str, str]) -> None:
        asked = Request.from_json(request)
        shutil.rmtree(self.path, ignore_errors=True)
        (self.path / STATE).mkdir(parents=True, mode=0o700)
        for name, digest in files.items():
            if name not in (INPUT, PRIOR):
                raise ValueError("not a file of a job")
            self._store.bring(digest, self.path / name)
        if PRIOR in files:
            asked = replace(asked, settings=asked.settings | {"prior": str(self.path / PRIOR)})
        write_text(self.path / REQUEST, asked.to_json())

    def command(self, line: str) -> None:
        """Pass a line on to the worker.  Raises OSError."""
        with (self.path / COMMANDS).open("ab") as stream:
            stream.write(line.encode() + b"\n")
        if line == "cancel" and self.launcher.withdraw(self.path):
            self.folder.write_last_word(Finished(0.0, None, 0, 0.0, None, "", True))

    def ended(self, standing: Standing, launcher: Launcher) -> Event | None:
        """The last word of a job that is over, None as long as it is not."""
        if standing.phase != "gone" and isinstance(launcher, ProcessLauncher):
            return None  # it may have something to tidy up
        last = self.folder.last_word()
        if standing.phase != "gone":
            return last
        if last is not None:
            return last
        why = standing.why or "the computing process ended unexpectedly"
        return Failed(f"{why}; resume the job, or look into its log", "crash", True)

    def outputs(self) -> dict[str, Path]:
        """What can be fetched, by name."""
        found = self.path.iterdir() if self.path.is_dir() else ()
        return {path.name: path for path in found if is_output(path.name) and path.is_file() and not path.is_symlink()}

    def forget(self, wait_s: float = 5.0) -> None:
        """Delete the folder, unless the job still runs after so long."""
        end = time.monotonic() + wait_s
        while self.launcher.standing(self.path).phase != "gone" and time.monotonic() < end:
            time.sleep(0.05)
        if self.launcher.standing(self.path).phase == "gone":
            shutil.rmtree(self.path, ignore_errors=True)


def hosted_jobs(root: Path) -> list[HostedJob]:
    """All jobs of a computer that others compute on."""
    folder = root / "jobs"
    return [HostedJob(root, path.name) for path in sorted(folder.glob("*"))] if folder.is_dir() else []


def keep_private() -> None:
    """What this process and its children write is for their user alone."""
    os.umask(_PRIVATE)
