"""Writing files all or nothing, where they are to be."""

import contextlib
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of `path` when all has been written: a crash leaves the old one.

    Parameters
    ----------
    path
        The file. A link stays a link, and a file that is there keeps its mode and, where that can be, its owner.
        What cannot be replaced, such as a pipe or a device, is written to.

    Yields
    ------
    file
        Open for writing bytes.

    Raises
    ------
    OSError
        Where the path cannot be written; the message names it.
    """
    target = _target(path)
    if target is None:
        buffer = io.BytesIO()
        yield buffer
        with open(path, "wb") as file:
            file.write(buffer.getbuffer())
        return
    handle, temporary = _temporary(target, path)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _take_mode(temporary, target)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def check_writable(path: str | os.PathLike) -> None:
    """Raise what `replacing` would raise of a path, before the work is done that it is for.

    A temporary file is made beside it and removed: what permissions say does not hold for everybody, nor everywhere.

    Raises
    ------
    OSError
        Where the path cannot be written; the message names it.
    """
    target = _target(path)
    if target is not None:
        handle, temporary = _temporary(target, path)
        os.close(handle)
        os.unlink(temporary)


def _target(path: str | os.PathLike) -> Path | None:
    """Return the file to replace, links followed, or None for what cannot be replaced."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"Expected a file, got a folder at {path}; try a name in it.")
    if target.exists() and not target.is_file():
        return None
    if target.is_symlink():
        raise OSError(f"Expected a file, got a link at {path} that leads to itself; try another path.")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"Expected a file in a folder that is there, got {path}; try creating {target.parent} first."
        )
    # To root every file is writable: the mode says what is meant.
    if target.exists() and not (target.stat().st_mode & 0o222 and os.access(target, os.W_OK)):
        raise PermissionError(f"Expected a file that can be written, got {path}, read-only; try another path.")
    return target


def _temporary(target: Path, path: str | os.PathLike) -> tuple[int, str]:
    try:
        return tempfile.mkstemp(prefix=f".{target.name[:40]}.", dir=target.parent)
    except OSError as error:
        raise type(error)(
            f"Expected a place that can be written, got {path} ({error.strerror}); try another folder."
        ) from None


def _take_mode(temporary: str, target: Path) -> None:
    """Give a file the mode of the one whose place it takes, or what the user's setting says of new ones."""
    if target.exists():
        old = target.stat()
        # Before the mode: a new owner takes some of its bits away.
        with contextlib.suppress(OSError, AttributeError):
            os.chown(temporary, old.st_uid, old.st_gid)
        os.chmod(temporary, stat.S_IMODE(old.st_mode))
    else:
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
