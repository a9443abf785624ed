"""What sandboxed workers ask of the system, as strace sees it from outside.

A worker counts from the moment that it gives up opening files, together with the threads it starts afterwards.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CONFINED = re.compile(r"prlimit64\(0, RLIMIT_NOFILE, \{rlim_cur=4, rlim_max=4\}.*\) = 0")
_LINE = re.compile(r"^(?P<pid>\d+) +(?P<rest>.*)$")
_CALL = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\w+)")
CONNECTION = re.compile(r"^(sendto|recvfrom|getsockname|getpeername)\(3,")
# What tells only that a name exists, or is about processes and threads of its own; an abort is a signal to itself.
HARMLESS = re.compile(
    r"^((new)?f?l?stat(at|x|64)?|faccessat2?|access|readlink(at)?|getcwd|exit|exit_group|clone3?|wait4|prlimit64)\("
    r"|^tgkill\((\d+), \5, SIGABRT\)"
)


@dataclass
class Trace:
    """What was seen.

    Attributes:
        workers: Processes that were confined.
        refused: Calls by confined ones that the system refused.
        granted: Those that it granted, and that may read, write or reach something.
    """

    workers: set[int] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    granted: list[str] = field(default_factory=list)


def is_available() -> bool:
    """Whether strace is there, and may trace."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0


def traced(command: list[str], log: Path, **options: object) -> tuple[subprocess.CompletedProcess[str], Trace]:
    """Run a command under strace."""
    watch = ["strace", "-f", "-qq", "-s", "200", "-e", "trace=%file,%network,%process,prlimit64", "-o", str(log)]
    done = subprocess.run([*watch, *command], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    return done, read_trace(log.read_text(errors="replace"))


def read_trace(text: str) -> Trace:
    """Read the log of `strace -f`."""
    found, confined = Trace(), set[int]()
    for pid, line in _whole_lines(text):
        call = _CALL.match(line)
        if pid not in confined:
            if CONFINED.search(line):
                confined.add(pid)
                found.workers.add(pid)
        elif call is not None:
            if call["name"].startswith("clone") and call["result"].isdigit():
                confined.add(int(call["result"]))
            if call["result"] == "-1":
                found.refused.append(line)
            elif not HARMLESS.match(line) and not CONNECTION.match(line):
                found.granted.append(line)
    return found


def _whole_lines(text: str) -> Iterator[tuple[int, str]]:
    """Process and call of each line; calls that others interrupted are put together."""
    begun: dict[int, str] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        pid, rest = int(match["pid"]), match["rest"]
        if rest.endswith("<unfinished ...>"):
            begun[pid] = rest.removesuffix("<unfinished ...>").rstrip()
        elif rest.startswith("<... "):
            yield pid, begun.pop(pid, "") + rest.partition("resumed>")[2]
        else:
            yield pid, rest
