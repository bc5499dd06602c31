"""``diffusionmbir report``: results as pages of HTML that can be handed on."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError
from ..monitor import Monitor
from .options import Outcome

NAME, HELP = "report", "a page of HTML for each result: pictures, intervals, how to repeat it"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, nargs="+", help="volumes that reconstruct wrote (.nrrd)")
    parser.add_argument("--scan", type=Path, help="of one result: what it was reconstructed from")
    parser.add_argument("-o", "--output", type=Path, help="page of one result, or index of several (default: beside)")
    parser.add_argument("--pdf", type=Path, help="also print the page of one result, with a Chromium, Chrome or Edge")


def run(arguments: argparse.Namespace, monitor: Monitor) -> Outcome:
    """The pages, and of several results an index."""
    from ..page import gathered, write_index, write_page, write_pdf

    results = arguments.results
    for option in ("scan", "pdf"):
        if getattr(arguments, option) and len(results) > 1:
            raise InputError(f"--{option}: belongs to one result; make the other pages without it")
    scan = None
    if arguments.scan:
        from ..io.scans import read_scan

        scan = read_scan(arguments.scan)
    pages = []
    for number, result in enumerate(results):
        monitor.tick("pages", number, len(results))
        content = gathered(result, scan)
        target = arguments.output if arguments.output and len(results) == 1 else result.with_suffix(".html")
        pages.append((write_page(content, target), content))
    monitor.tick("pages", len(results), len(results))
    written = [str(page) for page, _ in pages]
    if arguments.pdf:
        written.append(str(write_pdf(pages[0][0], arguments.pdf)))
    if len(results) > 1:
        index = arguments.output or results[0].parent / "index.html"
        written.append(str(write_index(pages, index)))
    return {"pages": written}, "\n".join(written)
