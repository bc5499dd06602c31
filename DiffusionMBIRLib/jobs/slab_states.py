"""The state of a run in a folder, a file for each slab of slices, so that it goes on on another number of devices.

A list (JSON) names the files of the last state that all processes have written; files that it does not name are left
over.  Each process reads the slices that it holds now, from whichever files have them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from ..checkpoints import COMPLEX
from ..digests import Hashed, is_whole
from ..errors import EngineError, InputError
from ..io.scan_fields import content_of
from ..methods import NETWORK_METHODS
from ..models import find, sha256
from ..operators.slabs import Slabs
from ..provenance import plain, software_version
from .files import read_text, rewriting, write_text

if TYPE_CHECKING:
    from ..config import ReconSettings
    from ..scans import Scan

SHARE = 0.02  # of a run's time that may go into saving
_FORMAT = 1


class SlabStates:
    """A Checkpoint in a folder that all processes of a group see.

    slices: of the whole volume.  device: where volumes lie.  key: of what is computed; a state of something else is
    refused.  share: of the time that may go into saving; 1: every state is saved.
    """

    def __init__(
        self,
        folder: Path,
        slabs: Slabs,
        slices: int,
        key: str,
        *,
        device: torch.device | None = None,
        warn: Callable[[str], None] = lambda text: None,
        share: float = SHARE,
    ) -> None:
        self._folder, self._slabs, self._slices, self._key = folder, slabs, slices, key
        self._device = device or torch.device("cpu")
        self._held, self._warn, self._share = slabs.mine(slices), warn, share
        self._saved: set[str] = set()
        self._began, self._spent_s, self._cost_s = time.monotonic(), 0.0, 0.0
        self._broken = False
        self._loaded: dict[str, dict[str, Tensor]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error
        self._number = int(self._listed().get("number", 0))
        slabs.wait()  # nobody writes before all have read

    def load(self, stage: str) -> dict[str, Tensor] | None:
        """The slices held here of the state that an earlier run left of a stage; None where there is none.

        Raises InputError for the state of another run, or one that is damaged.
        """
        if stage in self._saved:
            return None
        if stage not in self._loaded:
            listed = self._listed()
            if listed.get("stage") != stage:
                return None
            self._loaded[stage] = self._gathered(listed)
        return self._loaded[stage]

    def _gathered(self, listed: dict[str, Any]) -> dict[str, Tensor]:
        """From all files what is held here."""
        parts = [(int(first), self._read(str(name))) for name, first in listed["files"]]
        first_file = parts[0][1]
        return {name: self._joined(name, [(first, part[name]) for first, part in parts]) for name in first_file}

    def save(self, stage: str, state: dict[str, Tensor]) -> None:
        """Write the state where its time is worth it.  A disk that is full is a warning: the run itself can go on."""
        now = time.monotonic()
        self._saved.add(stage)
        self._loaded.pop(stage, None)  # its memory is needed
        worth = self._spent_s + self._cost_s <= self._share * (now - self._began)
        if not self._slabs.agreed(worth):
            return
        self._number += 1
        name, failed = f"state-{self._number}-{self._held.start}.pt", ""
        try:
            with rewriting(self._folder / name) as stream:
                hashed = Hashed(stream)
                torch.save(state, cast("IO[bytes]", hashed))
                stream.write(hashed.digest())
        except (OSError, RuntimeError) as error:
            failed = str(error)
        if int(self._slabs.total(torch.tensor(int(bool(failed)), device=self._device))):
            if not self._broken:
                self._warn(f"{self._folder}: the state cannot be saved; make room {failed}".rstrip())
            self._broken = True
        elif self._slabs.rank == 0:
            self._list(stage)
        self._slabs.wait()
        self._cost_s = time.monotonic() - now
        self._spent_s += self._cost_s

    def _list(self, stage: str) -> None:
        """Make the files of this state those that count, and delete the others."""
        starts = [int(p.stem.rpartition("-")[2]) for p in self._folder.glob(f"state-{self._number}-*.pt")]
        files = [(f"state-{self._number}-{start}.pt", start) for start in sorted(starts)]
        known = {"format": _FORMAT, "key": self._key, "slices": self._slices, "number": self._number}
        write_text(self._list_path, json.dumps(known | {"stage": stage, "files": files}))
        kept = {name for name, _ in files}
        for path in self._folder.glob("state-*.pt"):
            if path.name not in kept:
                with suppress(OSError):
                    path.unlink()

    @property
    def _list_path(self) -> Path:
        return self._folder / "state.json"

    def _listed(self) -> dict[str, Any]:
        if not self._list_path.exists():
            return {}
        try:
            listed = json.loads(read_text(self._list_path))
            same = (listed["format"], listed["key"], listed["slices"]) == (_FORMAT, self._key, self._slices)
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{self._list_path}: is damaged; delete the folder and begin anew") from None
        if not same:
            raise InputError(
                f"{self._folder}: holds the state of another run (other scan, settings, prior or version); choose "
                "another folder for --state, or delete it"
            )
        return cast("dict[str, Any]", listed)

    def _read(self, name: str) -> dict[str, Tensor]:
        path = self._folder / name
        try:
            whole = is_whole(path)
            state = torch.load(path, weights_only=True, mmap=True, map_location="cpu") if whole else None
        except (OSError, RuntimeError, ValueError) as error:
            raise EngineError(f"{path}: cannot be read ({error}); do all hosts see this folder?") from error
        if not isinstance(state, dict):
            raise InputError(f"{path}: is damaged (its SHA-256 differs); delete the folder and begin anew")
        return state

    def _joined(self, name: str, parts: list[tuple[int, Tensor]]) -> Tensor:
        """The slices held here, with the layout in memory that the parts have; numbers are the same in all."""
        axis = _axis_of_slices(name, parts[0][1])
        if axis is None:
            return parts[0][1].clone()
        kept = []
        for first, part in parts:
            start, stop = (min(max(end - first, 0), part.shape[axis]) for end in (self._held.start, self._held.stop))
            kept.append(part.narrow(axis, start, stop - start))
        order = sorted(range(part.ndim), key=lambda k: -parts[0][1].stride()[k])
        joined = torch.cat([part.permute(order) for part in kept], order.index(axis)).to(self._device)
        return joined.permute([order.index(k) for k in range(part.ndim)])


def _axis_of_slices(name: str, entry: Tensor) -> int | None:
    """Of volumes (slices, rows, columns) and of gradients (3, slices, rows, columns); complex numbers are pairs."""
    return {3: 0, 4: 1}.get(entry.ndim - name.endswith(COMPLEX))


def key_of(scan: Scan, settings: ReconSettings) -> str:
    """Of what is computed: the scan, the settings but for devices and sub-batches, the prior's file and the version."""
    digest = hashlib.sha256()
    free = {"device", "slices_per_batch", "compile"}
    chosen = {name: value for name, value in plain(settings).items() if name not in free}
    prior = sha256(find(settings.prior)) if settings.method in NETWORK_METHODS else ""
    about = {name: value for name, value in content_of(scan).items() if not isinstance(value, np.ndarray)}
    digest.update(json.dumps([chosen, prior, software_version(), plain(about)], sort_keys=True, default=str).encode())
    for name, value in sorted(content_of(scan).items()):
        if isinstance(value, np.ndarray):
            digest.update(name.encode() + np.ascontiguousarray(value).data)
    return digest.hexdigest()
