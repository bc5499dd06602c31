"""Start the page's server, tell its address once, and stop it with Ctrl-C."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from ..errors import InputError
from .access import LOOPBACK, Access
from .session import Session


def require_packages() -> None:
    """Raise InputError where the optional packages are missing."""
    missing = [name for name in ("trame_slicer", "LayerDMLib", "slicer") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"serve needs the package {missing[0].replace('_', '-')}; in an environment of its own: "
            "pip install 'diffusionmbir[web]'"
        )


def warning_of(host: str) -> str:
    """What it means to listen elsewhere than on this computer; empty for loopback."""
    if host in LOOPBACK:
        return ""
    return (
        f"{host} can be reached from other computers, and the connection is not encrypted: whoever can read it on its "
        "way sees images and token, and who has the token can start reconstructions here.  Safer: leave --host out and "
        "use `ssh -L`"
    )


def shown(host: str) -> str:
    """What stands in the address: the name of this computer where all its addresses are listened on."""
    return socket.gethostname() if host in ("0.0.0.0", "::") else host


def listen(host: str, port: int) -> int:
    """A port that can be listened on, the one given unless that is 0.  Raises InputError where it cannot."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
            return int(trial.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port {port} of {host} is in use; name another with --port, 0 for any") from None
        raise InputError(f"{host}: cannot be listened on ({error.strerror}); leave --host out") from None


def serve_page(session: Session, host: str, port: int, tell_address: Callable[[str], None]) -> None:
    """Serve the page until the process is told to end; tell_address: called once, when the page can be opened."""
    port = listen(host, port)
    logging.getLogger("aiohttp.access").disabled = True  # what it notes of requests would hold the token
    asyncio.run(_serve(session, host, port, tell_address))


async def _serve(session: Session, host: str, port: int, tell_address: Callable[[str], None]) -> None:
    from .page import Page

    access, page = Access(), Page(session)  # whose views find the loop that they are drawn in

    def bind(wslink_server: Any) -> None:
        access.guard(wslink_server.app)
        page.add_routes(wslink_server.app)

    def ready(**_: Any) -> None:
        page.begin()
        tell_address(access.address(shown(host), port))

    page.server.controller.on_server_bind.add(bind)
    page.server.controller.on_server_ready.add(ready)
    running = asyncio.ensure_future(_started(page.server, host, port))
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # on Windows Ctrl-C raises KeyboardInterrupt
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with suppress(asyncio.CancelledError):
        await running


def _started(server: Any, host: str, port: int) -> Any:
    arguments, sys.argv = sys.argv, sys.argv[:1]  # which trame would read
    try:
        return server.start(
            exec_mode="coroutine", backend="aiohttp", host=host, port=port, timeout=0, thread=True,
            open_browser=False, show_connection_info=False, disable_logging=True,
        )  # fmt: skip
    finally:
        sys.argv = arguments
