"""``diffusionmbir benchmark``: the paper's tables, on the bundled volumes or on your own."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config import PRECISIONS
from ..errors import InputError
from ..monitor import Monitor
from ..simulation.settings import Scanners, whole_name
from ..tasks import MODALITIES
from .options import Outcome, add_device

NAME, HELP = "benchmark", "the paper's tables: tasks x methods x planes"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("volumes", nargs="*", type=Path, help="volumes to scan (default: the bundled ones)")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmark-output"), help="folder (%(default)s)")
    parser.add_argument("--modality", choices=MODALITIES, default="CT", help="what the volumes are (%(default)s)")
    parser.add_argument(
        "--scanner", choices=Scanners(), help="scans of beams from a point instead: fan, cone or helical (CT)"
    )
    parser.add_argument("--quick", action="store_true", help="few scans, no method that takes many minutes")
    parser.add_argument(
        "--ablations", action="store_true", help="parts of our method taken away or changed, one by one"
    )
    parser.add_argument("--scans", nargs="+", default=(), metavar="SCAN", help="names of scans (default: all)")
    parser.add_argument("--methods", nargs="+", default=(), metavar="METHOD", help="names of methods (default: all)")
    parser.add_argument("--coarsen", type=int, default=2, help="reconstruct CT on means of so many pixels")
    parser.add_argument("--slices", type=int, default=0, help="only so many in the middle of each volume (0: all)")
    parser.add_argument("--compile", action="store_true", help="compile the network where it runs for many minutes")
    parser.add_argument("--prior", help="id or file of the prior (default: that of the presets)")
    parser.add_argument(
        "--supervised", type=Path, metavar="FOLDER", help="networks of supervised methods (default: the checkout's)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of scans and samplers")
    add_device(parser)
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of the network (default %(default)s)")


def run(arguments: argparse.Namespace, monitor: Monitor) -> Outcome:
    from ..benchmark.plan import FULL, QUICK, SCANNERS
    from ..benchmark.plots import save_plots
    from ..benchmark.results import Results, machine_record
    from ..benchmark.run import Subject, left_out, run_benchmark
    from ..benchmark.tables import write_tables
    from ..io.volumes import sample_data

    plan = (QUICK if arguments.quick else FULL)[arguments.modality]
    if arguments.scanner:
        plan = SCANNERS.get(whole_name(arguments.scanner), ()) if arguments.modality == "CT" else ()
        if not plan:
            raise InputError(f"--scanner {arguments.scanner}: no scans of it are planned; CT has {', '.join(SCANNERS)}")
    scans = [scan for scan in plan if not arguments.scans or scan.label in arguments.scans]
    if not scans:
        raise InputError(f"--scans: none of them is known; choose from {', '.join(scan.label for scan in plan)}")
    volumes = arguments.volumes or [sample_data("ct_chest.nrrd" if arguments.modality == "CT" else "mr_head.nrrd")]
    cases = [Subject(path.name.split(".")[0], path, arguments.coarsen, arguments.slices) for path in volumes]
    records = run_benchmark(
        cases,
        scans,
        arguments.output,
        quick=arguments.quick,
        ablations=arguments.ablations,
        methods=arguments.methods,
        device=arguments.device,
        precision=arguments.precision,
        prior=arguments.prior,
        seed=arguments.seed,
        compile=arguments.compile,
        supervised=arguments.supervised,
        monitor=monitor,
    )
    table = arguments.output / "results.md"
    write_tables(records, table, machine=machine_record())
    pictures = save_plots(records, Results(arguments.output))
    entries = {"output": str(arguments.output), "runs": len(records), "pictures": len(pictures)}
    text = table.read_text(encoding="utf-8").rstrip()
    missing = left_out(scans, arguments.supervised)
    return entries, text + (f"\n\nRows were left out for want of {', '.join(missing)}" if missing else "")
