"""The results of a benchmark on disk: one JSON record a run, and the CSV that is made from them.

A run that is recorded is never repeated unless its settings, its prior or the software's version changed; one that was
killed goes on from its last saved state.
"""

from __future__ import annotations

import csv
import hashlib
import json
import platform
import shutil
import warnings
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from ..config import ReconSettings
from ..errors import InputError
from ..io.files import replacing
from ..metrics import PLANES
from ..provenance import plain
from ..rates import processor
from ..report import save_metrics
from ..schema import Mapped, Maybe, Number, Object, OneOf, Plain, Schema, Text, checked, json_object
from ..tasks import TASKS

if TYPE_CHECKING:
    from ..jobs.keeper import Keeper

COLUMNS = (
    "case", "task", "scan", "views", "dose", "method", "nfe", "plane", "psnr", "ssim", "residual", "seconds", "prior",
)  # fmt: skip
_CHOICES = Mapped(Plain())
_SPREAD = ("coverage_68", "coverage_95", "deviation", "error")
_SCORES = Object({"psnr": Number(), "ssim": Number()})
_RECORD: Schema = {
    **dict.fromkeys(("key", "fingerprint", "case", "scan", "dose", "method", "prior"), Text(256)),
    **dict.fromkeys(PLANES, _SCORES),
    "task": OneOf(tuple(TASKS)), "views": Number(), "nfe": Number(0), "seconds": Number(0), "residual": Maybe(Number()),
    "provenance": Object({"settings": _CHOICES, "measurement": Object({"settings": _CHOICES}, ("settings",))},
                         ("measurement",)),
    "cpu_seconds": Maybe(Number(0)),
    "uncertainty": Maybe(Object({"correlation": Maybe(Number()), **dict.fromkeys(_SPREAD, Number())})),
}  # fmt: skip
_NEEDED = tuple(name for name in _RECORD if name not in ("cpu_seconds", "uncertainty"))


def digest(entries: Mapping[str, Any]) -> str:
    """A short fingerprint of what determines a run."""
    return hashlib.sha256(json.dumps(plain(entries), sort_keys=True).encode()).hexdigest()[:16]


class Results:
    """A folder with ``runs/*.json`` (figures and provenance), ``pictures/*.npz`` (middle slices) and results.csv."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs, self.pictures = folder / "runs", folder / "pictures"
        for place in (self.runs, self.pictures):
            place.mkdir(parents=True, exist_ok=True)

    def record(self, key: str, fingerprint: str, settings: ReconSettings) -> dict[str, Any] | None:
        """The record of a run; None if there is none, it is damaged, or it was made from other data or settings.

        Settings that did not exist when it was made count as their defaults.
        """
        path = self.runs / f"{key}.json"
        try:
            entries = json_object(path.read_bytes(), str(path))
            checked(entries, _RECORD, str(path), needed=_NEEDED, others=True)
        except (OSError, InputError):
            return None
        if entries["fingerprint"] != fingerprint:
            return None
        used = plain(ReconSettings()) | entries["provenance"]["settings"]
        return entries if used == plain(settings) else None

    def keeper(self, key: str, fingerprint: str, settings: ReconSettings) -> Keeper:
        """Where the state of a run is kept until it is recorded: one that was killed goes on from there."""
        from ..jobs.keeper import Keeper

        folder = self.folder / "state" / key
        folder.mkdir(parents=True, exist_ok=True)
        whole = digest({"fingerprint": fingerprint, "settings": asdict(settings)})
        return Keeper(
            folder,
            whole,
            warn=lambda text: warnings.warn(f"{key}: {text}", stacklevel=2),
            expected_s=lambda: 60.0,  # a first state early, the others as far as their time is worth it
        )

    def forget_state(self, key: str) -> None:
        """Remove what :meth:`keeper` kept."""
        shutil.rmtree(self.folder / "state" / key, ignore_errors=True)
        with suppress(OSError):
            (self.folder / "state").rmdir()

    def add(self, key: str, entries: Mapping[str, Any], slices: Mapping[str, np.ndarray]) -> None:
        """Keep a run; the record is written last, so that one that is there is whole."""
        self.keep_slices(key, slices)
        save_metrics(self.runs / f"{key}.json", entries)

    def keep_slices(self, key: str, slices: Mapping[str, np.ndarray]) -> None:
        """Keep the middle slices of a volume, plane by plane."""
        with replacing(self.pictures / f"{key}.npz", ".npz") as temporary:
            arrays = {plane: image.astype(np.float32) for plane, image in slices.items()}
            np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]

    def slices(self, key: str) -> dict[str, np.ndarray]:
        """The inverse of :meth:`keep_slices`; raises InputError that names a damaged file."""
        path = self.pictures / f"{key}.npz"
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                return {plane: stored[plane] for plane in PLANES}
        except (OSError, ValueError, LookupError, EOFError, BadZipFile, zlib.error):
            raise InputError(
                f"{path}: is missing or damaged; delete its record in {self.runs} to run it again"
            ) from None

    def write_csv(self, records: Iterable[Mapping[str, Any]]) -> Path:
        """One line a run and plane."""
        path = self.folder / "results.csv"
        with replacing(path, ".csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            for record in records:
                for plane in PLANES:
                    line = {name: record.get(name, "") for name in COLUMNS}
                    writer.writerow(line | {"plane": plane} | {k: _short(v) for k, v in record[plane].items()})
        return path


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def machine_record() -> dict[str, Any]:
    """What the seconds were measured on."""
    import os

    import torch

    from ..devices import choose_device, choose_precision, device_name, precision_name

    device = choose_device("auto")
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": "" if device.type == "cpu" else device_name(device),
        "precision": precision_name(choose_precision("auto", device)),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
