"""Engines on other computers, as the panel shows them: chosen by a host, looked at and installed by the command line.

What talks to them is a process of this Slicer's Python; nothing of it runs in the application.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from DiffusionMBIRLib.engines import engine_of
from DiffusionMBIRLib.errors import InputError

from .setup import Device, Engine, Process, Report
from .texts import _

KINDS = ("ssh", "slurm")
_INSTALL = "engine install"  # what a line names that an installation would mend


def remote_engine(kind: str, text: str, command: Sequence[str]) -> Engine:
    """The engine of what the user typed: a host, a Python there behind a colon, and options of sbatch.

    command: this Slicer's Python.  Raises InputError in one line.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(_("{text}: cannot be read ({reason})").format(text=text, reason=error)) from None
    hosts = [word for word in words if not word.startswith("-")]
    options = tuple(word for word in words if word.startswith("-"))
    if len(hosts) > 1:
        raise InputError(_("Name one host; options begin with a dash, as in --partition=gpu."))
    if kind == "ssh" and not hosts:
        raise InputError(_("Name the other computer as `ssh` knows it."))
    name = ":".join((kind, *hosts))
    engine_of(name, options)
    return Engine(tuple(command), in_slicer=True, remote=name, options=options)


def looking_command(engine: Engine) -> list[str]:
    """What looks at a remote engine; prints one line of JSON."""
    return [*engine.command, "-m", "DiffusionMBIRLib", "engine", "test", engine.remote, "--json"]


def read_remote_report(lines: Sequence[str], where: str) -> Report:
    """The line of ``engine test`` as a Report; an error it tells is the problem, in its own words."""
    for line in reversed(lines):
        try:
            found: Mapping[str, Any] = json.loads(line)
            if "error" in found:
                problem = str(found["error"])
                return Report(problem=problem, lacking=("DiffusionMBIR",) if _INSTALL in problem else ())
            devices = tuple(Device(**entry) for entry in found["devices"])
            return Report(found["python"], found["torch"], devices, machine=found["machine"], where=where)
        except (ValueError, KeyError, TypeError):
            continue
    said = next((line for line in reversed(lines) if line.strip()), _("it says nothing"))
    return Report(problem=_("The engine cannot be looked at: {reason}").format(reason=said.strip()))


def install_remote(engine: Engine, *, build: str = "") -> Process:
    """Begin to bring this version there.  Ask the user before."""
    own = ["--build", build] if build else []
    command = [*engine.command, "-m", "DiffusionMBIRLib", "engine", "install", engine.remote, "--yes", *own]
    return Process(command, engine.variables())


def text_install_remote(where: str) -> str:
    """The question before :func:`install_remote`."""
    return _(
        "Install the engine on {where}?\n\nIts code goes through ssh into ~/.diffusionmbir there. Packages that are "
        "missing come from the Python package index into an environment of their own; torch alone may take several GB."
    ).format(where=where)
