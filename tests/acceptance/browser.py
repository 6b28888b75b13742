"""A headless Chromium, told what to do by its DevTools protocol."""

import asyncio
import base64
import itertools
import json
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager

import pytest

PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")
WORDS = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "about:blank")
SECONDS = 120


@contextmanager
def browser():
    """Where a browser listens; skips where there is none."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"needs a browser: {', '.join(PROGRAMS)}")
    with tempfile.TemporaryDirectory(prefix="etude-browser-") as home:
        command = [program, f"--user-data-dir={home}", *WORDS]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
            try:
                found = (re.search(r"DevTools listening on (ws://\S+)", line) for line in process.stderr)
                yield next(filter(None, found))[1]
            finally:
                process.terminate()
                process.wait()


class Tab:
    """A page that is open, and what its console was told."""

    def __init__(self, socket):
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session = None
        self.complaints = []
        self._events = []

    async def do(self, method, **params):
        """Do something, and give what came of it."""
        number = next(self._numbers)
        asked = {"id": number, "method": method, "params": params}
        await self._socket.write_message(json.dumps(asked | ({"sessionId": self._session} if self._session else {})))
        while (told := await self._next()).get("id") != number:
            self._take(told)
        assert "error" not in told, told
        return told["result"]

    async def _next(self):
        return json.loads(await asyncio.wait_for(self._socket.read_message(), SECONDS))

    def _take(self, told):
        method, params = told.get("method"), told.get("params", {})
        self._events.append(method)
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        if method == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
            self.complaints.append(params["entry"]["text"])
        if method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning", "assert"}:
            self.complaints.append(str(params["args"]))

    async def open(self, path, width, *, dark=False):
        """Open a file in a window of a width, and wait until it is loaded."""
        made = await self.do("Target.createTarget", url="about:blank")
        attached = await self.do("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.do(f"{domain}.enable")
        await self.do(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.do("Emulation.setEmulatedMedia", features=[scheme])
        await self.do("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in self._events:
            self._take(await self._next())

    async def ask(self, script):
        """The value of a script's promise."""
        told = await self.do("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"]["value"]

    async def picture(self, height):
        """A PNG of the page, from its top."""
        size = await self.ask("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": min(height, size[1]), "scale": 1}
        told = await self.do("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(told["data"])


def looked_at(address, path, width, script, *, dark=False, picture=None):
    """What a script says of a page, what its console was told, and its picture so many pixels high."""
    from tornado.websocket import websocket_connect

    async def look():
        socket = await websocket_connect(address, max_message_size=1 << 28)
        tab = Tab(socket)
        await tab.open(path, width, dark=dark)
        found = await tab.ask(script)
        drawn = None if picture is None else await tab.picture(picture)
        socket.close()
        while await socket.read_message() is not None:
            continue
        return found, tab.complaints, drawn

    return asyncio.run(look())
