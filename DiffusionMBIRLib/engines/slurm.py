"""A cluster with SLURM, by ``sbatch`` on this computer or through ssh on one that has it.

The folder of the job must lie on a disk that nodes and this side share, as home folders do.  A job that loses its node
is put back into the queue and goes on from its saved state.
"""

from __future__ import annotations

import sys

from ..errors import EngineError
from ..jobs.processes import BOOTSTRAP
from .link import Link
from .look import look_script
from .ssh import Ssh, ssh_failure, ssh_shell


class Slurm(Ssh):
    """Obeys :class:`DiffusionMBIRLib.engines.base.Engine`."""

    launcher = "slurm"

    def __init__(self, name: str, host: str, python: str = "", options: tuple[str, ...] = ()) -> None:
        super().__init__(name, host, python or ("" if host else sys.executable), options)
        self._host = host
        self.where = f"the cluster at {host}" if host else "the cluster"

    def connect(self) -> Link:
        own = [] if self._host else [str(BOOTSTRAP.parent.parent)]
        return Link(self.name, self.where, self.shell(), look_script(self.python, own), self.failure_of)

    def shell(self) -> list[str]:
        return ssh_shell(self._host) if self._host else ["/bin/sh", "-s"]

    def failure_of(self, said: str, code: int) -> EngineError:
        return ssh_failure(self._host or "the shell", said, code)
