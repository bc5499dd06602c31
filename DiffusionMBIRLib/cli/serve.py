"""``diffusionmbir serve``: a page in the browser, of a computer that has no screen."""

from __future__ import annotations

import argparse
import json
import os
from contextlib import suppress
from pathlib import Path

from ..errors import InputError
from ..jobs.folder import jobs_root
from ..monitor import Monitor
from . import terminal
from .options import Outcome, add_device, add_engine, engine_options, say

NAME, HELP = "serve", "reconstruct in the browser: a page with slice views, of a computer without a screen"
_PORT = 8400


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is offered, where results go, and where the page can be opened."""
    parser.add_argument("input", nargs="+", type=Path, help="volumes, scans, and folders of them; nothing else is seen")
    parser.add_argument("-o", "--output", type=Path, default=Path("."), help="folder of results (default: this one)")
    parser.add_argument("--port", type=int, default=_PORT, help=f"port of the page (default {_PORT}; 0: any)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this computer alone)")
    parser.add_argument("--folder", type=Path, help="where jobs lie (default: $DIFFUSIONMBIR_JOBS or your data folder)")
    add_device(parser)
    add_engine(parser)


def run(arguments: argparse.Namespace, monitor: Monitor) -> Outcome:
    """Serve until Ctrl-C; prints the address, with the token in it, once."""
    from ..serve.server import require_packages, serve_page, warning_of
    from ..serve.session import Session
    from ..serve.sources import Sources

    require_packages()
    if not 0 <= arguments.port < 1 << 16:
        raise InputError(f"--port must be between 0 and 65535, not {arguments.port}")
    output = arguments.output.absolute()
    if not output.is_dir() or not os.access(output, os.W_OK):
        raise InputError(f"{output}: is no folder that can be written to; make it first, or name another with -o")
    root = arguments.folder.absolute() if arguments.folder else jobs_root()
    session = Session(Sources(arguments.input), output, root, engine=engine_options(arguments), device=arguments.device)
    warning = warning_of(arguments.host)
    if warning:
        terminal.tell(f"diffusionmbir: warning: {warning}")

    def tell_address(address: str) -> None:
        terminal.put(json.dumps({"address": address}) if arguments.json else address)
        terminal.settle()
        say("Open this address in a browser; Ctrl-C ends the server.", arguments)

    with suppress(KeyboardInterrupt):
        serve_page(session, arguments.host, arguments.port, tell_address)
    last = session.close()
    if last:
        say(last, arguments)
    whole = terminal.settle()
    os._exit(0 if whole else 1)  # what VTK does at the usual end of a process may not come to an end itself
