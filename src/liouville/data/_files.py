"""Writing files all or nothing."""

import contextlib
import os
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
        The file. A link stays a link; what cannot be replaced, such as a pipe, is written to directly.

    Yields
    ------
    file
        Open for writing bytes.

    Raises
    ------
    FileNotFoundError
        Where there is no folder for the file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        with open(path, "wb") as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Expected a folder for {path.name}, got none at {path.parent}; try creating it first.")
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        # Temporary files are private; the user's own setting says what the finished one is.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
