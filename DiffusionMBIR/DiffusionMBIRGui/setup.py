"""Which Python computes: choose it, look at it, install what it lacks; and the priors at hand.

Nothing of this waits: what takes time runs in a process of its own, and :meth:`Process.poll` tells how far it is.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from DiffusionMBIRLib import models
from DiffusionMBIRLib.errors import InputError
from DiffusionMBIRLib.jobs.processes import end_tree, group_of_its_own
from DiffusionMBIRLib.rates import Place

from . import texts
from .texts import _

HERE = Path(__file__).resolve().parent
WINDOWS = sys.platform == "win32"


@dataclass(frozen=True)
class Engine:
    """A Python to compute with.

    command: how it is started.  environment: what it is started with, None for this process's own.  in_slicer: whether
    it is the application's own Python, whose packages are installed through the application.  remote: name of the
    engine on another computer that this Python speaks with; options: of sbatch.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] | None = None
    in_slicer: bool = False
    remote: str = ""
    options: tuple[str, ...] = ()

    @property
    def place(self) -> dict[str, Any]:
        """Where jobs are to be computed, as ``JobFolder.create`` takes it."""
        return {"engine": self.remote, "options": self.options} if self.remote else {}

    def variables(self) -> dict[str, str]:
        """The environment with the folder of DiffusionMBIRLib on the module path."""
        values = dict(os.environ if self.environment is None else self.environment)
        values.pop("PYTHONSAFEPATH", None)
        paths = [str(library_folder()), *filter(None, values.get("PYTHONPATH", "").split(os.pathsep))]
        values["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
        values["PYTHONIOENCODING"] = "utf-8"
        return values


@dataclass(frozen=True)
class Device:
    """A place to compute.  name: 'cpu', 'cuda:N' or 'mps'; title: for people; memory in bytes, 0 where not known."""

    name: str
    title: str
    total: int = 0
    free: int = 0


@dataclass(frozen=True)
class Report:
    """What the probe found.  lacking: requirements that are not met; problem: one line, '' if the engine works.

    machine: what its pace is remembered by.  where: another computer, '' for this one.
    """

    python: str = ""
    torch: str = ""
    devices: tuple[Device, ...] = ()
    lacking: tuple[str, ...] = ()
    problem: str = ""
    machine: str = ""
    where: str = ""

    def place(self, device: Device) -> Place:
        """What the pace of a device is remembered by."""
        return Place(self.machine, device.title if device.name.startswith("cuda") else device.name)

    @property
    def ready(self) -> bool:
        return not self.problem

    def line(self) -> str:
        """One line for people: what is there and how much memory is free, or what is wrong."""
        if self.problem:
            return self.problem
        found = ", ".join(_device_text(device) for device in self.devices)
        line = _("Ready: Python {python}, torch {torch}; {devices}")
        if self.where:
            line = _("Ready on {where}: Python {python}, torch {torch}; {devices}")
        return line.format(where=self.where, python=self.python, torch=self.torch, devices=found)

    def device(self, name: str) -> Device | None:
        """The device that a setting stands for ('auto': a GPU where there is one)."""
        if name == "auto":
            return next((d for d in self.devices if d.name != "cpu"), self.devices[0] if self.devices else None)
        wanted = "cuda:0" if name == "cuda" else name
        return next((d for d in self.devices if d.name == wanted), None)


def _device_text(device: Device) -> str:
    if not device.total:
        return device.title
    return _("{device} with {memory} free").format(device=device.title, memory=texts.of_size(device.free, device.total))


def library_folder() -> Path:
    """The folder that holds the package DiffusionMBIRLib."""
    return Path(models.__file__).resolve().parents[1]


def requirements_file() -> Path:
    return models.resources() / "requirements.txt"


def other_python(path: str) -> tuple[str, ...]:
    """The command of a Python that the user names, which may be an environment's folder; raises InputError."""
    if not path.strip():
        raise InputError(_("Name a Python, or the folder of an environment."))
    place = Path(path.strip()).expanduser()
    for candidate in (place, place / "bin" / "python", place / "Scripts" / "python.exe", place / "python.exe"):
        if candidate.is_file():
            if not os.access(candidate, os.X_OK):
                raise InputError(_("{file} is not a program; choose a Python").format(file=candidate))
            return (str(candidate),)  # not resolved: an environment's Python is a link that must stay one
    found = shutil.which(path.strip())
    if found:
        return (found,)
    lacking = _("{file} holds no Python; choose one") if place.is_dir() else _("{file} is not there; choose a Python")
    raise InputError(lacking.format(file=path.strip()))


class Process:
    """A child process whose lines are read without waiting, in a group of its own so that it ends with its children."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._cancelled = False
        self.returncode: int | None = None
        self._process = subprocess.Popen(
            list(arguments),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            **group_of_its_own(),
        )
        threading.Thread(target=self._read, daemon=True).start()

    def poll(self) -> list[str]:
        """The lines since the last call; ``returncode`` is set once the process is over and all its lines are out."""
        lines = []
        while not self._lines.empty():
            line = self._lines.get_nowait()
            if line is None:
                self.returncode = self._process.wait()
            else:
                lines.append(line)
        return lines

    @property
    def running(self) -> bool:
        return self.returncode is None

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """End the process with all its children, at once."""
        if self._process.poll() is None:
            self._cancelled = True
            end_tree(self._process)

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        with stream:
            for line in stream:
                self._lines.put(line.rstrip())
        self._process.wait()
        self._lines.put(None)


class Probe:
    """Looks at an engine: what it lacks, its torch, its devices.  ``poll`` gives None until the Report is there."""

    def __init__(
        self,
        engine: Engine,
        command: Sequence[str] | None = None,
        read: Callable[[Sequence[str]], Report] | None = None,
    ) -> None:
        """command, read: what is asked, and who understands the answer, where it is no Python of this computer."""
        self._lines: list[str] = []
        self._process: Process | None = None
        self._failure = ""
        self._understand = read or read_report
        asked = command or [*engine.command, str(HERE / "setup_probe.py"), str(requirements_file())]
        try:
            self._process = Process(asked, engine.variables())
        except OSError as error:
            self._failure = _("The engine's Python does not start ({reason}).").format(reason=error.strerror or error)

    def poll(self) -> Report | None:
        if self._process is None:
            return Report(problem=self._failure)
        self._lines += self._process.poll()
        return None if self._process.running else self._understand(self._lines)

    def cancel(self) -> None:
        if self._process is not None:
            self._process.cancel()


def read_report(lines: Sequence[str]) -> Report:
    """The probe's last line as a Report; anything else it said is the reason why there is none."""
    try:
        found = json.loads(lines[-1])
        devices = tuple(Device(**entry) for entry in found["devices"])
        lacking = tuple(found["lacking"])
        problem = texts.engine_lacks(", ".join(lacking)) if lacking else _problem_text(found)
        return Report(found["python"], found["torch"], devices, lacking, problem, found.get("machine", ""))
    except (IndexError, KeyError, TypeError, ValueError):
        if _is_no_python(lines):
            return Report(problem=_("This program is no Python: choose another one under Set-up."))
        said = next((line for line in reversed(lines) if line.strip()), _("it says nothing"))
        return Report(problem=_("The engine's Python does not work: {reason}").format(reason=said.strip()))


# What Python, or the system that should start it, says where it fails.
_OF_PYTHON = ("Traceback", "Fatal Python error", "Error:", "can't open file", "No module named", "shared libraries")


def _is_no_python(lines: Sequence[str]) -> bool:
    """True for a program that speaks of the files which it was given instead of running them."""
    written = requirements_file().read_text(encoding="utf-8").splitlines()
    if lines and lines[-1].strip() and lines[-1].strip() in map(str.strip, written):
        return True
    speaks = any(name in line for line in lines for name in ("setup_probe.py", requirements_file().name))
    return speaks and not any(mark in line for line in lines for mark in _OF_PYTHON)


def _problem_text(found: Mapping[str, Any]) -> str:
    if found["problem"] == "python":
        line = _("Python 3.10 or newer is needed; this one is {version}: choose another Python.")
        return line.format(version=found["python"])
    if found["problem"]:
        return _("torch cannot be loaded: {reason}").format(reason=found["reason"])
    return ""


BUILDS = ("", "cpu", "cu126", "cu128", "cu130")  # of torch: that of the usual index, and those of torch's own


def install(engine: Engine, lacking: Sequence[str], *, build: str = "", wheels: str = "") -> Process:
    """Begin to install what the engine lacks, with its own pip.  Ask the user before; raises InputError.

    build: one of ``BUILDS``.  wheels: a folder of packages that were fetched elsewhere; no index is asked then.
    """
    if not lacking:
        raise InputError(_("nothing is missing"))
    where = ["--slicer"] if engine.in_slicer else []
    where += ["--wheels", wheels] if wheels else ["--build", build] if build else []
    try:
        return Process([*engine.command, str(HERE / "setup_install.py"), *where, *lacking], engine.variables())
    except OSError as error:
        reason = error.strerror or error
        raise InputError(_("The engine's Python does not start ({reason}).").format(reason=reason)) from None


@dataclass(frozen=True)
class KnownPrior:
    """What is shown of a prior."""

    id: str
    modality: str
    title: str
    licence: str
    bytes: int
    bundled: bool

    def line(self) -> str:
        """'ct-compact-v1 - CT, 9.2 MB, CC BY 4.0': the weights' licence, without that of their training data."""
        licence = self.licence.split(";")[0] or _("licence unknown")
        return f"{self.id} - {self.modality}, {texts.size(self.bytes)}, {licence}"

    def details(self) -> str:
        """Title and whole licence, on two lines."""
        return "\n".join(filter(None, (self.title, self.licence)))


def priors() -> list[KnownPrior]:
    """Every prior at hand, by id; read from the files' headers, without torch."""
    found = []
    for name, path in sorted(models.installed().items()):
        card = models.read_card(path)
        size = path.stat().st_size
        found.append(KnownPrior(name, card.modality, card.title, card.licence, size, models.is_bundled(path)))
    return found


def id_for(file: str) -> str:
    """An id for a checkpoint by its file's name."""
    stem = Path(file).stem.lower()
    cleaned = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in stem).strip("._-")
    return models.check_id(cleaned[:100] or "prior")


def begin_import(engine: Engine, file: str, name: str) -> Process:
    """Begin to bring in a checkpoint under an id, in the engine's Python; nothing that the file carries is run."""
    models.place_for(name)  # raises InputError where the id cannot be taken
    command = [*engine.command, "-m", "DiffusionMBIRLib", "models", "import", file, "--id", name, "--json"]
    return Process(command, engine.variables())
