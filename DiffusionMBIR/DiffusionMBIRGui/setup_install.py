"""Runs in the engine's Python, by its path: installs requirements and leaves the packages that are there as they are.

    python setup_install.py [--slicer] REQUIREMENT...

With --slicer through the application's own functions, which know its package index and its rules.
"""

import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile

SHIPPED = ("numpy", "SimpleITK", "pydicom", "scipy", "pillow", "requests", "packaging", "setuptools", "vtk")


def name_of(requirement):
    return re.match(r"[A-Za-z0-9_.-]+", requirement).group().lower()


def constraints(wanted):
    """Lines that hold the packages which came with this Python at the version that they have."""
    lines = []
    for name in SHIPPED:
        if name.lower() in wanted:
            continue
        try:
            lines.append(f"{name}=={importlib.metadata.version(name)}\n")
        except importlib.metadata.PackageNotFoundError:
            continue
    return lines


def slicer_install():
    """The application's function: that of slicer.packaging where it exists, else that of slicer.util."""
    try:
        from slicer.packaging import pip_install
    except ImportError:
        from slicer.util import pip_install
    return pip_install


def main(arguments):
    requirements = [argument for argument in arguments if argument != "--slicer"]
    handle, path = tempfile.mkstemp(suffix="-constraints.txt", text=True)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.writelines(constraints({name_of(text) for text in requirements}))
        if "--slicer" in arguments:
            slicer_install()([*requirements, "-c", path])
            return 0
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-c", path, *requirements]
        return subprocess.call(command)
    except subprocess.CalledProcessError as error:
        return error.returncode
    finally:
        os.unlink(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
