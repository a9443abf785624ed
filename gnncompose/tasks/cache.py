"""Where what was downloaded or built is kept."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_directory() -> Path:
    """Where bundles and downloads are kept: `GNNCOMPOSE_CACHE`, or the user's cache folder."""
    chosen = os.environ.get("GNNCOMPOSE_CACHE")
    return Path(chosen).expanduser() if chosen else user_cache_path("gnncompose")
