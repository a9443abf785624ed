"""Connections of clients: one that does not send its request in time is ended, so that none is held for nothing.

uvicorn waits for the head of a request as long as it takes, and for a first one on a new connection; only between
requests it has an end to its patience.
"""

from __future__ import annotations

import asyncio
import sys

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

OTHER_FILES = 512  # that a server has open beside its connections, at most


class _Punctual(HttpToolsProtocol):
    """A connection whose requests' heads have to come in time."""

    arrival_s: float
    _due: asyncio.TimerHandle | None = None
    _is_amid: bool | None = None  # a head; None before the first byte

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`; a new connection may wait as long as one between requests."""
        super().connection_made(transport)
        self._due = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`; most heads come whole, and need no timer."""
        super().data_received(data)
        # A scope is made with a head's first byte; the method is noted in it with the last.
        is_amid = self.scope is not None and "method" not in self.scope
        if is_amid != self._is_amid:
            self._is_amid = is_amid
            self._forget()
            if is_amid:
                self._due = self.loop.call_later(self.arrival_s, self._too_late)
        is_idle = not is_amid and (self.cycle is None or self.cycle.response_complete)
        if is_idle and self.timeout_keep_alive_task is None:  # what came is no request, such as an empty line
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._forget()
        super().connection_lost(exc)

    def _forget(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _too_late(self) -> None:
        if self.transport.is_closing():
            return
        told = orjson.dumps({"error": f"the head of the request took longer than {self.arrival_s:g} s"})
        head = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(head + b"content-length: %d\r\n\r\n" % len(told) + told)
        self.transport.close()


def make_room(count: int) -> None:
    """Let this process hold so many connections at once, as far as the system lets it."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHER_FILES if hard == resource.RLIM_INFINITY else min(count + OTHER_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections(arrival_s: float) -> type[asyncio.Protocol]:
    """What uvicorn makes of each connection.

    Args:
        arrival_s: How long a request's head may take to come.
    """
    return type("Punctual", (_Punctual,), {"arrival_s": arrival_s})
