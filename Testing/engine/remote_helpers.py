"""An ssh server of one's own on this computer: its own keys, port, configuration and place for jobs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from Testing.engine.helpers import ROOT

SSHD = shutil.which("sshd") or next((p for p in ("/usr/sbin/sshd",) if os.path.isfile(p)), "")
LACKING = "" if SSHD and shutil.which("ssh") and shutil.which("ssh-keygen") else "no OpenSSH server here"


@dataclass
class Server:
    """folder: of keys and configuration; root: what DIFFUSIONMBIR_REMOTE is there."""

    folder: Path
    port: int
    root: Path
    process: subprocess.Popen[bytes] | None = None
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def ssh(self) -> str:
        return f"ssh -F {self.folder / 'config'}"

    def start(self) -> None:
        command = [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log, start_new_session=True)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise RuntimeError((self.folder / "sshd.log").read_text())

    def connections(self) -> list[int]:
        """The processes that serve a connection each."""
        assert self.process is not None
        return [pid for pid, parent in _parents().items() if parent == self.process.pid]

    def children(self, pid: int) -> list[int]:
        """All processes below one."""
        return _children(pid)

    def break_connections(self) -> int:
        """Kill whoever serves a connection, as a network that breaks would; returns how many there were."""
        broken = self.connections()
        for pid in broken:
            for each in [*_children(pid), pid]:
                if b"sshd" in _command(each):
                    with suppress(ProcessLookupError):
                        os.kill(each, signal.SIGKILL)
        return len(broken)

    def break_next_connection(self, within_s: float = 30.0) -> bool:
        """Kill whoever serves a connection as soon as there is one; returns whether there was."""
        end = time.monotonic() + within_s
        while not (broken := self.break_connections()) and time.monotonic() < end:
            time.sleep(0.05)
        return broken > 0

    def stop(self) -> None:
        if self.process is not None:
            self.break_connections()
            self.process.kill()
            self.process.wait()
            self.process = None

    def left(self) -> list[str]:
        """Command lines of processes that have to do with this place, but for the server itself."""
        mine = str(self.folder).encode()
        known = {os.getpid(), self.process.pid if self.process else 0}
        found = {pid: _command(pid) for pid in _parents() if pid not in known}
        marked = str(self.root).encode()
        return [c.decode("utf-8", "replace") for pid, c in found.items() if mine in c or marked in _environment(pid)]

    def wait_until_left(self, within_s: float = 15.0) -> list[str]:
        """What is left after a while: nothing, if all is well."""
        end = time.monotonic() + within_s
        while (left := self.left()) and time.monotonic() < end:
            time.sleep(0.05)
        return left


def one_more_step(root: Path) -> None:
    """Let the one job that is paused under a root there go on by a step or two, however fast this computer is.

    Its worker obeys both lines at once: where it has not seen the first one, it is asked again.
    """
    (commands,) = (root / "jobs").glob("*/commands.txt")
    events = commands.with_name("events.jsonl")

    def told() -> int:
        return events.read_text().count('"progress"')

    before, end = told(), time.monotonic() + 60
    while told() == before:
        assert time.monotonic() < end, "the job there does not go on"
        with commands.open("a") as stream:
            stream.write("resume\npause\n")
        time.sleep(0.2)


def _parents() -> dict[int, int]:
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            rest = path.read_text().rpartition(")")[2].split()
            if rest[0] != "Z":
                found[int(path.parent.name)] = int(rest[1])
    return found


def _children(pid: int) -> list[int]:
    below = [child for child, parent in _parents().items() if parent == pid]
    return [*below, *(deeper for child in below for deeper in _children(child))]


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _environment(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes()
    return b""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=20)
    return path


@contextmanager
def server(folder: Path, **variables: str) -> Iterator[Server]:
    """A running server for the present user; hosts of its configuration: 'there', 'stranger' (unknown host key),
    'locked' (a key that is not accepted).
    """
    folder.mkdir(mode=0o700)
    host, mine, other = (_key(folder / name) for name in ("host", "mine", "other"))
    port, root = _free_port(), folder / "remote"
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "accepted").write_text(mine.with_suffix(".pub").read_text())
    (folder / "accepted").chmod(0o600)
    kind, public = host.with_suffix(".pub").read_text().split()[:2]
    (folder / "known").write_text(f"[127.0.0.1]:{port} {kind} {public}\n")
    (folder / "unknown").write_text("")
    told = {"DIFFUSIONMBIR_REMOTE": str(root), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    told |= {"XDG_DATA_HOME": str(folder / "data"), **variables}
    set_env = " ".join(f'"{name}={value}"' for name, value in told.items())
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host}\nAuthorizedKeysFile {folder / 'accepted'}\n"
        f"PidFile none\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nStrictModes no\n"
        f"PermitRootLogin prohibit-password\nLogLevel ERROR\nMaxStartups 100\nSetEnv {set_env}\n"
    )
    common = f"  HostName 127.0.0.1\n  Port {port}\n  IdentitiesOnly yes\n  StrictHostKeyChecking yes\n"
    (folder / "config").write_text(
        f"Host there\n{common}  IdentityFile {mine}\n  UserKnownHostsFile {folder / 'known'}\n"
        f"Host stranger\n{common}  IdentityFile {mine}\n  UserKnownHostsFile {folder / 'unknown'}\n"
        f"Host locked\n{common}  IdentityFile {other}\n  UserKnownHostsFile {folder / 'known'}\n"
        "Host nobody\n  HostName nobody.invalid\n"
        f"Host silent\n  HostName 127.0.0.1\n  Port {_free_port()}\n"
    )
    here = Server(folder, port, root)
    here.start()
    try:
        yield here
    finally:
        here.stop()


def package_there(root: Path, version: str) -> None:
    """Put this very software where an installed engine is looked for."""
    place = root / "engine" / version
    place.mkdir(parents=True)
    for name in ("DiffusionMBIRLib", "Resources"):
        (place / name).symlink_to(ROOT / name)


PYTHON = sys.executable
