"""Pages as headless Chromium shows them, and a server of pages whose figures a test makes up."""

import json
import os
import re
import shutil
import struct
import subprocess
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CHROMIUM = shutil.which("chromium")
VOID = {"meta", "link", "img", "br", "hr", "input"}
PAGE_MS = 6000


class Shown(HTMLParser):
    """What a page came to hold, by the ids of the elements that something lies in.

    Attributes:
        texts: All text within an element, spaces joined.
        tags: Names of the elements within it, with their attributes.
        attributes: Of the element itself.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: defaultdict[str, str] = defaultdict(str)
        self.tags: defaultdict[str, list[tuple[str, dict[str, str]]]] = defaultdict(list)
        self.attributes: dict[str, dict[str, str]] = {}
        self._open: list[str] = []  # ids, empty for elements without one
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        for name in filter(None, self._open):
            self.tags[name].append((tag, attributes))
        self.attributes[attributes.get("id", tag)] = attributes
        if tag not in VOID:
            self._open.append(attributes.get("id", ""))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        for name in filter(None, self._open):
            self.texts[name] += f"{data} "

    def points(self, chart: str) -> list[int]:
        """How many points each line of a chart has, dots included."""
        paths = [attributes for tag, attributes in self.tags[chart] if tag == "path"]
        lines, dots = ([path["d"] for path in paths if path.get("class") == kind] for kind in ("line", "dots"))
        return [len(re.findall("[ML]", line)) + dot.count("M") for line, dot in zip(lines, dots, strict=True)]


def browse(url: str, folder: Path, *options: str) -> tuple[str, list[str]]:
    """What Chromium writes out for a page, and what the page's console says."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    command += [f"--user-data-dir={folder / 'profile'}", f"--virtual-time-budget={PAGE_MS}", *options]
    if os.geteuid() == 0:  # Chromium's own sandbox does not run for root
        command.append("--no-sandbox")
    environment = {**os.environ, "HOME": str(folder)}
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def screenshot(url: str, folder: Path, width: int, height: int) -> Path:
    """A picture of a page in a window of a size, in pixels."""
    picture = folder / f"{width}x{height}.png"
    browse(url, folder, f"--window-size={width},{height}", f"--screenshot={picture}")
    return picture


def size_of(picture: Path) -> tuple[int, int]:
    """Width and height of a PNG, in pixels."""
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    return width, height


@contextmanager
def serving(html: str, headers: dict[str, str], figures: Callable[[], object]) -> Iterator[str]:
    """Serve a page with figures that are made up; None cuts the connection. Gives the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/":
                return self._send(html.encode(), headers | {"Content-Type": "text/html; charset=utf-8"})
            document = figures() if self.path == "/figures" else {}
            if document is None:
                self.close_connection = True
                return None
            return self._send(json.dumps(document).encode(), {"Content-Type": "application/json"})

        def _send(self, content: bytes, more: dict[str, str]) -> None:
            self.send_response(200)
            for name, value in (more | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
