"""Errors that a person caused and can mend: their message is one line that says what, where and how to mend."""

from __future__ import annotations

import errno
import os
import sys
from typing import NoReturn

LONGEST_MESSAGE = 2000
USAGE_ERROR = 2  # exit code of a command that a mistake of the user's kept from its work
INTERRUPTED = 130  # exit code of what was ended by Ctrl-C, as shells have it
UNREAD = 141  # exit code of what nobody reads any more, as shells have it
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # a disk takes no more


class GnncomposeError(Exception):
    """Base of every error that is the user's to mend; commands print its message without a traceback."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))

    def __reduce__(self) -> tuple[type[GnncomposeError], tuple[str]]:
        return type(self), (str(self),)


def one_line(text: str) -> str:
    """A text as one line of moderate length that a terminal prints as it stands.

    Names in a stranger's files find their way into messages, and may hold line breaks, escape sequences of terminals,
    halves of surrogate pairs, or a gigabyte.
    """
    if len(text) > LONGEST_MESSAGE:
        half = LONGEST_MESSAGE // 2
        text = f"{text[:half]} … {text[-half:]}"
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


def end_unread() -> NoReturn:
    """End without a word where the reader of standard output has gone, as after `| head`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
    raise SystemExit(UNREAD)


class CatalogError(GnncomposeError):
    """A catalog, or an artifact that it names, is not usable."""


class ArtifactError(CatalogError):
    """What an artifact holds breaks a rule, or does not load; the file is the one that its entry names."""


class CompositionError(GnncomposeError):
    """A composition is ill-typed, outside its limits, or its file is not readable."""


class TaskError(GnncomposeError):
    """A task bundle breaks a rule of the format."""


class EvaluationError(GnncomposeError):
    """A composition could not be evaluated; the run may go on without it."""


class BusyError(EvaluationError):
    """A composition got too little of a busy machine to answer in time; asked again, it may answer."""


class SandboxError(GnncomposeError):
    """No process can be started that artifacts may run in; no composition is to blame."""


class StoreError(GnncomposeError):
    """The evaluation store cannot be opened, read or written; a run that was to use it cannot go on."""


class ClusterError(GnncomposeError):
    """Ray, or the workers that it is to run, cannot be used; no composition is to blame."""


class TableError(GnncomposeError):
    """A recorded table is missing, damaged, or does not hold what it was asked for."""
