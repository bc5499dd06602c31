"""The command line ``diffusionmbir``: options from the tables of settings, results on stdout, progress on stderr.

One module a verb; each offers NAME, HELP, add_options(parser) and run(arguments, monitor), which returns what --json
prints and what is printed otherwise.

Exit codes: 0 done, 1 failure (memory, disk, cancelled), 2 input that cannot be used.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

from ..errors import Cancelled, EngineError, InputError
from ..monitor import Console, Monitor, Silent
from ..names import printable, require_unicode
from ..provenance import NOTICE
from ..version import __version__
from . import (
    benchmark,
    calibrate,
    demo,
    engine,
    evaluate,
    info,
    job,
    models,
    reconstruct,
    report,
    serve,
    simulate,
    terminal,
    train,
)
from .options import Outcome


class Verb(Protocol):
    """What a module of this package offers.  Its imports cost no torch; ``run`` may load it."""

    NAME: str
    HELP: str

    def add_options(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace, monitor: Monitor) -> Outcome: ...


VERBS: tuple[Verb, ...] = (
    demo,
    simulate,
    reconstruct,
    evaluate,
    report,
    calibrate,
    job,
    engine,
    serve,
    benchmark,
    train,
    models,
    info,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.  Raises SystemExit after --help, --version and for a wrong option."""
    terminal.prepare()
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
    except SystemExit:
        if not terminal.settle():
            return 1
        raise
    except KeyboardInterrupt:
        terminal.refuse("cancelled")
        code = 1
    return code if terminal.settle() else code or 1


def _run(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    arguments.argv = argv
    monitor = Silent() if arguments.quiet else Console()
    try:
        for given in argv:
            require_unicode(given)
        entries, text = arguments.run(arguments, monitor)
    except InputError as error:
        return _fail(error, arguments, code=2)
    except (EngineError, OSError) as error:
        return _fail(error, arguments, code=1)
    except (Cancelled, KeyboardInterrupt):
        return _fail("cancelled", arguments, code=1)
    except (MemoryError, RuntimeError) as error:
        from ..priors.base import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        return _fail("memory ran out; use a smaller volume, fewer views or another device", arguments, code=1)
    if not entries and not text:  # one of many processes, of which the first one speaks
        return 0
    return 0 if terminal.put(json.dumps(entries) if arguments.json else printable(text, keep="\n\t")) else 1


def _fail(reason: object, arguments: argparse.Namespace, *, code: int) -> int:
    if arguments.json:
        terminal.put(json.dumps({"error": " ".join(str(reason).split()), "exit_code": code}))
    terminal.refuse(reason)
    return code


class _Parser(argparse.ArgumentParser):
    """Shows what was wrong in an argument without obeying it."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))

    def _print_message(self, message: str, file: Any = None) -> None:
        """The inherited one says nothing where it cannot write."""
        if file is not sys.stdout:
            terminal.tell(message.rstrip("\n"))
        elif not terminal.put(message.rstrip("\n")):
            sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="diffusionmbir", description=f"3D CT and MRI reconstruction with diffusion priors. {NOTICE}")
    parser.add_argument("--version", action="version", version=f"diffusionmbir {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for verb in VERBS:
        command = commands.add_parser(verb.NAME, help=verb.HELP, description=f"{verb.HELP[:1].upper()}{verb.HELP[1:]}.")
        verb.add_options(command)
        command.add_argument("--json", action="store_true", help="print one JSON object on stdout")
        command.add_argument("--quiet", action="store_true", help="no progress bar")
        command.set_defaults(run=verb.run)
    return parser
