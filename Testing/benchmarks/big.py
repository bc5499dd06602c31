"""Peak host memory of a whole reconstruction, Python and torch included, of volumes of several heights.  A script.

Each height runs in a process of its own, with few levels: memory does not depend on their number.  Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.estimate import estimate
from DiffusionMBIRLib.priors.analytic import GaussianPrior
from DiffusionMBIRLib.reconstruction import reconstruct
from DiffusionMBIRLib.usual import usual_settings
from Testing.benchmarks.memory import _status, scan

TASK = "sparse-view-ct"


def measured(
    shape: tuple[int, int, int], views: int, levels: int, sweeps: int, closed_form: bool, folder: Path
) -> dict[str, float]:
    """Read the scan from a file, reconstruct, write the volume: as the command does."""
    from DiffusionMBIRLib.io.scans import read_scan

    path = folder / "scan.h5"
    scan(shape, TASK, views).save(path)
    began = time.perf_counter()
    read = read_scan(path)
    usual = usual_settings(read).settings
    settings: ReconSettings = replace(usual, steps=levels, start_sweeps=sweeps, device="cpu")
    prior = GaussianPrior(0.3, 0.01) if closed_form else None
    result = reconstruct(read, settings=settings, prior=prior)
    after = _status("VmHWM")
    result.volume.save(folder / "out.nrrd")
    told = estimate(shape, settings, TASK, views=views).memory_bytes
    return {
        "slices": shape[0], "levels": levels, "method": settings.method, "peak_bytes": _status("VmHWM"),
        "peak_before_writing": after, "estimated_bytes": told, "seconds": time.perf_counter() - began,
        "network_seconds": result.network_seconds, "nfe": result.nfe,
    }  # fmt: skip


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--levels", type=int, default=1)
    parser.add_argument("--sweeps", type=int, default=2)
    parser.add_argument("--closed-form", action="store_true", help="a prior without a network, which takes no time")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        with tempfile.TemporaryDirectory() as folder:
            shape = (options.slices[0], options.side, options.side)
            found = measured(shape, options.views, options.levels, options.sweeps, options.closed_form, Path(folder))
        print(json.dumps(found))
        return
    for slices in options.slices:
        chosen = {"slices": slices, "side": options.side, "views": options.views, "levels": options.levels}
        command = [sys.executable, "-m", "Testing.benchmarks.big", "--child", "--sweeps", str(options.sweeps)]
        command += ["--closed-form"] if options.closed_form else []
        command += [part for name, value in chosen.items() for part in (f"--{name}", str(value))]
        print(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout, end="", flush=True)


if __name__ == "__main__":
    main()
