"""Starts a command once for each device of this computer, as torchrun does, and ends with what it gave.  No torch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from .errors import EngineError

_CODE = "import sys; sys.path.insert(0, sys.argv.pop(1)); from DiffusionMBIRLib.cli import main; sys.exit(main())"
_POLL_S = 0.1
_GRACE_S = 10.0  # for the others to tell why they end, once one has


def launch(arguments: Sequence[str], count: int) -> int:
    """Run ``diffusionmbir ARGUMENTS`` in ``count`` processes that find each other; the exit code of the first failure.

    The first process speaks to the user; what another one says on stderr is shown where that one alone failed.
    """
    with ExitStack() as stack:
        heard = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count)]
        port = _free_port()
        processes = [_start(arguments, rank, _environment(count, rank, port), heard[rank]) for rank in range(count)]
        try:
            failed = _first_failure(processes)
        finally:
            _end(processes)
        if failed is None:
            return 0
        if failed > 0:
            heard[failed].seek(0)
            sys.stderr.write(heard[failed].read().decode("utf-8", "replace"))
        return processes[failed].returncode or 1


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _environment(count: int, rank: int, port: int) -> dict[str, str]:
    threads = max(1, len(_processors()) // count)
    shared = {"OMP_NUM_THREADS": str(threads)} | dict(os.environ)
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    return shared | group | {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def _processors() -> Sequence[int]:
    known: Any = getattr(os, "sched_getaffinity", None)
    return sorted(known(0)) if known else range(os.cpu_count() or 1)


def _start(arguments: Sequence[str], rank: int, environment: dict[str, str], heard: IO[bytes]) -> subprocess.Popen[Any]:
    root = str(Path(__file__).resolve().parents[1])
    quiet: dict[str, Any] = {} if rank == 0 else {"stdout": subprocess.DEVNULL, "stderr": heard}
    try:
        return subprocess.Popen([sys.executable, "-c", _CODE, root, *arguments], env=environment, **quiet)
    except OSError as error:
        raise EngineError(f"{sys.executable}: cannot be started once more ({error.strerror})") from error


def _first_failure(processes: Sequence[subprocess.Popen[Any]]) -> int | None:
    """Which process failed first, None where all did well.  The first one goes before others that fail beside it."""
    while True:
        codes = [process.poll() for process in processes]
        if all(code == 0 for code in codes):
            return None
        if any(codes):
            with suppress(subprocess.TimeoutExpired):
                processes[0].wait(_GRACE_S)
            return 0 if processes[0].poll() not in (0, None) else next(k for k, code in enumerate(codes) if code)
        time.sleep(_POLL_S)


def _end(processes: Sequence[subprocess.Popen[Any]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
