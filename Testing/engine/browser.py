"""A headless Chromium that tests look through, by its own debugging protocol; needs aiohttp, which trame brings."""

from __future__ import annotations

import asyncio
import base64
import itertools
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


class Browser:
    """One page.  ``requested``: the addresses that it asked for; ``errors``: what its scripts complained of."""

    def __init__(self, folder: Path, *, size: tuple[int, int] = (1280, 800), timeout_s: float = 60.0) -> None:
        profile = folder / "profile"
        assert PROGRAM is not None
        command = [
            PROGRAM,
            *_OPTIONS,
            f"--user-data-dir={profile}",
            f"--window-size={size[0]},{size[1]}",
            "about:blank",
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.requested: list[str] = []
        self.errors: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._numbers = itertools.count(1)
        self._replies: dict[int, Any] = {}
        told = profile / "DevToolsActivePort"
        wait_for(lambda: told.exists() and len(told.read_text().splitlines()) == 2, timeout_s, "Chromium's port")
        self._do(self._connect(int(told.read_text().splitlines()[0])))
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    async def _connect(self, port: int) -> None:
        import aiohttp

        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            [page] = [target for target in await answer.json() if target["type"] == "page"]
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)

    def _do(self, work: Any) -> Any:
        return self._loop.run_until_complete(work)

    def call(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol, and its answer."""
        return self._do(self._call(method, parameters))

    async def _call(self, method: str, parameters: dict[str, Any]) -> Any:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            said = await self._socket.receive_json(timeout=60)
            if said.get("id") == number:
                assert "error" not in said, said
                return said["result"]
            self._note(said)

    def _note(self, said: dict[str, Any]) -> None:
        about = said.get("params", {})
        if said.get("method") == "Network.requestWillBeSent":
            self.requested.append(about["request"]["url"])
        elif said.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(about["exceptionDetails"]))
        elif said.get("method") == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.errors.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def ask(self, script: str) -> Any:
        """The value of an expression of JavaScript; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script: str, timeout_s: float = 300.0) -> Any:
        """The value of an expression once it is true."""
        return wait_for(lambda: self.ask(script), timeout_s, script, every_s=0.2)

    def picture(self, path: Path | None = None, *, jpeg: bool = False) -> bytes:
        """What is seen."""
        options = {"format": "jpeg", "quality": 80} if jpeg else {"format": "png"}
        data = base64.b64decode(self.call("Page.captureScreenshot", **options)["data"])
        if path is not None:
            path.write_bytes(data)
        return data

    def close(self) -> None:
        async def hang_up() -> None:
            await self._socket.close()
            await self._session.close()

        try:
            self._do(hang_up())
        finally:
            self._loop.close()
            self._process.terminate()
            self._process.wait(30)


def wait_for(condition: Callable[[], Any], timeout_s: float, what: str, every_s: float = 0.05) -> Any:
    """The value of a condition once it is true; raises TimeoutError."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(every_s)
    raise TimeoutError(f"not within {timeout_s} s: {what}")
