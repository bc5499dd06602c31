"""How fast a machine was seen to be: paces by machine, device, prior and precision in the user's data folder.

Needs no torch.  :mod:`.pace` measures, workers note the pace of their runs, and estimates before later runs read it.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .config import ReconSettings
from .errors import InputError
from .methods import NETWORK_METHODS
from .models import user_data
from .schema import Number, json_object
from .tasks import task_info

_SECONDS = Number(1e-18, 1e6)


@dataclass(frozen=True)
class Pace:
    """network: seconds a pixel and evaluation.  solver: seconds a unit of the costs in :mod:`.estimate`, which tell of
    operators and solvers.  None where it is not known.
    """

    network: float | None = None
    solver: float | None = None


@dataclass(frozen=True)
class Place:
    """Where a run takes place.

    machine: as :func:`machine_key` names it.  device: 'cpu', 'mps' or the name of a GPU.
    """

    machine: str
    device: str

    def network_key(self, settings: ReconSettings) -> str:
        """Of a file of the user's, the name alone is kept."""
        named = settings.prior.replace("\\", "/")
        prior = Path(named).stem if "/" in named else named
        return "|".join(
            (self.machine, self.device, prior, settings.precision, *(["compiled"] if settings.compile else []))
        )

    def solver_key(self, task: str) -> str:
        return "|".join((self.machine, self.device, f"{task_info(task).modality} solver"))


def machine_key(*, threads: int, torch_version: str) -> str:
    """What the pace of a machine depends on besides the device."""
    return f"{processor()}, {threads} threads, torch {torch_version}"


def processor() -> str:
    """The processor's name."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def known_pace(place: Place, settings: ReconSettings, task: str) -> Pace:
    """What is known of the pace of a run."""
    rates = _read()
    uses = settings.method in NETWORK_METHODS
    network = rates.get(place.network_key(settings)) if uses else None
    return Pace(network, rates.get(place.solver_key(task)))


def note(key: str, seconds: float) -> None:
    """Remember a pace, half of it the newest; a folder that cannot be written to is left alone."""
    rates = _read()
    before = rates.get(key)
    text = json.dumps({**rates, key: seconds if before is None else (before + seconds) / 2}, indent=1, sort_keys=True)
    with suppress(OSError, InputError):
        path = _file()
        temporary = path.with_name(f".{secrets.token_hex(4)}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)


def _file() -> Path:
    return user_data() / "rates.json"


def _read() -> dict[str, float]:
    """The paces that are fit; what else stands there, or a file that is damaged, is as if nothing had been noted."""
    with suppress(OSError, ValueError):
        entries = json_object(_file().read_bytes(), str(_file()))
        return {key: value for key, value in entries.items() if not _SECONDS.complaint(value)}
    return {}
