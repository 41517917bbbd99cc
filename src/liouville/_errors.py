"""The three exceptions of the library, each a subclass of a standard one."""

import difflib
from collections.abc import Iterable


class SolveError(RuntimeError):
    """An ODE solve or a training run failed and cannot recover."""


class DataError(ValueError):
    """The data cannot be used as they are; the message names row or column."""


class CheckpointError(ValueError):
    """A model file or a checkpoint cannot be read or does not fit."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question for the name that was meant, to be put behind the wrong one; nothing where none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
