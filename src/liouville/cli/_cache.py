"""What JAX has compiled, kept for the next command in the user's cache folder."""

import contextlib
import os
import stat
import sys
from pathlib import Path

# What takes less is compiled again; of more bytes the oldest programs go.
_LEAST_SECONDS, _MOST_BYTES = "0.1", 2**30


def keep_compiled() -> None:
    """Tell JAX, before it is imported, where compiled programs are kept; where that cannot be, do nothing.

    What stands in JAX's own variables holds.
    """
    name = "JAX_COMPILATION_CACHE_DIR"
    if "jax" in sys.modules or name in os.environ:
        return
    try:
        folder = cache_folder()
    except RuntimeError:  # a user without a home
        return
    if not _is_ours(folder):
        return
    _leave_room(folder)
    os.environ[name] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", _LEAST_SECONDS)


def cache_folder() -> Path:
    """Return the folder of the user's cache that is this program's."""
    home = Path.home()
    by_platform = {"darwin": home / "Library/Caches", "win32": os.environ.get("LOCALAPPDATA", home)}
    place = os.environ.get("XDG_CACHE_HOME") or by_platform.get(sys.platform, home / ".cache")
    return Path(place) / "liouville"


def _is_ours(folder: Path) -> bool:
    """Return True where a folder is there, made where it was not, into which nobody else writes: programs are run."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        return False
    return sys.platform == "win32" or (found.st_uid == os.getuid() and not found.st_mode & 0o077)


def _leave_room(folder: Path) -> None:
    """Delete the oldest programs where there are more than the folder is for."""
    # Another command may be at it, too.
    with contextlib.suppress(OSError):
        files = sorted(((path.stat(), path) for path in folder.iterdir()), key=lambda file: -file[0].st_mtime)
        kept = 0
        for found, path in files:
            kept += found.st_size
            if kept > _MOST_BYTES:
                path.unlink(missing_ok=True)
