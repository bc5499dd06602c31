"""Jobs in the queue of a cluster with SLURM: ``sbatch``, ``squeue``, ``sacct`` and ``scancel``, where these are."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import EngineError, one_line
from ..jobs.files import read_text, write_text
from ..jobs.folder import SUMMARY
from .launching import Standing, worker_command

_ID_FILE = "slurm.json"
_TELLS_S = 60.0  # before the end of its time, so that the state is saved
_SHARED_DISK_S = 60.0  # until what a node wrote is seen elsewhere
_SETTLES_S = 10.0  # until an end that has a name is believed: what is put back into the queue passes through some
_HOLDS_S, _LOOK_S = 600.0, 5.0  # that a worker which was warned waits for its end, and between two questions
_COMMAND_S = 30.0
_WAITING = (
    "PENDING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "RESV_DEL_HOLD",
    "SPECIAL_EXIT",
    "SUSPENDED",
)
_RUNNING = ("RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED", "RESIZING")
_GONE = {  # what else there is, such as COMPLETED, FAILED or nothing, says less than the last word of the job itself
    "TIMEOUT": "its time on the cluster ran out (--time)",
    "DEADLINE": "its deadline on the cluster has passed",
    "OUT_OF_MEMORY": "the memory of its node ran out (--mem)",
    "NODE_FAIL": "its node died",
    "BOOT_FAIL": "its node did not start",
    "PREEMPTED": "the cluster took its node away",
    "CANCELLED": "it was cancelled on the cluster",
}
_REASONS = {"None": "", "Priority": "others come first", "Resources": "no node is free"}


class SlurmLauncher:
    """Obeys :class:`DiffusionMBIRLib.engines.launching.Launcher`; runs where ``sbatch`` is."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._last = Standing("running")
        self._over_since = 0.0

    @property
    def poll_s(self) -> float:
        """Often at first, then as seldom as clusters like it."""
        return 1.0 if time.monotonic() - self._began < 30 else 5.0

    def launch(self, folder: Path, options: Sequence[str]) -> None:
        told = _ask("sbatch", *submission(folder), *options, stdin=batch_script(folder))
        number = told.strip().partition(";")[0]
        if not number.isdigit():
            raise EngineError(f"sbatch did not say the number of the job ({one_line(told)})")
        write_text(folder / _ID_FILE, json.dumps({"id": int(number)}))

    def standing(self, folder: Path) -> Standing:
        """How the job is; one without a last word is over only once the cluster has said so for a while.

        The queue forgets what is over, accounts tell of it late, a job that is put back passes through the states of
        an end, and the last word of a node may take a while to be seen from here.
        """
        try:
            noted = _noted(folder)
        except FileNotFoundError:
            return Standing("gone")  # was never submitted
        except (OSError, ValueError, KeyError, TypeError):
            return self._last
        state, reason = state_of(noted["id"])
        if not state:  # the controller does not answer: it is as it was
            return self._last
        if state in _WAITING or state in _RUNNING:
            self._forget_end(folder, noted)
            waits = f"job {noted['id']} waits in the queue{_because(reason)}"
            self._last = Standing("waiting", waits) if state in _WAITING else Standing("running")
            return self._last
        patience = _SETTLES_S if state in _GONE else _SHARED_DISK_S
        if (folder / SUMMARY).exists() or self._over_for(folder, noted) >= patience:
            return Standing("gone", _GONE.get(state, ""))
        return self._last

    def _over_for(self, folder: Path, noted: dict[str, Any]) -> float:
        """Seconds since the end was first seen, be it by another connection: who resumes need not wait again."""
        self._over_since = noted.get("over_since") or self._over_since
        if not self._over_since:
            self._over_since = time.time()
            with suppress(OSError):
                write_text(folder / _ID_FILE, json.dumps(noted | {"over_since": self._over_since}))
        return abs(time.time() - self._over_since)

    def _forget_end(self, folder: Path, noted: dict[str, Any]) -> None:
        self._over_since = 0.0
        if "over_since" in noted:
            with suppress(OSError):
                write_text(folder / _ID_FILE, json.dumps({"id": noted["id"]}))

    def hold(self, folder: Path) -> None:
        """Wait for the cluster to end this process.

        It warns before a node is taken away or time runs out; a job that leaves by itself then has failed, and would
        neither be put back into the queue nor told why it ended.
        """
        end = time.monotonic() + _HOLDS_S
        while time.monotonic() < end and state_of(_noted(folder)["id"])[0] in ("RUNNING", ""):
            time.sleep(_LOOK_S)

    def withdraw(self, folder: Path) -> bool:
        if self.standing(folder).phase != "waiting":
            return False
        _ask("scancel", str(_noted(folder)["id"]))
        return True


def submission(folder: Path) -> list[str]:
    """Options of sbatch for every job; the user's come after them."""
    return [
        "--parsable",
        "--job-name=diffusionmbir",
        "--requeue",
        "--open-mode=append",
        f"--signal=B:TERM@{_TELLS_S:.0f}",
        f"--chdir={folder}",
        f"--output={folder / 'log.txt'}",
    ]


def batch_script(folder: Path) -> str:
    """The worker takes the place of the shell, so that signals reach it."""
    return f"#!/bin/sh\nexport PYTHONSAFEPATH=1\nexec {shlex.join(worker_command(folder))}\n"


def state_of(number: int) -> tuple[str, str]:
    """(state, reason) of a job, by its queue, the accounts, or the controller's memory; ('', '') where nobody tells."""
    try:
        told = _ask("squeue", "-h", "-j", str(number), "-o", "%T %r").split()
        if told:
            return told[0], " ".join(told[1:])
    except EngineError as error:
        if "Invalid job id" not in str(error):
            return "", ""
    try:
        told = _ask("sacct", "-n", "-X", "-P", "-j", str(number), "-o", "State").split()
        if told:
            return told[0].rstrip("+"), ""
    except EngineError:
        pass  # many clusters keep no accounts
    try:
        shown = dict(word.partition("=")[::2] for word in _ask("scontrol", "-o", "show", "job", str(number)).split())
        return shown.get("JobState", ""), shown.get("Reason", "")
    except EngineError as error:
        return ("UNKNOWN", "") if "Invalid job id" in str(error) else ("", "")


def describe_cluster() -> dict[str, Any]:
    """Version and partitions (name, nodes, GPUs, longest time), as ``sinfo`` tells."""
    version = _ask("sbatch", "--version").strip()
    rows = [line.split("|") for line in _ask("sinfo", "-h", "-o", "%P|%D|%G|%l").splitlines()]
    keys = ("name", "nodes", "gpus", "time")
    return {"cluster": version, "partitions": [dict(zip(keys, row, strict=False)) for row in rows]}


def _noted(folder: Path) -> dict[str, Any]:
    """The id of the job, and when its end was first seen.  Raises OSError, and what a damaged file raises."""
    entries = json.loads(read_text(folder / _ID_FILE))
    return {"id": int(entries["id"])} | {k: float(v) for k, v in entries.items() if k == "over_since"}


def _because(reason: str) -> str:
    text = _REASONS.get(reason, reason)
    return f" ({text})" if text else ""


def _ask(program: str, *arguments: str, stdin: str = "") -> str:
    """What a program of SLURM prints.  Raises EngineError with what it complains of."""
    try:
        done = subprocess.run(
            [program, *arguments], input=stdin, capture_output=True, text=True, timeout=_COMMAND_S, check=False
        )
    except FileNotFoundError:
        raise EngineError(f"{program} is not found there; is this computer part of a cluster with SLURM?") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{program} does not answer ({type(error).__name__})") from None
    if done.returncode:
        raise EngineError(f"{program}: {one_line(done.stderr or done.stdout) or f'exit code {done.returncode}'}")
    return done.stdout
