"""Settings of a Ray of one's own: nobody but this user's own processes gets at it."""

from __future__ import annotations

import os
import secrets


def set_up() -> None:
    """Set what Ray reads when it is first imported."""
    os.environ |= {
        "RAY_AUTH_MODE": "token",  # whoever talks to a part of Ray may run what they like
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # whatever its name says, it keeps Ray to the loopback interface
        "RAY_worker_niceness": "0",  # Ray's own default lets all others go before its workers
    }
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
