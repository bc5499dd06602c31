"""A process that reads damaged files, one after the other: requests on stdin, findings on stdout, a JSON line each."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

from DiffusionMBIRLib.errors import EngineError, InputError
from Testing.fuzz.kinds import KINDS
from Testing.fuzz.mutations import mutated

MEMORY = 2 << 30  # bytes above what the process has when it begins


def main() -> None:
    """Answer requests {"kind", "seed"} by {"finding": text, empty if all is well}; ends with its input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what anybody prints goes where complaints go
    warnings.simplefilter("always")
    originals = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        places = {}
        for k, (name, kind) in enumerate(KINDS.items()):
            (originals / str(k)).mkdir()
            places[name] = kind.make(originals / str(k)).relative_to(originals / str(k))
            kind.read(originals / str(k) / places[name])  # as it is, it can be read
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        answers.write(json.dumps({"ready": True}) + "\n")
        answers.flush()
        for line in sys.stdin:
            asked = json.loads(line)
            number = list(KINDS).index(asked["kind"])
            finding = tried(asked["kind"], asked["seed"], originals / str(number), places[asked["kind"]])
            answers.write(json.dumps({"finding": finding}) + "\n")
            answers.flush()
    finally:
        shutil.rmtree(originals, ignore_errors=True)


def tried(name: str, seed: int, original: Path, place: Path) -> str:
    """What is wrong with how a damaged copy is read, '' if nothing."""
    kind = KINDS[name]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, tempfile.TemporaryFile() as told:
        copy = Path(folder) / "copy"
        shutil.copytree(original, copy)
        victim = kind.hit(copy / place)
        rng = random.Random(f"{name} {seed}")
        victim.write_bytes(kind.where(victim.read_bytes(), lambda content: mutated(content, rng)))
        sys.stderr.flush()
        console = os.dup(2)
        os.dup2(told.fileno(), 2)
        try:
            finding = outcome(name, copy / place)
        finally:
            sys.stderr.flush()
            os.dup2(console, 2)
            os.close(console)
        told.seek(0)
        printed = told.read().decode(errors="replace").strip()
    return finding or (f"prints beside its error: {printed[:600]}" if printed else "")


def outcome(name: str, path: Path) -> str:
    """Reads the file; only the errors that a user can understand may come out of it."""
    try:
        KINDS[name].read(path)
    except (InputError, EngineError) as error:
        return f"more than one line: {error}" if "\n" in str(error).strip() else ""
    except MemoryError:
        return "memory: " + traceback.format_exc()[-1500:]
    except Exception:
        return "traceback: " + traceback.format_exc()[-1500:]
    return ""


if __name__ == "__main__":
    main()
