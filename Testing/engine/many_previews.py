"""What two processes do in the test of their previews: ``python -m Testing.engine.many_previews FOLDER``."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib import slab_previews
from DiffusionMBIRLib.many import joining
from DiffusionMBIRLib.monitor import Silent

FEW = 4 * 300  # bytes for a coarse volume


class Looks(Silent):
    """Looks at every second preview that is offered."""

    def __init__(self) -> None:
        self.offered = 0
        self.seen: list[tuple[int, mbir.Volume]] = []

    def preview(self, estimate: Callable[[], Any], step: int) -> None:
        self.offered += 1
        if self.offered % 2:
            self.seen.append((step, estimate()))


def work(folder: Path) -> None:
    """Reconstruct each case with room for the whole volume, with little room, and with nobody who looks."""
    found = {}
    with joining("cpu") as group:
        for name, (scan, settings) in pickle.loads((folder / "cases").read_bytes()).items():
            for room in (slab_previews.COARSE_BYTES, FEW, 0):
                slab_previews.COARSE_BYTES = room or FEW
                slabs: Any = group.slabs_of(scan)
                looks = Looks() if group.first else Silent()
                monitor = looks if room else Silent()
                mbir.reconstruct(scan, settings=settings, slabs=slabs, monitor=monitor)
                found[name, room] = getattr(looks, "seen", []), slabs.sent.get("previews", 0)
            slab_previews.COARSE_BYTES = 4 << 20
        (folder / f"previews-{group.rank}").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    work(Path(sys.argv[1]))
