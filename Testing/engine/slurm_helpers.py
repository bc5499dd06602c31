"""A cluster of one node on this computer: munged, slurmctld and slurmd with their own keys, ports and folders."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo")


def _find(name: str) -> str:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin") or ""


LACKING = "" if all(map(_find, _PROGRAMS)) and os.geteuid() == 0 else "no SLURM here, or not root, which slurmd wants"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Variables under which the commands of SLURM speak with a cluster of one node."""
    folder.mkdir()
    control, node = _free_ports(2)
    name = socket.gethostname()
    key, munge = folder / "munge.key", folder / "munge.socket"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    (folder / "slurm.conf").write_text(
        f"""ClusterName=loop
SlurmctldHost={name}(127.0.0.1)
SlurmctldPort={control}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={munge}
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
KillWait=20
NodeName={name} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
    )
    variables = {"SLURM_CONF": str(folder / "slurm.conf")}
    files = [f"--{what}={folder}/munged.{what}" for what in ("pid-file", "log-file", "seed-file")]
    daemons = [
        [_find("munged"), "--foreground", "--force", f"--key-file={key}", f"--socket={munge}", *files],
        [_find("slurmctld"), "-D"],
        [_find("slurmd"), "-D"],
    ]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command in daemons:
            log = (folder / "daemons.log").open("ab")
            environment = dict(os.environ, **variables)
            running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))
            log.close()
            _wait(lambda: munge.exists(), 20)
        _wait(lambda: "idle" in _told(["sinfo", "-h", "-o", "%T"], variables), 60)
        yield variables
    finally:
        if len(running) == len(daemons):  # a job that is left would wait for a word of the controller
            _told(["scancel", "--me", "--full", "--signal=KILL"], variables)
        for process in reversed(running):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _told(command: list[str], variables: dict[str, str]) -> str:
    done = subprocess.run(command, env=dict(os.environ, **variables), capture_output=True, text=True, timeout=60)
    return done.stdout


def _wait(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the cluster did not come up")
        time.sleep(0.1)
