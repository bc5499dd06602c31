"""Runs in the engine's Python, by its path: installs requirements and leaves the packages that are there as they are.

    python setup_install.py [--slicer] [--dry-run] [--build BUILD] [--wheels FOLDER] REQUIREMENT...

With --slicer through the application's own functions, which know its package index and its rules.  BUILD: which torch,
a key of INDEXES; without it the one of the usual index.  FOLDER: of wheels that were fetched elsewhere; no index is
asked.  --dry-run installs nothing and prints what pip's resolver would, a name and a version a line; it ends with 3
where one of the packages that came with this Python would change.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile

SHIPPED = ("numpy", "SimpleITK", "pydicom", "scipy", "pillow", "requests", "packaging", "setuptools", "vtk")
INDEXES = {name: f"https://download.pytorch.org/whl/{name}" for name in ("cpu", "cu126", "cu128", "cu130")}
CHANGED = 3


def name_of(requirement):
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9_.-]+", requirement).group()).lower()


def constraints(wanted):
    """Lines that hold the packages which came with this Python at the version that they have."""
    lines = []
    for name in SHIPPED:
        if name_of(name) in wanted:
            continue
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            lines.append(f"{name}=={importlib.metadata.version(name)}\n")
    return lines


def steps(requirements, build="", wheels=""):
    """What pip is called with, one after the other: torch has an index of its own where a build is chosen."""
    if wheels:
        return [[*requirements, "--no-index", "--find-links", wheels]]
    own = [text for text in requirements if name_of(text) == "torch"] if build else []
    rest = [text for text in requirements if text not in own]
    first = [[*own, "--index-url", INDEXES[build]]] if own else []
    return first + ([rest] if rest else [])


def slicer_install():
    """The application's function: that of slicer.packaging where it exists, else that of slicer.util."""
    try:
        from slicer.packaging import pip_install
    except ImportError:
        from slicer.util import pip_install
    return pip_install


def pip(arguments):
    return subprocess.call([sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *arguments])


def rehearse(arguments, wanted):
    """Let pip resolve, and print what it would install."""
    handle, path = tempfile.mkstemp(suffix="-report.json", text=True)
    os.close(handle)
    try:
        code = pip([*arguments, "--dry-run", "--quiet", "--report", path])
        if code:
            return code
        with open(path, encoding="utf-8") as stream:
            found = [entry["metadata"] for entry in json.load(stream)["install"]]
    finally:
        os.unlink(path)
    for package in found:
        print(package["name"], package["version"], flush=True)
    held = {name_of(line.partition("==")[0]) for line in constraints(wanted)}
    changed = [package["name"] for package in found if name_of(package["name"]) in held]
    if changed:
        print("would change what came with this Python:", ", ".join(changed), flush=True)
    return CHANGED if changed else 0


def main(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--slicer", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--build", default="", choices=("", *INDEXES))
    parser.add_argument("--wheels", default="")
    parser.add_argument("requirements", nargs="+")
    asked = parser.parse_args(arguments)
    wanted = {name_of(text) for text in asked.requirements}
    handle, path = tempfile.mkstemp(suffix="-constraints.txt", text=True)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.writelines(constraints(wanted))
        for step in steps(asked.requirements, asked.build, asked.wheels):
            step = [*step, "-c", path]
            if asked.dry_run:
                code = rehearse(step, wanted)
            elif asked.slicer:
                slicer_install()(step)
                code = 0
            else:
                code = pip(step)
            if code:
                return code
        return 0
    except subprocess.CalledProcessError as error:
        return error.returncode
    finally:
        os.unlink(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
