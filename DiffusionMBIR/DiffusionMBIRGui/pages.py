"""Results as pages of HTML, made by the engine in its own Python, which has what they need.  No Qt."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.jobs.folder import RESULT, JobFolder, jobs_root
from DiffusionMBIRLib.jobs.processes import group_of_its_own
from DiffusionMBIRLib.names import beside

from . import export
from .scene import FILLED, JOB, UNCERTAINTY
from .texts import _

_LONGEST_S = 1800.0
_MARKS = {UNCERTAINTY: "-interval-95", FILLED: "-filled"}  # by which the engine knows the volumes beside a result
INTERVAL = "95 %"  # half-widths that are no interval go by another mark


def make_page(python: Sequence[str], environment: Mapping[str, str] | None, words: Sequence[str], folder: Path) -> Path:
    """``diffusionmbir report WORDS`` in the engine's Python; returns the file that it names last.

    In any thread.  Raises InputError with the engine's own line where it fails.
    """
    try:
        done = subprocess.run(
            [*python, "-m", "DiffusionMBIRLib", "report", *words, "--quiet"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            cwd=folder,
            timeout=_LONGEST_S,
            check=False,
            **group_of_its_own(),
        )
    except OSError as error:
        raise InputError(f"{python[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise InputError(_("The page took too long: make it with `diffusionmbir report`.")) from None
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    if done.returncode:
        raise InputError(said[-1].removeprefix("diffusionmbir: ") if said else _("The page could not be made."))
    return Path(done.stdout.decode("utf-8", "replace").strip().splitlines()[-1])


def page_of(
    node: Any, root: Path | None, python: Sequence[str], environment: Mapping[str, str] | None, path: Path
) -> Callable[[], Path]:
    """What writes the page of a result, for a thread: of its job where that is still there, else of the node.

    root: of the jobs.  Raises InputError where the node is gone or empty.
    """
    job = job_of(node, root)
    if job is not None:
        return lambda: make_page(python, environment, [str(job.path), "-o", str(path)], job.path)
    parts = {"": export.snapshot(node, copy=False)}
    for role, mark in _MARKS.items():
        other = node.GetNodeReference(role)
        if other is not None and other.GetImageData() is not None:
            is_interval = role != UNCERTAINTY or INTERVAL in (other.GetName() or "")
            parts[mark if is_interval else "-deviation"] = export.snapshot(other, copy=False)

    def write() -> Path:
        folder = Path(tempfile.mkdtemp(prefix="DiffusionMBIR-"))
        try:
            result = folder / "result.nrrd"
            for mark, volume in parts.items():
                export.write_nrrd(replace(volume, array=volume.array.copy()), str(beside(result, mark)))
            return make_page(python, environment, [str(result), "-o", str(path)], folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return write


def job_of(node: Any, root: Path | None) -> JobFolder | None:
    """The folder of the job that a result came from, None where it is gone, or was on another machine."""
    name = (node.GetAttribute(JOB) or "") if node is not None else ""
    if not re.fullmatch(r"[0-9a-f-]+", name):  # a scene may say anything
        return None
    folder = JobFolder((root or jobs_root()) / name)
    return folder if (folder.path / RESULT).is_file() else None
