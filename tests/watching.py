"""Keeping watch over a folder: Linux' inotify tells of every file that anyone opens, reads or changes there."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

EVENTS = {
    0x1: "read",
    0x2: "written",
    0x4: "its attributes changed",
    0x20: "opened",
    0x40: "moved from",
    0x80: "moved to",
    0x100: "made",
    0x200: "removed",
    0x400: "itself removed",
    0x800: "itself moved",
}
_EVENT = struct.Struct("iIII")


class Watch:
    """What happens to the files of a folder from now on."""

    def __init__(self, folder: Path) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        self._handle = self._library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        mask = sum(EVENTS)
        if self._handle < 0 or self._library.inotify_add_watch(self._handle, os.fsencode(folder), mask) < 0:
            raise OSError(ctypes.get_errno(), "inotify")

    def events(self) -> list[str]:
        """What happened since the last call, in a line each."""
        found = []
        while True:
            try:
                content = os.read(self._handle, 1 << 16)
            except BlockingIOError:
                return found
            while content:
                _, mask, _, length = _EVENT.unpack_from(content)
                name = content[_EVENT.size : _EVENT.size + length].rstrip(b"\0").decode()
                if name or mask & 0xC00:  # reading the names in the folder is no event of a file
                    found.append(f"{name}: {', '.join(text for bit, text in EVENTS.items() if mask & bit)}")
                content = content[_EVENT.size + length :]

    def close(self) -> None:
        """Watch no longer."""
        os.close(self._handle)


def snapshot(folder: Path) -> dict[str, tuple[int, ...]]:
    """Kind, size, links and time of change of everything below a folder, by its path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        is_folder = path.is_dir() and not path.is_symlink()  # what is in it has lines of its own
        more = () if is_folder else (status.st_size, status.st_nlink, status.st_mtime_ns)
        found[str(path.relative_to(folder))] = (status.st_mode, *more)
    return found
