"""A page as PDF, printed by a browser of the Chromium family where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ..errors import EngineError, InputError
from ..io.files import replacing

BROWSER = "DIFFUSIONMBIR_BROWSER"  # environment: the program to print with
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge", "microsoft-edge")
_PLACES = {
    "darwin": (
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
        "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    ),
    "win32": (
        "Google/Chrome/Application/chrome.exe",
        "Microsoft/Edge/Application/msedge.exe",
    ),
}  # where installers put it, on Windows below the folders of programs
_LONGEST_S = 120


def find_browser() -> str | None:
    """The browser of $DIFFUSIONMBIR_BROWSER, else the first of the family that is installed; None without one.

    Raises InputError where the environment names a program that is none.
    """
    named = os.environ.get(BROWSER)
    if named:
        found = shutil.which(named)
        if found is None:
            raise InputError(f"{BROWSER}={named}: is no program; name a Chromium, Chrome or Edge, or leave it out")
        return found
    roots = [os.environ.get(name, "") for name in ("ProgramFiles", "ProgramFiles(x86)", "LocalAppData")]
    places = _PLACES.get(sys.platform, ())
    installed = [str(Path(root) / place) for place in places for root in roots if root] if os.name == "nt" else places
    return next((path for path in map(shutil.which, (*_NAMES, *installed)) if path), None)


def write_pdf(page: Path, path: Path) -> Path:
    """Print a page of ours into a file.  Raises InputError without a browser, EngineError where it fails."""
    browser = find_browser()
    if browser is None:
        raise InputError(
            f"--pdf: no Chromium, Chrome or Edge was found; print {page} in any browser, or name one by {BROWSER}"
        )
    with replacing(path, ".pdf") as temporary, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless", "--disable-gpu", "--no-first-run", "--no-pdf-header-footer"]
        options += ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []  # it refuses root otherwise
        target = Path(temporary).absolute()
        command = [browser, *options, f"--user-data-dir={profile}", f"--print-to-pdf={target}"]
        try:
            subprocess.run(
                [*command, page.absolute().as_uri()],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_LONGEST_S,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise EngineError(f"{browser}: did not print ({type(error).__name__}); print {page} by hand") from None
        if not target.is_file() or target.read_bytes()[:5] != b"%PDF-":
            raise EngineError(f"{browser}: printed nothing; print {page} by hand")
    return path
