"""A report that follows its runs: a server on this machine alone, which answers with the page and with its data."""

import json
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Final

from etude.app.report.gather import RunTold, gather_all
from etude.app.report.page import MANY, POINTS, content, data, page
from etude.base.errors import ConfigError, EtudeError

HOME: Final = "127.0.0.1"
NAMES: Final = (HOME, "localhost")
"""What a browser may call this server; any other name was led here by somebody else's page."""

Answer = Callable[[], tuple[str, str]]
"""Gives the kind of content and the content."""


class Watch(ThreadingHTTPServer):
    """Serves the report of some runs, read anew for each answer."""

    daemon_threads = True

    def __init__(self, folders: Sequence[Path], port: int = 0) -> None:
        self._folders = folders
        self.answers: dict[str, Answer] = {"/": self._page, "/data.json": self._data}
        try:
            super().__init__((HOME, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"--port {port} cannot be listened on: {str(error).removesuffix('.')}.") from error

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://{HOME}:{self.server_port}/"

    def _runs(self) -> list[RunTold]:
        return gather_all(self._folders, whole=len(self._folders) <= MANY)

    def _page(self) -> tuple[str, str]:
        return "text/html; charset=utf-8", page(self._runs(), POINTS, watched=True)

    def _data(self) -> tuple[str, str]:
        """The data of the charts, and the static parts as they are now."""
        runs = self._runs()
        told: dict[str, Any] = data(runs, POINTS) | {"content": content(runs), "running": _are_running(runs)}
        return "application/json", json.dumps(told, allow_nan=False)


def _are_running(runs: Sequence[RunTold]) -> bool:
    return any(run.state == "running" for run in runs)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET of what there is, to whoever calls this machine by its own name."""

    server: Watch
    protocol_version = "HTTP/1.1"
    HEADERS: ClassVar = {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "X-Frame-Options": "DENY",
    }

    def do_GET(self) -> None:
        """Answer."""
        host = self.headers.get("Host", "").rpartition(":")[0]
        answer = self.server.answers.get(self.path.partition("?")[0])
        if host not in NAMES:
            self._send(HTTPStatus.FORBIDDEN, "text/plain", "This report is for this machine alone.\n")
        elif answer is None:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", "There is nothing here.\n")
        else:
            self._answer(answer)

    def _answer(self, answer: Answer) -> None:
        try:
            kind, found = answer()
        except (EtudeError, OSError, ValueError) as error:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", f"{error}\n")
            return
        self._send(HTTPStatus.OK, kind, found)

    def _send(self, status: HTTPStatus, kind: str, found: str) -> None:
        content = found.encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **self.HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server asks for
        """Say nothing of each request."""
