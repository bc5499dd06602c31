"""``diffusionmbir report``: results as pages of HTML that can be handed on."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError
from ..monitor import Monitor
from .options import Outcome

NAME, HELP = "report", "a page of HTML for each result: pictures, intervals, how to repeat it"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results",
        type=Path,
        nargs="+",
        help="volumes that reconstruct wrote (.nrrd), folders of jobs, or a folder with a list of cases (cases.csv)",
    )
    parser.add_argument("--scan", type=Path, help="of one result: what it was reconstructed from")
    parser.add_argument("-o", "--output", type=Path, help="page of one result, or index of several (default: beside)")
    parser.add_argument("--pdf", type=Path, help="also print the page of one result, with a Chromium, Chrome or Edge")


def run(arguments: argparse.Namespace, monitor: Monitor) -> Outcome:
    """The pages, and of several results or a list of cases an index."""
    from ..page import gathered, write_page, write_pages, write_pdf
    from ..page.sources import REPORTS, sources_of

    sources, output = sources_of(arguments.results), arguments.output
    several = len(sources) > 1 or sources[0].page.parent.name == REPORTS
    for option in ("scan", "pdf"):
        if getattr(arguments, option) and several:
            raise InputError(f"--{option}: belongs to one result; make the other pages without it")
    if several:
        written = write_pages(sources, output, monitor)
    else:
        scan = None
        if arguments.scan:
            from ..io.scans import read_scan

            scan = read_scan(arguments.scan)
        [source] = sources
        written = [write_page(gathered(source.result, scan or source.scan()), output or source.page)]
        if arguments.pdf:
            written.append(write_pdf(written[0], arguments.pdf))
    names = [str(path) for path in written]
    return {"pages": names}, "\n".join(names)
