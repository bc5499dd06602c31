"""Make or complete the virtual environment of a checkout; ``make`` calls this before everything else.

Needs nothing but Python and its venv module, and is written so that an outdated Python still gets as far as the
message that says so.  Where the environment is up to date it returns at once, without a word.
"""

import argparse
import glob
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST_PYTHON = (3, 10)
ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = {"cpu": ROOT / "Utilities" / "constraints-cpu.txt", "dev": ROOT / "Utilities" / "constraints-dev.txt"}
INPUTS = [ROOT / "pyproject.toml", ROOT / "DiffusionMBIRLib" / "version.py", *CONSTRAINTS.values()]
NOTE = "diffusionmbir-set-up.json"  # inside the environment: what was installed, and whether that came to its end
GPU_FILES = "/proc/driver/nvidia/gpus/*"


class SetUpError(Exception):
    """The environment cannot be made; the message is one line that says what to do."""


def missing() -> str:
    """What this Python lacks, as one line for the user; empty if nothing."""
    if sys.version_info[:2] < OLDEST_PYTHON:
        needed, found = (".".join(map(str, version)) for version in (OLDEST_PYTHON, sys.version_info[:2]))
        return f"Python {needed} or newer is needed, {sys.executable} is {found}; name another one with PYTHON=..."
    if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        return f"{sys.executable} has no venv module; install it (Debian and Ubuntu: apt install python3-venv)"
    return ""


def has_nvidia_gpu(pattern: str = GPU_FILES) -> bool:
    """True if nvidia-smi lists a GPU; where there is no such program, if the driver does."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return bool(glob.glob(pattern))
    try:
        answer = subprocess.run([program, "-L"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and b"GPU " in answer.stdout


class Environment:
    """A virtual environment at ``folder`` that holds the checkout, some of its extras and one kind of torch."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.note = folder, folder / NOTE
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        # An environment knows its own path and its Python: a copied, moved or upgraded one is made anew.
        self.base = [str(folder), *map(str, sys.version_info[:2])]

    def recorded(self) -> dict:
        """What the last set-up left here; empty if it did not come to its end or cannot be used any more."""
        try:
            entries = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        usable = isinstance(entries, dict) and entries.get("complete") and entries.get("base") == self.base
        return entries if usable and self.python.exists() else {}

    def ensure(self, extras: list, torch: str = "auto", torch_index: str = "") -> bool:
        """Bring the environment up to date with ``extras`` beside those it has; False if there was nothing to do.

        ``torch`` "auto" and an empty ``torch_index`` keep what was chosen before; another choice begins anew.
        """
        known = self.recorded()
        if torch == "auto":
            torch = known.get("torch") or ("cuda" if has_nvidia_gpu() else "cpu")
        torch_index = torch_index or known.get("torch_index", "")
        if known and (torch, torch_index) != (known["torch"], known["torch_index"]):
            known = {}
        extras = sorted(set(extras) | set(known.get("extras", [])))
        wanted = {
            "complete": True,
            "base": self.base,
            "inputs": fingerprint(INPUTS),
            "extras": extras,
            "torch": torch,
            "torch_index": torch_index,
        }
        if wanted == known:
            return False
        if known:
            print(f"set-up: bringing {self.folder.name} up to date", flush=True)
        else:
            print(f"set-up: making {self.folder.name} with torch for {torch.upper()}; takes some minutes", flush=True)
            self.create()
        self.write_note({**wanted, "complete": False})
        install = [str(self.python), "-m", "pip", "install", *pip_options(torch, torch_index)]
        run([*install, "--editable", requirement(extras)])
        found = torch_found(self.python)
        print(f"set-up: done, torch {found}", flush=True)
        if torch == "cuda" and not found.endswith("CUDA"):
            print("set-up: this torch does not use the NVIDIA GPU; name an index with CUDA builds in TORCH_INDEX=...")
        self.write_note(wanted)
        return True

    def write_note(self, entries: dict) -> None:
        """Record what the environment holds; an incomplete one is made anew by the next call."""
        self.note.write_text(json.dumps(entries, indent=1), encoding="utf-8")

    def create(self) -> None:
        """Make an empty environment in place of an incomplete or outdated one; a foreign folder is left alone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.note.exists() and any(self.folder.iterdir()):
            raise SetUpError(f"{self.folder} was not made by make; move it away or choose another with VENV=...")
        self.write_note({"complete": False})  # first of all: whatever interrupts this, the folder is known to be ours
        for entry in self.folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(str(entry))
            elif entry != self.note:
                entry.unlink()
        run([sys.executable, "-m", "venv", str(self.folder)])


def fingerprint(paths: list) -> str:
    """A digest of the files that decide what is installed."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def pip_options(torch: str, torch_index: str) -> list:
    """Which torch, from where, and which linters."""
    options = ["--disable-pip-version-check", "--no-input", "--constraint", str(CONSTRAINTS["dev"])]
    if torch == "cpu":
        options += ["--constraint", str(CONSTRAINTS["cpu"])]
    if torch_index:
        options += ["--extra-index-url", torch_index]
    return options


def requirement(extras: list) -> str:
    """The checkout with its extras as pip wants it, relative to ROOT so that any path to it will do."""
    return f".[{','.join(extras)}]" if extras else "."


def run(command: list) -> None:
    """Run a step of the set-up in the checkout; its output goes to the user."""
    done = subprocess.run(command, cwd=str(ROOT))
    if done.returncode:
        raise SetUpError(f"this step failed: {' '.join(command[1:4])}; see above")


def torch_found(python: Path) -> str:
    """What torch the environment holds: its version and whether it is built for CUDA."""
    query = "import torch; print(torch.__version__, 'for CUDA' if torch.version.cuda else 'for the CPU')"
    answer = subprocess.run([str(python), "-c", query], stdout=subprocess.PIPE, cwd=str(ROOT))
    if answer.returncode:
        raise SetUpError("the torch that was installed cannot be imported; see above")
    return answer.stdout.decode().strip()


def main() -> int:
    """Read the options and make the environment."""
    parser = argparse.ArgumentParser(description="Make or complete the virtual environment of this checkout.")
    parser.add_argument("extras", nargs="*", help="extras of pyproject.toml to install")
    parser.add_argument("--venv", default=".venv", help="its folder, relative to the checkout")
    parser.add_argument("--torch", choices=("auto", "cpu", "cuda"), default="auto", help="auto: as the machine has it")
    parser.add_argument("--torch-index", default="", help="a further package index with builds of torch")
    options = parser.parse_args()
    problem = missing()
    if problem:
        raise SetUpError(problem)
    Environment(ROOT / options.venv).ensure(options.extras, options.torch, options.torch_index)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (SetUpError, OSError) as error:
        sys.exit(f"set-up: {error}")
    except KeyboardInterrupt:
        sys.exit("set-up: interrupted; the next call begins anew")
