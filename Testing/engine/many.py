"""What the processes of a group do in the tests of many devices: ``python -m Testing.engine.many FOLDER``."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.config import ReconSettings
from DiffusionMBIRLib.errors import Cancelled
from DiffusionMBIRLib.jobs.slab_states import SlabStates, key_of
from DiffusionMBIRLib.many import Group, joining
from DiffusionMBIRLib.monitor import Silent
from DiffusionMBIRLib.tasks import MR_TASK
from Testing.engine import mri
from Testing.engine.helpers import ROOT, body

DUAL = ReconSettings(
    method="dual", steps=2, start_sweeps=2, cg_steps=3, device="cpu", precision="float32", preconditioner=0.1,
    slices_per_batch=2, lam=5e-3, rho=0.02,
)  # fmt: skip
DDS = replace(DUAL, method="dds", preconditioner=0.0, noise_span=3, samples=2, tv_axes="xyz", eta=0.7)
TV = replace(DUAL, method="admm-tv", tv_sweeps=3)
SHAPE = (7, 24, 20)
RESUMED = ("parallel, dual", "parallel, dds", "cone, dual", "coils, dual")


def cases(prior: str, prior_mr: str) -> dict[str, tuple[Any, ReconSettings]]:
    """Scans of each kind with methods that couple slices in each way."""
    volume = body(SHAPE)
    weighed = np.ones((SHAPE[0], 1, 1), np.float32)
    weighed[2] = 0.5
    parallel = replace(mbir.simulate(volume, views=8, photons=1e5), weights=weighed)
    fan, cone = (mbir.simulate(volume, scanner=kind, views=8) for kind in ("fan-beam", "cone-beam"))
    coils = mri.scan(coils=4)
    many = mbir.simulate(body((7, 32, 32)), views=62)  # the start is made of half of them
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


class Stop(Silent):
    """Ends a run after a step of the sampler."""

    def tick(self, stage: str, done: int, total: int, **metrics: float) -> None:
        if (stage, done) == ("diffusion", 1):
            raise Cancelled


def states(folder: Path, group: Group, scan: Any, settings: ReconSettings) -> SlabStates:
    return SlabStates(folder, group.slabs_of(scan), scan.grid.shape[0], key_of(scan, settings), share=1.0)


def interrupted(folder: Path, group: Group, scan: Any, settings: ReconSettings) -> None:
    """A run that ends after its first step and leaves its state."""
    with suppress(Cancelled):
        keeper, slabs = states(folder, group, scan, settings), group.slabs_of(scan)
        mbir.reconstruct(scan, settings=settings, slabs=slabs, monitor=Stop(), checkpoint=keeper)


def taken_up(folder: Path, group: Group, scan: Any, settings: ReconSettings) -> Any:
    """What the run gives that goes on from there."""
    keeper, slabs = states(folder, group, scan, settings), group.slabs_of(scan)
    assert keeper.load("diffusion") is not None
    return mbir.reconstruct(scan, settings=settings, slabs=slabs, checkpoint=keeper)


def work(folder: Path) -> None:
    """Reconstruct all cases in slabs of four, half of them in slabs of two by each pair of processes; the first process
    keeps what four gave, the first of each pair what that gave.
    """
    todo = pickle.loads((folder / "cases").read_bytes())
    found: dict[str, Any] = {}
    with joining("cpu") as four:
        pairs = [dist.new_group([0, 1]), dist.new_group([2, 3])]
        two = Group(four.rank % 2, 2, "cpu", pairs[four.rank // 2])
        for name, (scan, settings) in todo.items():
            slabs: Any = four.slabs_of(scan)
            found[f"4: {name}"] = mbir.reconstruct(scan, settings=settings, slabs=slabs)
            found[f"sent: {name}"] = slabs.sent
        for number, (name, (scan, settings)) in enumerate(todo.items()):
            if number % 2 == four.rank // 2:
                found[f"2: {name}"] = mbir.reconstruct(scan, settings=settings, slabs=two.slabs_of(scan))
        for name in RESUMED:
            found[f"1 to 4: {name}"] = taken_up(folder / f"1 {name}", four, *todo[name])
            interrupted(folder / f"4 {name}", four, *todo[name])
            if four.first:
                shutil.copytree(folder / f"4 {name}", folder / f"4 copied {name}")
            dist.barrier()
            if four.rank < 2:
                found[f"4 to 2: {name}"] = taken_up(folder / f"4 {name}", two, *todo[name])
        if two.first:
            kept = found if four.first else {name: found[name] for name in found if name.startswith("2")}
            (folder / f"found-{four.rank}").write_bytes(pickle.dumps(kept))


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
