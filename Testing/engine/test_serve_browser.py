"""The page as a browser shows it: a server of its own, a headless Chromium, a run of a small scan.

They need trame-slicer, which ``make test-web`` brings, and Chromium; everything waits for what is seen, not for times.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import DiffusionMBIRLib as mbir
from DiffusionMBIRLib.jobs.folder import JobFolder
from Testing.engine.browser import PROGRAM, Browser, wait_for
from Testing.engine.helpers import ROOT, body

pytestmark = pytest.mark.skipif(
    find_spec("trame_slicer") is None or find_spec("LayerDMLib") is None, reason="needs trame-slicer"
)
in_a_browser = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium")
LIT = """[...document.querySelectorAll('#views img')].filter(image => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    if (!canvas.width || !canvas.height) return false;
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    const values = context.getImageData(0, 0, canvas.width, canvas.height).data;
    let count = 0;
    for (let k = 0; k < values.length; k += 4) count += values[k] > 60;
    return count > 0.01 * values.length / 4;
}).length"""  # views of which one pixel in a hundred is not dark


class Server:
    """``diffusionmbir serve`` in a process of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.results, self.jobs = folder / "results", folder / "jobs"
        self.results.mkdir()
        command = [
            sys.executable,
            "-m",
            "DiffusionMBIRLib",
            "serve",
            *arguments,
            "-o",
            str(self.results),
            "--port",
            "0",
        ]
        environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
        environment |= {name: str(folder / "data") for name in ("XDG_DATA_HOME", "LOCALAPPDATA")}
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--folder", str(self.jobs), "--device", "cpu", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=folder, text=True,
        )  # fmt: skip
        self.told: list[str] = []
        self._readers = [
            threading.Thread(target=self.told.extend, args=(stream,), daemon=True)
            for stream in (self.process.stdout, self.process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    @property
    def address(self) -> str:
        def found() -> str:
            assert self.process.poll() is None, self.told
            return next((line for line in self.told if line.startswith("{")), "")

        return str(json.loads(wait_for(found, 180, "the server's address"))["address"])

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        for reader, stream in zip(self._readers, (self.process.stdout, self.process.stderr), strict=True):
            reader.join(10)
            stream.close()
        return code


def answer(address: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=60) as found:
            return found.status, found.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data-of-owner"
    data.mkdir()
    volume = body((12, 32, 32))
    volume.save(data / "body.nrrd")
    mbir.simulate(volume, views=8).save(data / "scan.h5")
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    made = Server(folder, str(folder / "data-of-owner"))
    yield made
    made.stop()


@pytest.fixture
def browser(folder: Path) -> Iterator[Browser]:
    made = Browser(folder)
    yield made
    made.close()


def fill(browser: Browser, **values: object) -> None:
    """Type into fields of the form."""
    for name, value in values.items():
        browser.ask(
            f"(() => {{ const field = document.querySelector('#{name}'); field.value = {json.dumps(str(value))};"
            " field.dispatchEvent(new Event('input')); })()"
        )
        browser.wait(f"trame.state.get('{name}') == {json.dumps(str(value))}")


def text(browser: Browser, name: str) -> str:
    return str(browser.ask(f"document.querySelector('#{name}').innerText"))


def test_the_page_needs_nothing_that_the_extra_does_not_bring():
    assert find_spec("slicer")
    assert find_spec("aiohttp")


@pytest.mark.slow
@in_a_browser
def test_a_scan_is_reconstructed_in_the_browser(server, browser, folder):
    address = server.address
    base, token = address.partition("?")[0], address.partition("token=")[2]
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
               "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}  # fmt: skip
    for path in ("", "index.html", "result", "vue.global.js", "paraview/", f"index.html?token={token}", "?token=guess"):
        assert answer(base + path) == (403, b""), path
    assert answer(f"{base}ws", **upgrade) == (403, b"")

    browser.open(address)
    browser.wait("document.querySelector('#run') && !document.querySelector('#run').disabled")
    assert token not in browser.ask("location.href + document.cookie + document.referrer")
    assert "Research use only" in text(browser, "notice")
    browser.wait(f"({LIT}) == 3")
    assert re.fullmatch(r"Shown: -?\d+ to -?\d+ HU", text(browser, "range"))
    given = browser.picture(folder / "given.png")

    fill(browser, amount=6, steps=2)
    browser.ask("document.querySelector('#run').click()")
    browser.wait("trame.state.get('previews') > 0")
    browser.wait("trame.state.get('saved') || trame.state.get('problem')")
    assert text(browser, "problem") == ""
    assert "body-reconstruction.nrrd" in text(browser, "saved")
    assert text(browser, "line").startswith("done in ")
    result = mbir.read_volume(server.results / "body-reconstruction.nrrd")
    assert result.array.shape == (12, 32, 32)
    [job] = server.jobs.iterdir()
    request = JobFolder.open(job).request
    assert (request.settings["steps"], request.scan["views"]) == (2, 6)
    assert np.corrcoef(result.array.ravel(), body((12, 32, 32)).array.ravel())[0, 1] > 0.8
    browser.wait(f"({LIT}) == 3")
    assert browser.picture(folder / "result.png") != given
    fetched = browser.ask("fetch('/result').then(found => found.arrayBuffer()).then(data => data.byteLength)")
    assert fetched == (server.results / "body-reconstruction.nrrd").stat().st_size

    fill(browser, steps=5000)
    browser.ask("document.querySelector('#run').click()")
    browser.wait("trame.state.get('running') && /^dual|of 5000/.test(trame.state.get('line'))")
    browser.ask("document.querySelector('#cancel').click()")
    browser.wait("!trame.state.get('running') && trame.state.get('line').startsWith('cancelled')")
    assert "job resume" in text(browser, "line")
    assert [path.name for path in server.results.iterdir()] == ["body-reconstruction.nrrd"]

    own = (base, f"blob:{base}", "data:")
    assert {asked for asked in browser.requested if not asked.startswith(own)} == set()
    # The client of trame asks for a launcher, which is not there.
    assert [error for error in browser.errors if "/paraview/" not in error] == []
    assert server.stop() == 0
    assert [line for line in server.told if token in line] == [f"{json.dumps({'address': address})}\n"]
    assert "Traceback" not in "".join(server.told)


@pytest.mark.slow
@in_a_browser
def test_a_scan_is_shown_as_soon_as_there_is_something_and_a_stopped_server_keeps_its_job(server, browser, folder):
    browser.open(server.address)
    browser.wait("document.querySelector('#run') && !document.querySelector('#run').disabled")
    browser.ask("trame.state.set('source', 'scan.h5')")
    browser.wait("trame.state.get('is_scan') && !document.querySelector('#run').disabled")
    for forged in ("../secret", "/etc/passwd", 5):
        browser.ask(f"trame.state.set('source', {json.dumps(forged)})")
        browser.wait("trame.state.get('problem').includes('not among those')")
    browser.ask("trame.state.set('source', 'scan.h5')")
    browser.wait("trame.state.get('problem') == '' && !document.querySelector('#run').disabled")
    fill(browser, steps=5000)
    browser.ask("document.querySelector('#run').click()")
    browser.wait("trame.state.get('previews') > 0")
    browser.wait(f"({LIT}) == 3")
    browser.wait("/of 5000/.test(trame.state.get('line'))")
    assert server.stop() == 0
    assert any("job resume" in line for line in server.told)
    [job] = server.jobs.iterdir()
    assert JobFolder.open(job).status == "interrupted"
