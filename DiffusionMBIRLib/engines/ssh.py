"""Another computer, through the user's own ``ssh``: keys, jump hosts and multiplexing are those of ~/.ssh/config."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import EngineError
from .base import Unreachable
from .link import Link
from .look import look_script

if TYPE_CHECKING:
    from ..jobs.control import Control
    from ..jobs.folder import JobFolder
    from ..jobs.messages import Event
    from .base import Runs

# No question can be answered, a computer that died is noticed within 15 s, and nothing but the shell is wanted.
_OPTIONS = {
    "BatchMode": "yes", "ConnectTimeout": "15", "ServerAliveInterval": "5", "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes", "ForwardAgent": "no", "ForwardX11": "no", "RemoteCommand": "none",
}  # fmt: skip
_NO_CONNECTION = 255


class Ssh:
    """Obeys :class:`DiffusionMBIRLib.engines.base.Engine`."""

    launcher = "process"

    def __init__(self, name: str, host: str, python: str = "", options: tuple[str, ...] = ()) -> None:
        self.name, self.where, self.options = name, host, options
        self._python = python

    def task(self, folder: JobFolder, control: Control, send: Callable[[Event], None]) -> Runs:
        from .relay import Relay

        return Relay(self, folder, control, send)

    def describe(self) -> dict[str, Any]:
        link = self.connect()
        try:
            entries: dict[str, Any] = link.ask("describe", launcher=self.launcher)["machine"]
            return entries
        finally:
            link.close()

    def connect(self) -> Link:
        """A connection to an agent.  Raises Unreachable and EngineError in one line."""
        return Link(self.name, self.where, self.shell(), look_script(self._python), self.failure_of)

    def shell(self) -> list[str]:
        """The command that is a shell there."""
        return ssh_shell(self.where)

    @property
    def python(self) -> str:
        """The Python that the user named, '' where it is to be found."""
        return self._python

    def failure_of(self, said: str, code: int) -> EngineError:
        return ssh_failure(self.where, said, code)


def ssh_shell(host: str) -> list[str]:
    """A plain shell on a host.  $DIFFUSIONMBIR_SSH: another command than ``ssh``, with options."""
    command = shlex.split(os.environ.get("DIFFUSIONMBIR_SSH") or "ssh", posix=os.name == "posix")
    options = [word for key, value in _OPTIONS.items() for word in ("-o", f"{key}={value}")]
    return [*command, "-T", *options, "--", host, "exec /bin/sh -s"]


def ssh_failure(host: str, said: str, code: int) -> EngineError:
    """One line for what ssh printed before it ended."""
    for mark, kind, text in _FAILURES:
        if mark.lower() in said.lower():
            return kind(f"{host}: {text.format(host=host)}")
    last = next((line for line in reversed(said.splitlines()) if line), "")
    if code == _NO_CONNECTION or code < 0:
        return Unreachable(f"{host}: the connection broke ({last or 'without a word'})")
    return EngineError(f"{host}: the shell there ended before the engine was up ({last or f'exit code {code}'})")


_CHECK = "connect once by `ssh {host}` in a terminal"
_FAILURES: tuple[tuple[str, type[EngineError], str], ...] = (
    ("Could not resolve hostname", Unreachable, "no computer of this name is known; check it, or ~/.ssh/config"),
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", EngineError,
     "its host key is not the one of ~/.ssh/known_hosts; find out why before you connect"),
    ("Host key verification failed", EngineError, f"its host key is not known here; {_CHECK} and compare it"),
    ("Permission denied", EngineError,
     f"your key is not accepted there; {_CHECK}, which must work without a question (ssh-agent, ssh-copy-id)"),
    ("Too many authentication failures", EngineError,
     "too many keys were tried; name one with IdentityFile in ~/.ssh/config"),
    ("Bad configuration option", EngineError, "~/.ssh/config cannot be read by this ssh; `ssh {host}` says where"),
    ("Bad owner or permissions", EngineError, "~/.ssh/config may be written by others; `ssh {host}` says which file"),
    ("Connection refused", Unreachable, "refuses the connection; is its ssh server running?"),
    ("timed out", Unreachable, "does not answer; is it running, and is the network up?"),
    ("Timeout, server", Unreachable, "does not answer any more"),
    ("No route to host", Unreachable, "cannot be reached; is the network up?"),
    ("Network is unreachable", Unreachable, "cannot be reached; is the network up?"),
    ("No space left on device", EngineError, "the disk there is full; make room and try again"),
)  # fmt: skip
