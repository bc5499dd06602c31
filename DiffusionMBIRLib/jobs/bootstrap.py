"""Started by path in any Python: ``python bootstrap.py FOLDER`` runs the job of a folder with this very engine,
``python bootstrap.py --wait SECONDS DEVICE`` gets ready for one and waits until a folder is named.  ``--detached
FOLDER`` runs a job without a client, ``--agent`` serves somebody at the other end of a connection.

The package is taken from where this file lies, whatever else that Python has installed under its name, and neither this
folder nor its parent comes onto sys.path, where their names would shadow others.
"""

import os
import sys

# The working directory is the job's folder: a file in it is no module.  First of all, since what follows is searched.
sys.path[:] = [entry for entry in sys.path if entry and os.path.realpath(entry) != os.path.realpath(os.curdir)]

# Threads that wait for each other sleep instead of spinning: beside other work on the same cores, as in Slicer, whoever
# spins keeps those from working that he waits for.  Read when the library of threads is loaded, so it must be set here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import importlib.util  # noqa: E402
from pathlib import Path  # noqa: E402


def load() -> None:
    """Import the package DiffusionMBIRLib from the folder above."""
    package = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(
        package.name, package / "__init__.py", submodule_search_locations=[str(package)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"no package in {package}", name=package.name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[package.name] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != here]
    load()
    if sys.argv[1] == "--wait":
        from DiffusionMBIRLib.jobs.waiting import wait_for_job

        code = wait_for_job(float(sys.argv[2]), sys.argv[3])
    elif sys.argv[1] == "--detached":
        from DiffusionMBIRLib.jobs.detached import run_detached

        code = run_detached(sys.argv[2])
    elif sys.argv[1] == "--agent":
        from DiffusionMBIRLib.engines.agent import run_agent

        code = run_agent()
    else:
        from DiffusionMBIRLib.jobs.worker import main

        code = main(sys.argv[1])
    os._exit(code)  # all is said and written: nothing that a library does at exit may hold it up
