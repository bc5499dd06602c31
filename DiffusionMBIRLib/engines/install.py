"""Brings this software to another computer, with a virtual environment for what it needs; asked for by the user only.

The packages come from the index that pip uses there or, without a network there, from wheels in a folder here.  These
and our own code go through the connection.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..errors import EngineError, InputError, one_line
from ..models import resources, sha256
from ..version import __version__
from .link import end_shell, open_shell
from .look import LEAST_PYTHON, OVER, in_any_python, no_engine
from .ssh import Ssh

BUILDS = ("", "cpu", "cu126", "cu128", "cu130")  # of torch: that of the usual index, and those of torch's own
_SAYS, _ENDED, _WANTS = "DMBIR-SAYS ", "DMBIR-ENDED ", "DMBIR-WANTS"
_FOLDERS = ("Calibrations", "Models", "Presets", "SampleData")

# Run by the Python that is to compute, or to make an environment.  Ends with 3 where another one may do.
_INSTALL = """
import hashlib, io, json, os, platform, re, shutil, subprocess, sys, tarfile
version, wanted, least, build, size, wheels, says, ended, wants = json.loads(sys.argv[1])
def say(text):
    sys.stdout.write(says + " ".join(str(text).split()) + "\\n")
    sys.stdout.flush()
def run(*command):
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    last = ""
    for line in process.stdout:
        last = line.decode("utf-8", "replace").strip() or last
        say(last)
    if process.wait():
        raise RuntimeError(last)
def want(name, offset=0):
    sys.stdout.write(wants + json.dumps([name, offset]) + "\\n")
    sys.stdout.flush()
def fetch(name, size, digest):
    path = os.path.join(root, "wheels", name)
    with open(path, "ab") as stream:
        have = stream.tell()
        if have > size:
            stream.truncate(0)
            have = 0
        if have < size:
            want(name, have)
        while have < size:
            piece = sys.stdin.buffer.read(min(size - have, 1 << 20))
            if not piece:
                raise RuntimeError("the connection ended")
            stream.write(piece)
            have += len(piece)
    summed = hashlib.sha256()
    with open(path, "rb") as stream:
        for piece in iter(lambda: stream.read(1 << 20), b""):
            summed.update(piece)
    if summed.hexdigest() != digest:
        os.remove(path)
        raise RuntimeError(name + " arrived damaged; install once more")
def numbers(text):
    return [int(part) for part in re.match("[0-9]+(?:[.][0-9]+)*", text).group().split(".")]
def lacking():
    import importlib.metadata
    missing = []
    for name, lowest in wanted:
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = ""
        if not found or (lowest and numbers(found) < numbers(lowest)):
            missing.append(name + (">=" + lowest if lowest else ""))
    return missing
if list(sys.version_info[:2]) < least:
    sys.exit(3)
os.umask(0o077)
root = os.environ.get("DIFFUSIONMBIR_REMOTE") or os.path.join(os.path.expanduser("~"), ".diffusionmbir")
asked_of_pip = []
place, new = os.path.join(root, "engine", version), os.path.join(root, "engine", ".new")
try:
    shutil.rmtree(new, ignore_errors=True)
    os.makedirs(new)
    want("")
    with tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read(size)), mode="r:gz") as archive:
        for member in archive:
            target = os.path.join(new, member.name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with archive.extractfile(member) as source, open(target, "wb") as stream:
                shutil.copyfileobj(source, stream)
    missing = lacking()
    if missing and wheels:
        os.makedirs(os.path.join(root, "wheels"), exist_ok=True)
        for each in wheels:
            fetch(*each)
    if missing:
        say("makes an environment in " + os.path.join(root, "venv") + " for " + ", ".join(missing))
        venv = os.path.join(root, "venv")
        if os.path.realpath(sys.prefix) != os.path.realpath(venv):
            run(sys.executable, "-m", "venv", "--system-site-packages", venv)
        pip = [os.path.join(venv, "bin", "python"), "-m", "pip", "install", "--disable-pip-version-check",
               "--progress-bar", "off"]
        if wheels:
            pip += ["--no-index", "--find-links", os.path.join(root, "wheels")]
        asked_of_pip = missing
        own = [text for text in missing if build and text.startswith("torch")]
        if own:
            run(*(pip + own + ["--index-url", "https://download.pytorch.org/whl/" + build]))
        rest = [text for text in missing if text not in own]
        if rest:
            run(*(pip + rest))
    shutil.rmtree(place, ignore_errors=True)
    os.rename(new, place)
    shutil.rmtree(os.path.join(root, "wheels"), ignore_errors=True)
    said = ""
except Exception as error:
    shutil.rmtree(new, ignore_errors=True)
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
here = [platform.system(), platform.machine(), "%d.%d" % sys.version_info[:2], asked_of_pip]
sys.stdout.write(ended + json.dumps([said, here]) + "\\n")
sys.stdout.flush()
"""


def requirements() -> list[tuple[str, str]]:
    """(name, least version or '') of each package that an engine needs."""
    found = []
    for line in (resources() / "requirements.txt").read_text(encoding="utf-8").splitlines():
        match = re.match(r"([A-Za-z0-9_.-]+)\s*(?:>=\s*([0-9.]+))?\s*(;.*)?$", line.split("#")[0].strip())
        if match and not match[3]:  # those with a marker are for Pythons that are old
            found.append((match[1], match[2] or ""))
    return found


def install_there(
    engine: Ssh, *, build: str = "", wheels: Path | None = None, tell: Callable[[str], None] = lambda line: None
) -> None:
    """Bring this version there, and the packages that its Python lacks into an environment of its own.

    build: of torch, one of BUILDS.  wheels: a folder of this computer that the packages are taken from, for a computer
    without a network; what a broken connection left of them there is not sent again.  tell: called with lines that say
    how far it is.  Raises EngineError in one line, InputError for a folder without wheels.
    """
    content, found = package(), wheels_in(wheels) if wheels is not None else []
    described = [(path.name, path.stat().st_size, sha256(path)) for path in found]
    wanted = [__version__, requirements(), LEAST_PYTHON, build, len(content), described]
    argument = json.dumps([*wanted, _SAYS, _ENDED, _WANTS])
    process = open_shell(engine.shell())
    errors: list[str] = []
    listening = threading.Thread(target=_listen, args=(cast("BinaryIO", process.stderr), errors), daemon=True)
    listening.start()
    incoming, outgoing = cast("BinaryIO", process.stdout), cast("BinaryIO", process.stdin)
    try:
        with suppress(OSError):
            outgoing.write(in_any_python(engine.python, _INSTALL, argument))
            outgoing.flush()
        for raw in incoming:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            if line.startswith(_WANTS):
                name, offset = json.loads(line[len(_WANTS) :])
                tell(f"sends {name or f'DiffusionMBIR {__version__}'} to {engine.where}")
                path = next((path for path in found if path.name == name), None)
                with suppress(OSError), path.open("rb") if path else io.BytesIO(content) as source:
                    source.seek(int(offset))
                    shutil.copyfileobj(source, outgoing)
                    outgoing.flush()
            elif line.startswith(_SAYS):
                tell(line[len(_SAYS) :])
            elif line == OVER:
                raise no_engine(engine.name, engine.where, [])
            elif line.startswith(_ENDED):
                said, about = json.loads(line[len(_ENDED) :])
                if said:
                    advice = by_wheels(engine.name, *about) if about[-1] else ""
                    raise EngineError(
                        f"{engine.where}: the installation did not succeed ({one_line(said, 120)}){advice}"
                    )
                return
        process.wait()
        listening.join(1.0)
        raise engine.failure_of("\n".join(errors), process.returncode)
    finally:
        end_shell(process)


def wheels_in(folder: Path) -> list[Path]:
    """The wheels of a folder; raises InputError where there are none."""
    found = sorted(folder.glob("*.whl")) if folder.is_dir() else []
    if not found:
        raise InputError(f"{folder}: holds no wheels (.whl); `pip download --dest {folder}` brings them there")
    return found


def by_wheels(name: str, system: str, machine: str, python: str, missing: list[str]) -> str:
    """What to type where pip found no way: wheels for a Python of a system, brought here and taken along."""
    platforms = [f"manylinux_2_28_{machine}", f"manylinux2014_{machine}"]
    if system != "Linux":
        platforms = [f"macosx_14_0_{machine}", f"macosx_11_0_{machine}"]
    chosen = " ".join(f"--platform {each}" for each in platforms)
    wanted = " ".join(package.partition(">=")[0] for package in missing)
    return (
        f"; without a network there, type here: `pip download --dest wheels --only-binary :all: "
        f"--python-version {python} {chosen} {wanted}` and `diffusionmbir engine install {name} --wheels wheels`"
    )


def _listen(errors: BinaryIO, lines: list[str]) -> None:
    with suppress(OSError, ValueError):
        for line in errors:
            lines.append(line.decode("utf-8", "replace").strip())


def package() -> bytes:
    """Our software as a compressed archive: code, priors, presets, calibrations."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        own = Path(__file__).resolve().parent.parent
        for path in sorted(own.rglob("*")):
            inside = path.relative_to(own)
            if path.is_file() and path.suffix != ".pyc" and inside.parts[0] != "Resources":
                _add(archive, path, f"{own.name}/{inside.as_posix()}")
        for folder in _FOLDERS:
            for path in sorted((resources() / folder).rglob("*")):
                if path.is_file():
                    _add(archive, path, f"Resources/{path.relative_to(resources()).as_posix()}")
    return packed.getvalue()


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    """A file without its owner's name."""

    def nameless(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    archive.add(path, name, filter=nameless)


def about_install(engine: Ssh, build: str = "") -> dict[str, Any]:
    """What an installation would do, for a question to the user."""
    packages = ", ".join(name for name, _ in requirements())
    torch = f"torch for {build or 'the usual devices'}, which alone may take several GB"
    return {"version": __version__, "where": engine.where, "packages": packages, "torch": torch}
