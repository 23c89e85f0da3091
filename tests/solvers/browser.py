"""A headless Chromium, driven by its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from tornado.websocket import websocket_connect

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)


#: Longest wait in seconds, for a busy machine.
PATIENCE = 300.0


class Page:
    """One page of a browser: opens files, evaluates scripts, records messages and requests."""

    def __init__(self, width: int = 1400, height: int = 900, phone: bool = False) -> None:
        self._loop = asyncio.new_event_loop()
        self._folder = tempfile.mkdtemp()
        self._process = subprocess.Popen(
            [
                *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--remote-debugging-port=0", f"--user-data-dir={self._folder}"),
                *("--disable-dev-shm-usage", "--disable-background-networking", "about:blank"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._next = 0
        #: What the console, exceptions and the log said, as errors or warnings.
        self.messages: list[str] = []
        #: Addresses that the page asked for.
        self.requests: list[str] = []
        try:
            self._socket = self._run(self._connect())
        except BaseException:
            self.close()
            raise
        for domain in ("Runtime", "Log", "Page", "Network"):
            self.send(f"{domain}.enable")
        self.resize(width, height, phone)

    async def _connect(self) -> Any:
        return await websocket_connect(self._address(), max_message_size=2**28)

    async def _write(self, text: str) -> None:
        await self._socket.write_message(text)

    async def _read(self) -> Any:
        return await self._socket.read_message()

    def _run(self, coroutine: Any, timeout: float = PATIENCE) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(coroutine, timeout))

    def _address(self) -> str:
        port = Path(self._folder, "DevToolsActivePort")
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if port.exists() and (lines := port.read_text().splitlines()):
                url = f"http://127.0.0.1:{lines[0]}/json/list"
                pages = json.loads(urllib.request.urlopen(url, timeout=10).read())
                if found := [p for p in pages if p["type"] == "page"]:
                    return found[0]["webSocketDebuggerUrl"]
            time.sleep(0.1)
        raise TimeoutError("the browser did not start")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol, and take up the events that come before its answer."""
        self._next += 1
        mine = self._next
        text = json.dumps({"id": mine, "method": method, "params": params})
        self._run(self._write(text))
        while True:
            message = json.loads(self._run(self._read()))
            if message.get("id") == mine:
                if "error" in message:
                    raise RuntimeError(message["error"])
                return message["result"]
            self._take_up(message)

    def _take_up(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event["method"]:
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.messages.append(str(params["args"]))
            case "Runtime.exceptionThrown":
                self.messages.append(str(params["exceptionDetails"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.messages.append(str(params["entry"]))
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])

    def resize(self, width: int, height: int, phone: bool = False) -> None:
        """Set the size of the page in CSS pixels."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        self.send("Emulation.setTouchEmulationEnabled", enabled=phone)

    def dark(self, on: bool = True) -> None:
        """Prefer dark colours."""
        value = "dark" if on else "light"
        self.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": value}],
        )

    def open(self, path: Path, ready: str, timeout: float = PATIENCE) -> None:
        """Open a file and wait until an expression is true."""
        self.send("Page.navigate", url=path.resolve().as_uri())
        self.wait(ready, timeout)

    def wait(self, expression: str, timeout: float = PATIENCE) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.evaluate(f"Boolean({expression})"):
                return
            time.sleep(0.05)
        raise TimeoutError(f"{expression} did not come true; messages: {self.messages}")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, or of the promise that it is."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """Write a PNG of the page."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=whole, format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def swipe(self, x: int, y: int, up: int, steps: int = 15) -> None:
        """Draw a finger upwards over the page."""
        self.send("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        for i in range(1, steps + 1):
            points = [{"x": x, "y": y - up * i // steps}]
            self.send("Input.dispatchTouchEvent", type="touchMove", touchPoints=points)
        self.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._loop.close()
        shutil.rmtree(self._folder, ignore_errors=True)
