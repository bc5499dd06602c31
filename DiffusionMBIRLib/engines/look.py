"""The script that finds an engine on the other side and starts its agent, and what is said where there is none.

It goes through the standard input of a plain ``/bin/sh``, so that no path and no name stands on a command line.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import EngineError
from ..version import __version__

READY = "DMBIR-READY"
FOUND = "DMBIR-FOUND "
OVER = "DMBIR-OVER"
NEEDED = ("numpy", "torch", "safetensors", "SimpleITK", "h5py", "pydicom", "tifffile")
LEAST_PYTHON = (3, 10)

# Read by any Python: it becomes the agent, or says what it is and ends with 3.
_LOOK = """
import json, os, sys
wanted, needed, least, folders, found = json.loads(sys.argv[1])
root = os.environ.get("DIFFUSIONMBIR_REMOTE") or os.path.join(os.path.expanduser("~"), ".diffusionmbir")
about = {"python": sys.executable, "version": ".".join(map(str, sys.version_info[:3])), "engine": "", "lacks": []}
if list(sys.version_info[:2]) >= least:
    import importlib.util, re
    sys.path[:] = [entry for entry in sys.path if entry]
    about["lacks"] = [name for name in needed if importlib.util.find_spec(name) is None]
    places = [os.path.join(root, "engine", wanted, "DiffusionMBIRLib")] + folders
    spec = importlib.util.find_spec("DiffusionMBIRLib")
    places += [os.path.dirname(spec.origin)] if spec and spec.origin else []
    for place in places:
        try:
            with open(os.path.join(place, "version.py")) as stream:
                about["engine"] = re.search('__version__ = "([^"]*)"', stream.read()).group(1)
        except (OSError, AttributeError):
            continue
        if about["engine"] == wanted and not about["lacks"]:
            os.execv(sys.executable, [sys.executable, os.path.join(place, "jobs", "bootstrap.py"), "--agent"])
sys.stdout.write(found + json.dumps(about) + "\\n")
sys.stdout.flush()
sys.exit(3)
"""

_CANDIDATES = """
root="${DIFFUSIONMBIR_REMOTE:-$HOME/.diffusionmbir}"
"""


def in_any_python(python: str, program: str, argument: str) -> bytes:
    """A shell script that tries Pythons until one ends with another code than 3.

    python: the first one to try, before the one that we installed; '' for that one and those of the PATH.
    """
    ours = '"$root/venv/bin/python"'
    where = f"{_quoted(python)} {ours}" if python else f"{ours} python3 python"
    return (
        f"{_CANDIDATES}for python in {where}; do\n"
        '  command -v "$python" >/dev/null 2>&1 || continue\n'
        f'  "$python" -c {shlex.quote(program)} {shlex.quote(argument)}\n'
        "  code=$?\n"
        "  [ $code -eq 3 ] || exit $code\n"
        f"done\necho {OVER}\nexit 3\n"
    ).encode()


def _quoted(python: str) -> str:
    return f'"$HOME"/{shlex.quote(python[2:])}' if python.startswith("~/") else shlex.quote(python)


def look_script(python: str, folders: Sequence[str] = ()) -> bytes:
    """The script that starts an agent.  folders: packages of this software to try besides the usual places."""
    return in_any_python(python, _LOOK, json.dumps([__version__, NEEDED, LEAST_PYTHON, list(folders), FOUND]))


@dataclass(frozen=True)
class FoundPython:
    """A Python on the other side that does not serve.  engine: version of this software, '' for none."""

    python: str
    version: str
    engine: str
    lacks: tuple[str, ...]

    @property
    def is_too_old(self) -> bool:
        return tuple(int(part) for part in self.version.split(".")[:2]) < LEAST_PYTHON


def found_python(line: str) -> FoundPython | None:
    """What a line of the script tells; None for lines that others print."""
    try:
        entries = json.loads(line[len(FOUND) :]) if line.startswith(FOUND) else {}
        texts = [str(entries[name]) for name in ("python", "version", "engine")]
        return FoundPython(texts[0], texts[1], texts[2], tuple(map(str, entries["lacks"])))
    except (ValueError, KeyError, TypeError):
        return None


class NoEngine(EngineError):
    """The other side answers, but has nothing to compute with."""


def no_engine(name: str, where: str, found: Sequence[FoundPython]) -> NoEngine:
    """One line that says what is there and what to do.  name: of the engine."""
    bring = f"`diffusionmbir engine install {name}` brings it there"
    least = ".".join(map(str, LEAST_PYTHON))
    if not found:
        return NoEngine(f"{where}: no Python found there; name one, as in {_example(name)}")
    others = [python for python in found if python.engine and python.engine != __version__]
    if others:
        return NoEngine(f"{where}: has DiffusionMBIR {others[0].engine}, this computer {__version__}; {bring}")
    if all(python.is_too_old for python in found):
        seen = found[0].version
        return NoEngine(f"{where}: its Python is {seen}, {least} or newer is needed; name one, as in {_example(name)}")
    with_engine = [python for python in found if python.engine]
    if with_engine:
        lacking = ", ".join(with_engine[0].lacks)
        return NoEngine(f"{where}: {with_engine[0].python} lacks {lacking}; {bring.replace('it', 'them', 1)}")
    return NoEngine(f"{where}: has no DiffusionMBIR; {bring}")


def _example(name: str) -> str:
    kind, _, rest = name.partition(":")
    return f"{kind}:{rest.partition(':')[0]}:/path/to/python"
