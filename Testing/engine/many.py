"""What the processes of a group do in the tests of many devices: ``python -m Testing.engine.many FOLDER``."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.many import joined
from DiffusionMBIRLib.tasks import MR_TASK
from Testing.engine import mri
from Testing.engine.helpers import ROOT, body

DUAL = ReconSettings(
    method="dual", steps=2, start_sweeps=2, cg_steps=3, device="cpu", precision="float32", preconditioner=0.1, slices_per_batch=2,
    lam=5e-3, rho=0.02,
)  # fmt: skip
DDS = replace(DUAL, method="dds", preconditioner=0.0, noise_span=3, samples=2, tv_axes="xyz", eta=0.7)
TV = replace(DUAL, method="admm-tv", tv_sweeps=3)
SHAPE = (7, 24, 20)


def cases(prior: str, prior_mr: str) -> dict[str, tuple[Any, ReconSettings]]:
    """Scans of each kind with methods that couple slices in each way."""
    volume = body(SHAPE)
    weighed = np.ones((SHAPE[0], 1, 1), np.float32)
    weighed[2] = 0.5
    parallel = replace(mbir.simulate(volume, views=8, photons=1e5), weights=weighed)
    fan, cone = (mbir.simulate(volume, scanner=kind, views=8) for kind in ("fan-beam", "cone-beam"))
    coils = mri.scan(coils=4)
    many = mbir.simulate(body((7, 128, 128)), views=62)  # the start is made on a coarser grid
    mr = replace(DUAL, prior=prior_mr, start="sense-cg", cg_iterations=5, preconditioner=0.0, sigma_start=0.2)
    ct = {name: replace(settings, prior=prior) for name, settings in {"dual": DUAL, "dds": DDS, "tv": TV}.items()}
    return {
        "parallel, dual": (parallel, ct["dual"]),
        "parallel, dds": (parallel, ct["dds"]),
        "parallel, mbir": (parallel, replace(ct["dds"], method="mbir", samples=1, tv_axes="z", steps=2)),
        "parallel, many views": (many, replace(ct["dual"], steps=1, start_sweeps=1)),
        "fan, dual": (fan, replace(ct["dual"], noise_span=3)),
        "fan, fbp": (fan, replace(ct["tv"], method="fbp")),
        "cone, dual": (cone, ct["dual"]),
        "cone, tv": (cone, ct["tv"]),
        "cone, os-sart": (cone, replace(ct["tv"], method="os-sart", sart_passes=2, subsets=3)),
        "coils, dual": (coils, mr),
        "coils, dds": (replace(coils, task=MR_TASK), replace(mr, method="dds", start="admm-tv", tv_axes="xyz")),
        "coils, few": (coils, replace(mr, method="sense-cg", virtual_coils=2)),
    }


def work(folder: Path) -> None:
    """Reconstruct all cases in slabs; the first process keeps the volumes."""
    found = {}
    with joined("cpu") as group:
        for name, (scan, settings) in pickle.loads((folder / "cases").read_bytes()).items():
            began = time.perf_counter()
            slabs = group.slabs_of(scan)
            result = mbir.reconstruct(scan, settings=settings, slabs=slabs)
            if group.first:
                print(
                    name, round(time.perf_counter() - began, 2), getattr(slabs, "seconds", 0), getattr(slabs, "sent", 0)
                )
            deviation = None if result.deviation is None else result.deviation.array
            found[name] = (result.volume, deviation, result.residual, result.nfe)
        if group.first:
            (folder / f"found-{group.size}").write_bytes(pickle.dumps(found))


def started(count: int, *arguments: Any, module: str = "Testing.engine.many") -> list[subprocess.Popen[str]]:
    """Processes of a group, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    common = os.environ | known | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)], cwd=ROOT, text=True, stderr=subprocess.PIPE,
            stdout=subprocess.PIPE, env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]  # fmt: skip


if __name__ == "__main__":
    work(Path(sys.argv[1]))
