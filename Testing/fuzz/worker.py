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
    """Answer requests {"kind", "seed"} by {"finding": text, empty if all is well}; ends with its input.

    Before the first answer of a kind {"ready": kind} tells that its sound file was made.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what anybody prints goes where complaints go
    warnings.simplefilter("always")
    originals = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        places: dict[str, Path] = {}
        for line in sys.stdin:
            asked = json.loads(line)
            name = asked["kind"]
            original = originals / str(list(KINDS).index(name))
            if name not in places:
                places[name] = made(name, original)
                answers.write(json.dumps({"ready": name}) + "\n")
                answers.flush()
            answers.write(json.dumps({"finding": tried(name, asked["seed"], original, places[name])}) + "\n")
            answers.flush()
    finally:
        shutil.rmtree(originals, ignore_errors=True)


def made(name: str, folder: Path) -> Path:
    """The place of a sound file of a kind, made in a folder; from here on memory is limited beside what that took."""
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    folder.mkdir()
    place = KINDS[name].make(folder)
    KINDS[name].read(place)  # as it is, it can be read
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, most))
    return place.relative_to(folder)


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
