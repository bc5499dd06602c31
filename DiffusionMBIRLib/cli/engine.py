"""``diffusionmbir engine``: what another computer has, bring the engine there, tidy up."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..engines import engine_of
from ..engines.install import BUILDS, about_install, install_there, wheels_in
from ..engines.ssh import Ssh
from ..errors import InputError
from ..monitor import Monitor
from ..provenance import NOTICE
from .options import Outcome, say

NAME, HELP = "engine", "test a remote engine, install one, clean up after it"
ACTIONS = ("test", "install", "clean")
OLD_S = 14 * 86400.0


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=ACTIONS, help="what is there; bring this version there; delete what ended")
    parser.add_argument("engine", help="local, ssh:HOST, slurm or slurm:HOST, with :PYTHON where it is not found")
    parser.add_argument("--yes", action="store_true", help="install: do not ask")
    parser.add_argument("--build", choices=BUILDS, default="", help="install: which torch (default: that of the index)")
    parser.add_argument(
        "--wheels",
        type=Path,
        metavar="FOLDER",
        help="install: take packages from the wheels of this folder, for a computer that has no network",
    )
    parser.add_argument("--running", action="store_true", help="clean: end jobs that run there as well")
    parser.add_argument("--all", action="store_true", help="clean: also scans that were used lately")


def run(arguments: argparse.Namespace, monitor: Monitor) -> Outcome:
    """Do the chosen action; returns what --json prints and what is printed otherwise."""
    engine = engine_of(arguments.engine)
    if arguments.action == "test":
        entries = engine.describe()
        return entries, f"{engine.where}: {_line(entries)}\n{NOTICE}"
    if not isinstance(engine, Ssh):
        raise InputError(f"engine {arguments.action}: {arguments.engine} is this computer; name ssh:HOST or slurm:HOST")
    return (_install if arguments.action == "install" else _clean)(engine, arguments)


def _line(entries: dict[str, Any]) -> str:
    devices = ", ".join(_device(device) for device in entries["devices"])
    text = f"DiffusionMBIR {entries['version']}, Python {entries['python']}, torch {entries['torch']}; {devices}"
    if "disk_free" in entries:
        text += f"; {entries['disk_free'] / 1e9:.0f} GB of disk free"
    if "cluster" in entries:
        parts = "; ".join(f"{p['name']} ({p['nodes']} nodes, {p['time']})" for p in entries["partitions"])
        text += f"\n{entries['cluster']}: {parts}"
    return text


def _device(device: dict[str, Any]) -> str:
    if not device["total"]:
        return str(device["title"])
    return f"{device['title']} with {device['free'] / 1e9:.0f} of {device['total'] / 1e9:.0f} GB free"


def _install(engine: Ssh, arguments: argparse.Namespace) -> Outcome:
    if arguments.wheels:
        wheels_in(arguments.wheels)
        if arguments.build:
            raise InputError("--build: the wheels say which torch it is; leave out --build or --wheels")
    about = about_install(engine, arguments.build)
    if not arguments.yes:
        question = (
            f"Install DiffusionMBIR {about['version']} on {about['where']} in ~/.diffusionmbir, with what is lacking "
            f"of {about['packages']} ({about['torch']})? [y/N] "
        )
        if not _agreed(question):
            raise InputError("engine install: not agreed to; --yes agrees beforehand")
    install_there(engine, build=arguments.build, wheels=arguments.wheels, tell=lambda line: say(line, arguments))
    entries = engine.describe()
    return {"installed": about["version"], **entries}, f"{engine.where}: {_line(entries)}"


def _agreed(question: str) -> bool:
    if not sys.stdin or not sys.stdin.isatty():
        return False
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _clean(engine: Ssh, arguments: argparse.Namespace) -> Outcome:
    link = engine.connect()
    try:
        older = 0.0 if arguments.all else OLD_S
        found = link.ask("clean", older_than_s=older, running=arguments.running, within_s=600.0)
    finally:
        link.close()
    entries = {name: found[name] for name in ("jobs", "running", "bytes")}
    text = f"{engine.where}: {entries['jobs']} jobs and {entries['bytes'] / 1e6:.0f} MB of scans removed"
    return entries, text + (f"; {entries['running']} jobs run on (--running ends them)" if entries["running"] else "")
