"""How fast a machine was seen to be: paces by machine, device, prior and precision in the user's data folder.

Needs no torch.  :mod:`.pace` measures, workers note the pace of their runs, and estimates before later runs read it.
"""

from __future__ import annotations

import json
import math
import platform
import secrets
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .config import ReconSettings
from .errors import InputError
from .methods import NETWORK_METHODS
from .models import user_data
from .moves import move_over
from .schema import Number, json_object
from .tasks import task_info

_SECONDS = Number(1e-18, 1e6)
START_S = 6.0  # until a worker computes, where it was not seen yet
_KEPT = 7  # newest runs
_UNSEEN, _FEW = 1.6, 1.25  # by how much an estimate may be wrong: of slices of another size, and after one run or two


@dataclass(frozen=True)
class Pace:
    """network: seconds a pixel and evaluation.  solver: seconds a unit of the costs in :mod:`.estimate`, which tell of
    operators and solvers.  None where it is not known.  start_s: until a worker computes.  doubt: a run is thought to
    take between the ``doubt``-th part and ``doubt`` times what is predicted.
    """

    network: float | None = None
    solver: float | None = None
    start_s: float = field(default=START_S, compare=False)
    doubt: float = field(default=1.0, compare=False)


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
        return "|".join((self.machine, self.device, f"{task_info(task).data} solver"))

    def start_key(self) -> str:
        return "|".join((self.machine, self.device, "start"))


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


def size_key(key: str, pixels: int | None) -> str:
    """The key of a pace for slices of about so many pixels: small ones keep a processor less busy."""
    return key if not pixels else f"{key}|{2 ** round(math.log2(pixels) / 2)} squared"


def known_pace(place: Place, settings: ReconSettings, task: str, pixels: int | None = None) -> Pace:
    """What is known of the pace of a run: the median of the newest runs, so that one on a busy machine counts little.

    pixels: of a slice; what was seen of slices of about this size is preferred.
    """
    rates = _read()
    keys = [place.solver_key(task)] + ([place.network_key(settings)] if settings.method in NETWORK_METHODS else [])
    seen = [rates.get(size_key(key, pixels), ()) for key in keys]
    found = [_median(own or rates.get(key, ())) for own, key in zip(seen, keys, strict=True)]
    start = _median(rates.get(place.start_key(), ()))
    return Pace(
        found[1] if len(found) > 1 else None,
        found[0],
        START_S if start is None else start,
        max(map(_doubt, seen)),
    )


def _median(seen: Sequence[float]) -> float | None:
    return statistics.median(seen) if seen else None


def _doubt(seen: Sequence[float]) -> float:
    """By how much runs differ from their median, the farthest left aside; what is usual where too few are known."""
    if not seen:
        return _UNSEEN
    middle = statistics.median(seen)
    off = sorted(max(value / middle, middle / value) for value in seen)
    return max(_FEW, off[-1]) if len(off) < 3 else off[-2]


def note(key: str, seconds: float, pixels: int | None = None) -> None:
    """Remember a pace beside the newest ones; a folder that cannot be written to is left alone.

    pixels: of a slice, where the pace hangs on it.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        return
    rates = _read()
    for name in {key, size_key(key, pixels)}:
        rates[name] = [*rates.get(name, ()), seconds][-_KEPT:]
    text = json.dumps(rates, indent=1, sort_keys=True)
    with suppress(OSError, InputError):
        path = _file()
        temporary = path.with_name(f".{secrets.token_hex(4)}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        move_over(temporary, path)


def _file() -> Path:
    return user_data() / "rates.json"


def _read() -> dict[str, list[float]]:
    """The paces that are fit; what else stands there, or a file that is damaged, is as if nothing had been noted."""
    try:
        entries = json_object(_file().read_bytes(), str(_file()))
    except (OSError, InputError):
        return {}
    lists = {key: found if isinstance(found, list) else [found] for key, found in entries.items()}
    return {key: [value for value in found if not _SECONDS.complaint(value)][-_KEPT:] for key, found in lists.items()}
