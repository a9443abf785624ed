"""What all that starts a Ray of its own shares: settings by which nobody else gets at it, and its errors in a line."""

from __future__ import annotations

import os
import secrets

TOKEN = secrets.token_hex(32)  # one a process: Ray reads it once, and a second Ray of the process would refuse another


def set_up() -> None:
    """Set what Ray reads when it is first imported."""
    os.environ |= {
        "RAY_AUTH_MODE": "token",  # whoever talks to a part of Ray may run what they like
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # whatever its name says, it keeps Ray to the loopback interface
        "RAY_worker_niceness": "0",  # Ray's own default lets all others go before its workers
    }
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def first_line(problem: Exception) -> str:
    """Kind and first line of an error of Ray's, which go on with traces of other processes."""
    lines = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {lines[0] if lines else ''}".rstrip(": ")
