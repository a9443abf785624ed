"""The only door to the files of a bundle: it opens regular files inside the bundle's folder, and nothing else."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from gnncompose.errors import CatalogError, GnncomposeError


@contextmanager
def open_inside(folder: Path, path: str, error: type[GnncomposeError] = CatalogError) -> Generator[BinaryIO]:
    """A file inside a folder, opened to be read.

    Every part of the path is opened without following links, so what is read lies inside the folder even while
    somebody changes it. The folder itself may be a link.

    Args:
        folder: Where the path begins.
        path: Its parts, with `/` in between.
        error: What is raised; the message begins with the path.

    Raises:
        GnncomposeError: As `error`: the path leaves the folder, or names a link, no regular file, or nothing.
    """
    parts = PurePosixPath(path.replace(os.sep, "/")).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in path:
        raise error(f"{path} leaves the folder of the catalog; put the file inside it")
    with ExitStack() as opened:
        try:
            file = opened.enter_context(os.fdopen(_descend(folder, parts, opened), "rb"))
        except UnicodeEncodeError:
            raise error(f"{path}: is no name that a file can have; rename it") from None
        except OSError as problem:
            if problem.errno == errno.ELOOP:
                raise error(f"{path} is a link, or lies behind one; put the file itself there") from None
            raise error(f"{path}: {problem.strerror}; add the file or drop the entry") from None
        yield file


def _descend(folder: Path, parts: tuple[str, ...], opened: ExitStack) -> int:
    """Open a path part by part; the folders on the way are closed with `opened`, the file is the caller's."""
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    opened.callback(os.close, here)
    for part in parts[:-1]:
        _refuse_link(part, here)
        here = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
        opened.callback(os.close, here)
    # Asked before it is opened, since opening a device may do something; and again after, since it may be another now.
    _refuse_link(parts[-1], here)
    _refuse_irregular(os.stat(parts[-1], dir_fd=here, follow_symlinks=False))
    # Without O_NONBLOCK a named pipe would hold us until somebody writes to it.
    handle = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    try:
        _refuse_irregular(os.fstat(handle))
    except OSError:
        os.close(handle)
        raise
    return handle


def _refuse_link(part: str, folder: int) -> None:
    """A link on the way would fail to open as "Not a directory", which tells nobody what is wrong."""
    if stat.S_ISLNK(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _refuse_irregular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is no regular file")
